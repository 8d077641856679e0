"""Which files of its refinement belong to a particle table: the model, or that of each half set, and the optimiser."""

import re
from dataclasses import dataclass
from pathlib import Path

from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import CtfState
from gem_plugin.io.star import read_tables

_DATA_NAME = re.compile(r"(?P<root>.*)_data\.star$")
_ITERATION = re.compile(r"_it\d+$")
_STATES: tuple[tuple[str, float, CtfState, str], ...] = (  # column, RELION's default, state otherwise, what to say
    ("rlnDoCorrectCtf", 1, "corrected", "The refinement did not correct for the CTF ({}), and this does not either."),
    ("rlnCtfDataArePhaseFlipped", 0, "phase-flipped", "The images' phases were flipped, as {} says."),
    ("rlnCtfDataAreCtfPremultiplied", 0, "premultiplied", "The images were multiplied by their CTF, as {} says."),
)


@dataclass(frozen=True)
class RefinementFiles:
    """Files that exist; none where there are none."""

    models: tuple[Path, ...] = ()  # one, or one of each half set
    optimiser: Path | None = None
    note: str = ""  # of files that are there and are left


@dataclass(frozen=True)
class CtfTreatment:
    """How a refinement took its images' transfer functions."""

    state: CtfState = "plain"
    is_intact_to_first_peak: bool = False  # the transfer function was taken to be 1 up to its first peak
    notes: tuple[str, ...] = ()


def files_beside(table: Path) -> RefinementFiles:
    """The files that go by a particle table's name.

    Beside run_data.star these are run_model.star and the last run_it###_optimiser.star, or run_optimiser.star; beside
    run_it012_data.star, run_it012_model.star, or that of each half set, and run_it012_optimiser.star.
    """
    match = _DATA_NAME.match(table.name)
    if match is None:
        return RefinementFiles(note=_left_alone(table))
    root = table.with_name(match["root"])
    return RefinementFiles(_models(root), _optimiser(root))


def read_ctf_treatment(optimiser: Path | None) -> CtfTreatment:
    """Read from an optimiser.star how the refinement took the images; plain where it cannot be read, which is told."""
    if optimiser is None:
        return CtfTreatment()
    name = optimiser.name
    try:
        general = read_tables(optimiser).get("optimiser_general")
        if general is None:
            return CtfTreatment()
        states = [
            (state, words.format(name))
            for column, default, state, words in _STATES
            if (general.numbers(column, default=float(default))[0] != 0) != bool(default)
        ]
        is_intact = general.numbers("rlnDoIgnoreCtfUntilFirstPeak", default=0.0)[0] != 0
        flips_only = general.numbers("rlnDoOnlyFlipCtfPhases", default=0.0)[0] != 0
    except InputError as error:
        return CtfTreatment(notes=(f"{name}, beside the particles, cannot be read: {error}",))
    state, told = states[0] if states else ("plain", "")
    notes = [told] if told else []
    if flips_only and state == "plain":
        notes.append(f"The refinement corrected the CTF's phases alone ({name}); here amplitudes are corrected, too.")
    return CtfTreatment(state, is_intact, tuple(notes))


def _models(root: Path) -> tuple[Path, ...]:
    whole = root.with_name(f"{root.name}_model.star")
    if whole.is_file():
        return (whole,)
    halves = tuple(root.with_name(f"{root.name}_half{half}_model.star") for half in (1, 2))
    return halves if all(half.is_file() for half in halves) else ()


def _optimiser(root: Path) -> Path | None:
    path = root.with_name(f"{root.name}_optimiser.star")
    if not path.is_file() and not _ITERATION.search(root.name):
        path = max(root.parent.glob(f"{root.name}_it*_optimiser.star"), default=path)
    return path if path.is_file() else None


def _left_alone(table: Path) -> str:
    """What to say of a refinement's files beside a table whose name is not that of a refinement's."""
    found = [path.name for kind in ("model", "optimiser") for path in sorted(table.parent.glob(f"*_{kind}.star"))]
    if not found:
        return ""
    which = found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
    return (
        f"Files of a refinement beside the particles ({which}) are left alone, as {table.name} is not named "
        "..._data.star: the scales of groups and norm corrections are taken as 1, and the CTF as in the table. To have "
        "them used, give the refinement's own ..._data.star or ..._optimiser.star."
    )
