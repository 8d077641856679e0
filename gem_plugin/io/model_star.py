"""What a refinement tells of its particles beyond their table: each group's scale, the norm correction, the CTFs.

RELION multiplies an image by rlnNormCorrectionAverage / rlnNormCorrection and the reference by the image's group's
rlnGroupScaleCorrection (src/ml_optimiser.cpp).
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.refinement_files import CtfTreatment, RefinementFiles, files_beside, read_ctf_treatment
from gem_plugin.io.star import StarTable, read_tables

Floats = NDArray[np.float64]

LARGEST_FACTOR = 100.0  # of a scale or norm correction, either way: what lies beyond is no correction
_JOB_PREFIX = re.compile(r"^[^/]+/job\d+/")  # of a micrograph's name, which group names lack


@dataclass(frozen=True)
class RefinementRecord:
    """What is to be done to particles, beyond what their table says."""

    group_scale: Floats | None = None  # [n] of the signal in each image; None: not known
    norm_factor: Floats | None = None  # [n] what each image is multiplied by
    ctf: CtfTreatment = field(default_factory=CtfTreatment)  # of the images of groups that say nothing of it
    notes: tuple[str, ...] = ()  # sentences for the user

    def optics_groups(self, groups: tuple[OpticsGroup, ...]) -> tuple[OpticsGroup, ...]:
        """The groups with the CTF state of the refinement, where they have none of their own."""
        stated = [replace(group, ctf_state=self.ctf.state) if group.ctf_state == "plain" else group for group in groups]
        if not self.ctf.is_intact_to_first_peak:
            return tuple(stated)
        return tuple(
            replace(group, ctf_is_intact_to_first_peak=group.ctf_state in ("plain", "phase-flipped"))
            for group in stated
        )


def read_refinement_record(
    table: StarTable, half_set: NDArray[np.int8], files: RefinementFiles | None = None
) -> RefinementRecord:
    """Read the model and optimiser files of a particle table's refinement, if they are there and of these particles.

    Parameters
    ----------
    table : data_particles
    half_set : [n] 1 or 2
    files : None for those beside the table, by its name
    """
    files = files_beside(table.path) if files is None else files
    scale, norm, notes = None, None, [files.note] if files.note else []
    if files.models:
        names = _names(table, files.models)
        try:
            of_halves = [_scale_and_norm(table, model) for model in files.models]
        except InputError as error:
            notes.append(f"{names} is left alone, with its scale and norm corrections: {error}")
        else:
            chosen = (half_set.astype(np.int64) - 1) * (len(files.models) == 2)
            scale = _unless_all_one(_of_each_half([scale for scale, _ in of_halves], chosen))
            norm = _unless_all_one(_of_each_half([norm for _, norm in of_halves], chosen))
            taken = [
                f"{what} from {values.min():.3f} to {values.max():.3f}" if values is not None else f"{what} of 1"
                for what, values in (("scales of the groups", scale), ("norm corrections of the images", norm))
            ]
            notes.append(f"From {names}: {', '.join(taken)}.")
    elif not files.note and "rlnNormCorrection" in table:
        notes.append(
            f"The refinement's model is not beside {table.path.name}: the scales of groups and norm corrections are "
            "taken as 1."
        )
    ctf = read_ctf_treatment(files.optimiser)
    return RefinementRecord(scale, norm, ctf, (*notes, *ctf.notes, *_intact_note(ctf, files)))


def _names(table: StarTable, models: tuple[Path, ...]) -> str:
    names = " and ".join(model.name for model in models)
    is_beside = models[0].absolute().parent == table.path.absolute().parent
    return f"{names} beside the particles" if is_beside else " and ".join(map(str, models))


def _intact_note(ctf: CtfTreatment, files: RefinementFiles) -> list[str]:
    if not ctf.is_intact_to_first_peak or files.optimiser is None:
        return []
    return [
        f"The refinement ignored the CTFs up to their first peak ({files.optimiser.name}), and this does too, except "
        "for images that were corrected for the CTF or multiplied by it."
    ]


def _of_each_half(values: list[Floats], chosen: NDArray[np.int64]) -> Floats:
    return np.asarray(np.stack(values)[chosen, np.arange(len(chosen))])


def _unless_all_one(values: Floats) -> Floats | None:
    return None if np.all(np.abs(values - 1) < 1e-6) else values


def _scale_and_norm(table: StarTable, path: Path) -> tuple[Floats, Floats]:
    """Each particle's group scale and norm factor by one model file, [n] both; 1 where it tells none.

    Raises
    ------
    InputError
        If the model cannot be read, or is of other particles.
    """
    tables = read_tables(path)
    if "model_general" not in tables or "model_groups" not in tables:
        raise InputError(f"{path} has no data_model_general and data_model_groups: it is no model of a refinement")
    norm = np.ones(len(table))
    if "rlnNormCorrection" in table and "rlnNormCorrectionAverage" in tables["model_general"]:
        own, average = (
            table.numbers("rlnNormCorrection"),
            tables["model_general"].numbers("rlnNormCorrectionAverage")[0],
        )
        norm = _checked(path, "rlnNormCorrection", np.divide(average, own, out=np.zeros(len(table)), where=own != 0))
    groups = tables["model_groups"]
    rows = _rows_of_groups(table, groups)
    if "rlnGroupScaleCorrection" not in groups:
        return np.ones(len(table)), norm
    return _checked(path, "rlnGroupScaleCorrection", groups.numbers("rlnGroupScaleCorrection")[rows]), norm


def _checked(path: Path, column: str, factors: Floats) -> Floats:
    if not np.all((factors > 1 / LARGEST_FACTOR) & (factors < LARGEST_FACTOR)):
        raise InputError(f"{path} with the particles' table gives a factor of {factors.min():g} by {column}")
    return factors


def _rows_of_groups(table: StarTable, groups: StarTable) -> NDArray[np.int64]:
    """Which row of the model's groups is each particle's.

    By rlnGroupNumber, and where groups are named, names must agree; else by name.
    """
    names = np.array([_JOB_PREFIX.sub("", str(name)) for name in _values(groups, "rlnGroupName")])
    own = np.array([])
    for column in ("rlnGroupName", "rlnMicrographName"):
        if column in table and len(names):
            own = np.array([_JOB_PREFIX.sub("", str(name)) for name in table.texts(column)])
            break
    if "rlnGroupNumber" in table and "rlnGroupNumber" in groups:
        keys, wanted = groups.integers("rlnGroupNumber"), table.integers("rlnGroupNumber")
    elif len(own):
        keys, wanted = names, own
    else:
        raise InputError(f"{table.path} does not say of which group of {groups.path} each particle is")
    order = np.argsort(keys)
    rows = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    is_missing = keys[rows] != wanted
    if is_missing.any():
        raise InputError(f"{groups.path} has no group {wanted[is_missing][0]}, which particles of {table.path} are of")
    if len(own) and (names[rows] != own).any():
        row = int(np.flatnonzero(names[rows] != own)[0])
        raise InputError(f"{groups.path} calls the group {names[rows][row]} that {table.path} calls {own[row]}")
    return np.asarray(rows, dtype=np.int64)


def _values(table: StarTable, column: str) -> NDArray[np.object_]:
    return table.texts(column) if column in table else np.array([], dtype=object)
