"""The optics groups that a table's particles use, as numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.star import StarTable

PIXEL_SIZE_COLUMNS = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")  # first wins
MAGNIFICATION_COLUMNS = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
LENS_RANGES = {  # least, most, what is expected: beyond, it is another unit, or nonsense
    "rlnVoltage": (10.0, 3500.0, "kilovolts, e.g. 300; mend its unit"),
    "rlnSphericalAberration": (-20.0, 20.0, "millimetres, e.g. 2.7; mend its unit"),
    "rlnAmplitudeContrast": (-0.999, 0.999, "a value between 0 and 1, e.g. 0.1; divide a percentage by 100"),
}
IDENTITY = (1.0, 0.0, 0.0, 1.0)

# what was done to the images' CTF before: nothing, phases flipped, multiplied by it, corrected for it
CtfState = Literal["plain", "phase-flipped", "premultiplied", "corrected"]
CTF_STATES: dict[str, CtfState] = {
    "rlnCtfDataAreCtfPremultiplied": "premultiplied",
    "rlnCtfDataArePhaseFlipped": "phase-flipped",
    "rlnCtfDataAreCtfCorrected": "corrected",
}


@dataclass(frozen=True)
class OpticsGroup:
    """What the particles of one optics group share: a row of data_optics, in RELION's units."""

    name: str
    pixel_size_in_angstroms: float
    box_size_px: int
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    beam_tilt_mrad: tuple[float, float] = (0.0, 0.0)  # x, y
    odd_zernike: tuple[float, ...] = ()  # coefficients of the antisymmetric phase, radians
    even_zernike: tuple[float, ...] = ()  # of the symmetric phase
    magnification: tuple[float, float, float, float] = IDENTITY  # rlnMagMat00, 01, 10, 11
    ctf_state: CtfState = "plain"
    ctf_is_intact_to_first_peak: bool = False  # taken to be 1 up to its first peak, as the refinement did
    mtf_path: Path | None = None
    original_pixel_size_in_angstroms: float = 0.0  # of the micrographs, which the MTF belongs to; 0 where not told

    @property
    def edge_in_angstroms(self) -> float:
        """Edge of the images' box."""
        return self.box_size_px * self.pixel_size_in_angstroms


def group_numbers(optics: StarTable) -> NDArray[np.float64]:
    """RlnOpticsGroup of each row of data_optics; nan where it is no number, which no particle can use.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if "rlnOpticsGroup" not in optics:
        optics.texts("rlnOpticsGroup")
    return np.asarray(pd.to_numeric(optics.frame["rlnOpticsGroup"], errors="coerce"), dtype=np.float64)


def used_rows(table: StarTable, optics: StarTable) -> tuple[StarTable, NDArray[np.int32]]:
    """The rows of data_optics that the particles use, in order of number, and which is each particle's.

    Raises
    ------
    InputError
        If a group that particles use has no row, or two.
    """
    used, group_of_particle = np.unique(table.integers("rlnOpticsGroup"), return_inverse=True)
    numbers = group_numbers(optics)
    rows = []
    for number in used:
        found = np.flatnonzero(numbers == number)
        if len(found) != 1:
            raise InputError(
                f"{table.path}: data_optics has {len(found)} rows for rlnOpticsGroup {number}, "
                "which the particles use; expected one."
            )
        rows.append(int(found[0]))
    return StarTable(optics.path, optics.name, optics.frame.iloc[rows]), group_of_particle.astype(np.int32)


def told_boxes_px(rows: StarTable) -> NDArray[np.int64]:
    """RlnImageSize of each group, 0 where the table does not tell."""
    return rows.integers("rlnImageSize") if "rlnImageSize" in rows else np.zeros(len(rows), dtype=np.int64)


def read_optics_groups(
    table: StarTable, rows: StarTable, group_of_particle: NDArray[np.int32], boxes_px: NDArray[np.int64]
) -> tuple[OpticsGroup, ...]:
    """Read the groups of `used_rows`, whose images have the boxes `boxes_px`.

    The particles' own voltage, spherical aberration and amplitude contrast win (RELION, src/ctf.cpp).

    Raises
    ------
    InputError
        If a value is missing or cannot be.
    """
    values = {column: _lens_values(table, rows, column, group_of_particle) for column in LENS_RANGES}
    sizes = _pixel_sizes_in_angstroms(rows)
    tilts = np.stack([rows.numbers(f"rlnBeamTilt{axis}", default=0.0) for axis in "XY"], axis=1)
    matrices = [rows.numbers(column, default=one) for column, one in zip(MAGNIFICATION_COLUMNS, IDENTITY, strict=True)]
    original = rows.numbers("rlnMicrographOriginalPixelSize", default=0.0)
    return tuple(
        OpticsGroup(
            name=str(rows.frame["rlnOpticsGroupName"].iloc[i])
            if "rlnOpticsGroupName" in rows
            else f"opticsGroup{i + 1}",
            pixel_size_in_angstroms=float(sizes[i]),
            box_size_px=int(boxes_px[i]),
            voltage_kv=float(values["rlnVoltage"][i]),
            spherical_aberration_mm=float(values["rlnSphericalAberration"][i]),
            amplitude_contrast=float(values["rlnAmplitudeContrast"][i]),
            beam_tilt_mrad=(float(tilts[i, 0]), float(tilts[i, 1])),
            odd_zernike=_terms(rows, "rlnOddZernike", i),
            even_zernike=_terms(rows, "rlnEvenZernike", i),
            magnification=_magnification(rows, [float(column[i]) for column in matrices], i),
            ctf_state=_ctf_state(rows, i),
            mtf_path=_mtf_path(rows, i),
            original_pixel_size_in_angstroms=float(original[i]),
        )
        for i in range(len(rows))
    )


def of_particle_or_group(
    table: StarTable,
    rows: StarTable,
    group_of_particle: NDArray[np.int32],
    column: str,
    default: float | NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """A CTF parameter of every particle: its own column, else its optics group's, else `default`."""
    if column in table or (column not in rows and default is None):
        return table.numbers(column)
    if column in rows:
        return rows.numbers(column)[group_of_particle]
    return np.broadcast_to(np.asarray(default, np.float64), (len(table),)).copy()


