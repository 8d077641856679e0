"""An optimiser.star as input: the refinement that it belongs to tells particles, mask and symmetry."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gem_plugin.errors import InputError
from gem_plugin.io.refinement_files import RefinementFiles, files_beside
from gem_plugin.io.star import read_tables
from relion_external.options import JobOptions

_SYMMETRY_OPTION = re.compile(r"^#.* --sym[ =](\S+)", re.MULTILINE)  # in the command, which RELION writes as a comment
_NO_FILE = ("", "None")


@dataclass(frozen=True)
class Refinement:
    """What an optimiser.star tells. Paths are as in the file: relative to the project directory."""

    table: Path
    files: RefinementFiles  # the optimiser.star itself, and its model files
    mask: Path | None
    symmetry: str | None  # None: told nowhere
    notes: tuple[str, ...]


def is_optimiser(path: Path) -> bool:
    """Whether the name is that of RELION's optimiser files."""
    return path.name.endswith("optimiser.star")


def resolve_optimiser(options: JobOptions) -> tuple[JobOptions, RefinementFiles | None, list[str]]:
    """Replace an optimiser.star by what it tells; what the user gave himself stays.

    Returns
    -------
    options, files, notes
        Options with the particle table; the refinement's model and optimiser files, None where no optimiser.star is
        given; and a sentence for all that was taken.

    Raises
    ------
    InputError
        If the file, or the particle table that it names, cannot be read.
    """
    path = options.in_parts
    if path is None or not is_optimiser(path):
        return options, None, []
    refinement = read_optimiser(path)
    update: dict[str, object] = {"in_parts": refinement.table}
    told = [f"--in_parts {refinement.table}", *refinement.notes]
    kept = []
    if refinement.mask is not None:
        if options.in_mask is not None:
            kept.append(f"--in_mask {options.in_mask} instead of {refinement.mask}")
        elif refinement.mask.is_file():
            update["in_mask"] = refinement.mask
            told.append(f"--in_mask {refinement.mask}")
        else:
            told.append(f"not its mask {refinement.mask}, which is not there")
    if refinement.symmetry is None:
        told.append(f"no symmetry, which it does not tell: --sym {options.sym}")
    elif "sym" in options.model_fields_set:
        kept.append(f"--sym {options.sym} instead of {refinement.symmetry}")
    else:
        update["sym"] = _known_symmetry(path, refinement.symmetry)
        told.append(f"--sym {update['sym']}")
    notes = [f"From {path}: {', '.join(told)}."]
    if kept:
        notes.append(f"As given: {', '.join(kept)}.")
    return options.model_copy(update=update), refinement.files, notes


def read_optimiser(path: Path) -> Refinement:
    """Read an optimiser.star of RELION 3.0 to 5.

    Raises
    ------
    InputError
        If it is not one, or its particle table is not there.
    """
    tables = read_tables(path)
    general = tables.get("optimiser_general")
    if general is None or "rlnExperimentalDataStarFile" not in general:
        raise InputError(
            f"{path} is not an optimiser.star: it has no rlnExperimentalDataStarFile in data_optimiser_general. "
            "Give the run_data.star of a Refine3D job."
        )
    values = {label: str(general.frame[label].iloc[0]) for label in general.frame.columns}
    _refuse_other_refinements(path, values)
    notes = []
    table = Path(values["rlnExperimentalDataStarFile"])
    if not table.is_file():
        last = Path(re.sub(r"_(it\d+_)?optimiser\.star$", "_data.star", str(path)))
        if not last.is_file():
            raise InputError(
                f"{path} names the particle table {table}, which is not there. Run in the RELION project directory, or "
                "give the run_data.star itself."
            )
        notes.append(f"as {table} is not there")
        table = last
    named = tuple(
        Path(values[label])
        for label in ("rlnModelStarFile", "rlnModelStarFile2")
        if values.get(label, "None") not in _NO_FILE
    )
    models, told = _models(named, table)
    notes.append(told)
    mask = values.get("rlnSolventMaskName", "None")
    return Refinement(
        table=table,
        files=RefinementFiles(models, path),
        mask=None if mask in _NO_FILE else Path(mask),
        symmetry=_symmetry(path, values, models),
        notes=tuple(notes),
    )


def _models(named: tuple[Path, ...], table: Path) -> tuple[tuple[Path, ...], str]:
    """The model files to read, and what to say of them: those named, else those that lie beside the particles."""
    missing = [model for model in named if not model.is_file()]
    if named and not missing:
        return named, f"model {' and '.join(map(str, named))}"
    beside = files_beside(table).models
    why = f"not its model {missing[0]}, which is not there" if missing else "no model, which it does not name"
    if beside:
        return beside, f"{why}, but {' and '.join(map(str, beside))}"
    return (), f"{why} (scales of groups and norm corrections are taken as 1)"


def _refuse_other_refinements(path: Path, values: dict[str, str]) -> None:
    """Refuse what the particle table alone does not tell, and cannot be done here."""
    if values.get("rlnDoHelicalRefine", "0") != "0":
        raise InputError(
            f"{path} is of a refinement of helices (rlnDoHelicalRefine is {values['rlnDoHelicalRefine']}), which are "
            "not supported. Give single particles."
        )


def _known_symmetry(path: Path, name: str) -> str:
    try:
        return JobOptions.model_validate({"sym": name}).sym
    except ValidationError as error:
        raise InputError(f"{path} is of a refinement with symmetry {name}, which is not known. Give --sym.") from error


def _symmetry(path: Path, values: dict[str, str], models: tuple[Path, ...]) -> str | None:
    """Find the point group: in the sampling or model file, or in the command that the file begins with."""
    for name in (values.get("rlnOrientSamplingStarFile", "None"), *map(str, models)):
        if name not in _NO_FILE and Path(name).is_file():
            for table in read_tables(Path(name)).values():
                if "rlnSymmetryGroup" in table:
                    return str(table.frame["rlnSymmetryGroup"].iloc[0])
    with path.open(encoding="utf-8", errors="replace") as file:
        found = _SYMMETRY_OPTION.search(file.read(100_000))
    return found[1] if found else None
