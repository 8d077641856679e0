"""Particle tables of RELION 3.0 and older, which have no data_optics -> the two tables of RELION 3.1.

The conversion is that of relion_convert_star (RELION 5.0, src/jaz/io/star_converter.cpp): particles
with the same voltage, spherical aberration, amplitude contrast, beam tilt and pixel size become an
optics group, numbered as they come, and lengths in pixels become Angstrom.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.star import StarTable

OPTICS_COLUMNS = (
    "rlnAmplitudeContrast",
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnSphericalAberration",
    "rlnVoltage",
    "rlnDetectorPixelSize",
    "rlnMagnification",
    "rlnPixelSize",
    "rlnImagePixelSize",
    # not from RELION itself, but of the optics in every version
    "rlnImageSize",
    "rlnImageDimensionality",
)
PIXEL_SIZE_COLUMNS = ("rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification")
LENGTHS = {
    "rlnOriginX": "rlnOriginXAngst",
    "rlnOriginY": "rlnOriginYAngst",
    "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst",
    "rlnOriginYPrior": "rlnOriginYPriorAngst",
    "rlnOriginZPrior": "rlnOriginZPriorAngst",
    "rlnHelicalTrackLength": "rlnHelicalTrackLengthAngst",
}
PIXEL_SIZE_TOLERANCE = 0.01  # between two ways to say it; detectors' magnifications are rarely better known
MAX_OPTICS_GROUPS = 10_000


def convert_relion30(table: StarTable) -> tuple[StarTable, StarTable, list[str]]:
    """Split a table of RELION 3.0 or older.

    Returns
    -------
    optics, particles, notes
        Tables as RELION 3.1 has them, and what the user should know.

    Raises
    ------
    InputError
        If voltage, spherical aberration or pixel size are missing, or a value is no number.
    """
    for column in ("rlnVoltage", "rlnSphericalAberration"):
        if column not in table:
            raise InputError(
                f"{table.path} has neither data_optics nor a column {column}, so the transfer function is not known. "
                "Give the run_data.star of a Refine3D job."
            )
    present = [column for column in OPTICS_COLUMNS if column in table]
    group_of_row, first_rows = distinct_rows(table.numbers(column) for column in present)
    if len(first_rows) > MAX_OPTICS_GROUPS:
        raise InputError(
            f"{table.path} would have {len(first_rows)} optics groups, as {', '.join(present)} change from particle to "
            f"particle; expected {MAX_OPTICS_GROUPS} at most."
        )
    sizes = _pixel_sizes_in_angstroms(table, first_rows)
    kept = [column for column in present if column not in PIXEL_SIZE_COLUMNS]
    optics = table.frame.iloc[first_rows][kept].reset_index(drop=True)
    numbers = [str(number) for number in range(1, len(first_rows) + 1)]
    optics.insert(0, "rlnOpticsGroup", pd.Series(numbers, dtype="str"))
    optics.insert(1, "rlnOpticsGroupName", pd.Series([f"opticsGroup{number}" for number in numbers], dtype="str"))
    optics["rlnImagePixelSize"] = pd.Series([repr(float(size)) for size in sizes], dtype="str")
    particles = table.frame.drop(columns=[*present, *(["rlnOpticsGroup"] if "rlnOpticsGroup" in table else [])])
    particles["rlnOpticsGroup"] = np.array(numbers, dtype=object)[group_of_row]
    tables = StarTable(table.path, "optics", optics), StarTable(table.path, "particles", particles)
    converted, names = lengths_to_angstroms(tables[1], sizes[group_of_row])
    groups = "1 optics group" if len(numbers) == 1 else f"{len(numbers)} optics groups"
    lengths = f"; {', '.join(names)} converted from pixels to Angstrom" if names else ""
    note = (
        f"{table.path} is a table of RELION 3.0 or older, read as relion_convert_star would convert it: {groups}, "
        f"pixel size {', '.join(dict.fromkeys(f'{size:.6g}' for size in sizes))} Angstrom{lengths}."
    )
    return tables[0], converted, [note]


def lengths_to_angstroms(table: StarTable, pixel_size_of_row: NDArray[np.float64]) -> tuple[StarTable, list[str]]:
    """Replace the columns in pixels by those in Angstrom that RELION 3.1 has.

    A column that is there in Angstrom already is kept, and the one in pixels left out.

    Parameters
    ----------
    pixel_size_of_row
        [n] Angstrom.

    Returns
    -------
    table, names
        The new table, and the columns that were converted.
    """
    names = [column for column in LENGTHS if column in table]
    frame = table.frame.drop(columns=names)
    converted = [column for column in names if LENGTHS[column] not in table]
    for column in converted:
        lengths = table.numbers(column) * pixel_size_of_row
        frame[LENGTHS[column]] = pd.Series([f"{length:.6f}" for length in lengths], index=frame.index, dtype="str")
    return StarTable(table.path, table.name, frame), converted


def distinct_rows(columns: Iterable[NDArray[np.float64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct tuples of values in the order in which they first appear.

    Returns
    -------
    number_of_row, first_rows
        [n] 0-based, and for each number the first row that has it.
    """
    number_of_row: NDArray[np.int64] | None = None
    for values in columns:
        codes, found = pd.factorize(values)
        joint = codes if number_of_row is None else number_of_row * len(found) + codes
        number_of_row = pd.factorize(joint)[0].astype(np.int64)
    if number_of_row is None:
        raise ValueError("no columns to compare")
    return number_of_row, np.unique(number_of_row, return_index=True)[1]


def _pixel_sizes_in_angstroms(table: StarTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pixel size of the particles in some rows, from whichever columns tell it."""
    told = {column: table.numbers(column)[rows] for column in ("rlnImagePixelSize", "rlnPixelSize") if column in table}
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        micrometres, magnification = (
            table.numbers("rlnDetectorPixelSize")[rows],
            table.numbers("rlnMagnification")[rows],
        )
        if np.any(magnification <= 0):
            bad = magnification[magnification <= 0][0]
            raise InputError(f"{table.path}: rlnMagnification is {bad:g}; expected a positive number.")
        told["rlnDetectorPixelSize and rlnMagnification"] = 1e4 * micrometres / magnification
    if not told:
        raise InputError(
            f"{table.path} has no pixel size: expected rlnImagePixelSize, or rlnDetectorPixelSize with "
            "rlnMagnification, in a table of RELION 3.0 or older."
        )
    (first, sizes), *others = told.items()
    if not np.all((sizes > 0) & (sizes < 1000)):
        bad = sizes[~((sizes > 0) & (sizes < 1000))][0]
        raise InputError(f"{table.path}: the pixel size from {first} is {bad:g}; expected Angstrom a pixel.")
    for other, values in others:
        is_other = np.abs(values / sizes - 1) > PIXEL_SIZE_TOLERANCE
        if is_other.any():
            raise InputError(
                f"{table.path} gives two pixel sizes: {sizes[is_other][0]:.4f} Angstrom from {first} and "
                f"{values[is_other][0]:.4f} from {other}. Take out the wrong columns."
            )
    return sizes