def _lens_values(
    table: StarTable, rows: StarTable, column: str, group_of_particle: NDArray[np.int32]
) -> NDArray[np.float64]:
    """One of `LENS_RANGES` of each group, which is refused beyond its range."""
    values = _values(table, rows, column, group_of_particle)
    least, most, expected = LENS_RANGES[column]
    is_bad = ~((values >= least) & (values <= most))
    if is_bad.any():
        group = int(np.flatnonzero(is_bad)[0])
        at = rows.row_name(group)
        if column in table:  # the particle's own value wins
            at = table.row_name(int(np.flatnonzero(group_of_particle == group)[0]))
        raise InputError(f"{rows.path}: {column} is {values[group]:g} in {at}; expected {expected}.")
    return values


def _values(
    table: StarTable, rows: StarTable, column: str, group_of_particle: NDArray[np.int32]
) -> NDArray[np.float64]:
    if column not in table:
        return rows.numbers(column, default=0.0 if column == "rlnAmplitudeContrast" else None)  # RELION's default
    own = table.numbers(column)
    values = np.empty(len(rows))
    for i in range(len(rows)):
        distinct = np.unique(own[group_of_particle == i])
        if len(distinct) > 1:
            raise InputError(
                f"{table.path}: {column} has {len(distinct)} values in data_particles within one optics group, "
                f"{distinct[0]:g} to {distinct[-1]:g}; expected one. Give each setting an optics group of its own."
            )
        values[i] = distinct[0]
    return values


def _pixel_sizes_in_angstroms(rows: StarTable) -> NDArray[np.float64]:
    for column in PIXEL_SIZE_COLUMNS:
        if column in rows:
            sizes = rows.numbers(column)
            is_bad = ~((sizes > 0.02) & (sizes < 200))
            if is_bad.any():
                row = int(np.flatnonzero(is_bad)[0])
                raise InputError(
                    f"{rows.path}: {column} is {sizes[row]:g} in {rows.row_name(row)}; expected Angstrom a pixel, e.g. "
                    "1.2; mend its unit."
                )
            return sizes
    raise InputError(f"{rows.path} has no pixel size in data_optics; expected {PIXEL_SIZE_COLUMNS[0]}.")


def _terms(rows: StarTable, column: str, row: int) -> tuple[float, ...]:
    """The numbers of a list like ``[0.1,0,0]``; none where all are 0."""
    if column not in rows:
        return ()
    text = str(rows.texts(column)[row]).strip()
    try:
        terms = tuple(float(term) for term in text.strip("[]").split(",") if term.strip())
    except ValueError as error:
        raise InputError(
            f"{rows.path}: {column} is {text} in {rows.row_name(row)}; expected numbers as in [0.1,0,0]."
        ) from error
    if not all(np.isfinite(terms)):
        raise InputError(f"{rows.path}: {column} is {text} in {rows.row_name(row)}; expected finite numbers.")
    return terms if any(terms) else ()


def _magnification(rows: StarTable, matrix: list[float], row: int) -> tuple[float, float, float, float]:
    a, b, c, d = matrix
    factors = np.linalg.svd(np.reshape(matrix, (2, 2)), compute_uv=False)  # those of an ellipse's axes
    is_near = abs(a - 1) < 0.5 and abs(d - 1) < 0.5 and abs(b) < 0.5 and abs(c) < 0.5
    if not (is_near and factors[1] > 0.5 and factors[0] < 1.5):
        raise InputError(
            f"{rows.path}: {', '.join(MAGNIFICATION_COLUMNS)} are {a:g}, {b:g}, {c:g}, {d:g} in {rows.row_name(row)}; "
            "expected a matrix near 1, 0, 0, 1, which stretches by less than half; fit it again, or set it to that."
        )
    return a, b, c, d


def _ctf_state(rows: StarTable, row: int) -> CtfState:
    states = [state for column, state in CTF_STATES.items() if column in rows and rows.numbers(column)[row] != 0]
    if len(states) > 1:
        raise InputError(
            f"{rows.path}: the images of {rows.row_name(row)} are said to be {' and '.join(states)}; expected one."
        )
    return states[0] if states else "plain"


def _mtf_path(rows: StarTable, row: int) -> Path | None:
    if "rlnMtfFileName" not in rows:
        return None
    text = str(rows.frame["rlnMtfFileName"].iloc[row]).strip()
    return Path(text) if text and text.lower() not in ("none", "nan", '""') else None
