"""What a refinement wrote beside its particle table: each group's scale, the norm correction, how it took the CTFs.

RELION multiplies an image by rlnNormCorrectionAverage / rlnNormCorrection and the reference by the image's group's
rlnGroupScaleCorrection (src/ml_optimiser.cpp).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import CtfState, OpticsGroup
from gem_plugin.io.star import StarTable, read_tables

Floats = NDArray[np.float64]

LARGEST_FACTOR = 100.0  # of a scale or norm correction, either way: what lies beyond is no correction
_DATA_NAME = re.compile(r"(?P<root>.*)_data\.star$")
_ITERATION = re.compile(r"_it\d+$")
_JOB_PREFIX = re.compile(r"^[^/]+/job\d+/")  # of a micrograph's name, which group names lack


@dataclass(frozen=True)
class RefinementRecord:
    """What is to be done to particles, beyond what their table says."""

    group_scale: Floats | None = None  # [n] of the signal in each image; None: not known
    norm_factor: Floats | None = None  # [n] what each image is multiplied by
    ctf_state: CtfState = "plain"  # of the images of groups that say nothing of it
    notes: tuple[str, ...] = ()  # sentences for the user

    def optics_groups(self, groups: tuple[OpticsGroup, ...]) -> tuple[OpticsGroup, ...]:
        """The groups with the CTF state of the refinement, where they have none of their own."""
        return tuple(
            replace(group, ctf_state=self.ctf_state) if group.ctf_state == "plain" else group for group in groups
        )


def read_refinement_record(table: StarTable, half_set: NDArray[np.int8]) -> RefinementRecord:
    """Read the model and optimiser files that lie beside a particle table, if they do and are those of its refinement.

    Beside run_data.star these are run_model.star and the last run_it###_optimiser.star, or run_optimiser.star; beside
    run_it012_data.star, run_it012_model.star, or that of each half set, and run_it012_optimiser.star.

    Parameters
    ----------
    table : data_particles
    half_set : [n] 1 or 2
    """
    match = _DATA_NAME.match(table.path.name)
    if match is None:
        return RefinementRecord()
    root = table.path.with_name(match["root"])
    models = _models(root)
    scale, norm, notes = None, None, []
    if models:
        names = " and ".join(model.name for model in models)
        try:
            of_halves = [_scale_and_norm(table, model) for model in models]
        except InputError as error:
            notes.append(f"{names}, beside the particles, is left alone, with its scale and norm corrections: {error}")
        else:
            chosen = (half_set.astype(np.int64) - 1) * (len(models) == 2)
            scale = _unless_all_one(_of_each_half([scale for scale, _ in of_halves], chosen))
            norm = _unless_all_one(_of_each_half([norm for _, norm in of_halves], chosen))
            taken = [
                f"{what} from {values.min():.3f} to {values.max():.3f}"
                for what, values in (("scales of the groups", scale), ("norm corrections of the images", norm))
                if values is not None
            ]
            if taken:
                notes.append(f"From {names}, beside the particles: {', and '.join(taken)}.")
    state, told = _ctf_state(root)
    return RefinementRecord(scale, norm, state, (*notes, *told))


def _models(root: Path) -> list[Path]:
    whole = root.with_name(f"{root.name}_model.star")
    if whole.is_file():
        return [whole]
    halves = [root.with_name(f"{root.name}_half{half}_model.star") for half in (1, 2)]
    return halves if all(half.is_file() for half in halves) else []


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


def _ctf_state(root: Path) -> tuple[CtfState, list[str]]:
    """How the refinement took the images, by its optimiser file."""
    path = root.with_name(f"{root.name}_optimiser.star")
    if not path.is_file() and not _ITERATION.search(root.name):
        path = max(root.parent.glob(f"{root.name}_it*_optimiser.star"), default=path)
    if not path.is_file():
        return "plain", []
    try:
        general = read_tables(path).get("optimiser_general")
        if general is None:
            return "plain", []
        if general.numbers("rlnDoCorrectCtf", default=1.0)[0] == 0:
            return "corrected", [f"The refinement did not correct for the CTF ({path.name}), and this does not either."]
        if general.numbers("rlnCtfDataArePhaseFlipped", default=0.0)[0] != 0:
            return "phase-flipped", [f"The images' phases were flipped, as {path.name} says."]
        if general.numbers("rlnCtfDataAreCtfPremultiplied", default=0.0)[0] != 0:
            return "premultiplied", [f"The images were multiplied by their CTF, as {path.name} says."]
    except InputError as error:
        return "plain", [f"{path.name}, beside the particles, cannot be read: {error}"]
    return "plain", []
