"""Maps and masks: MRC files, read and written as RELION does.

Arrays are [z, y, x] and the box centre is voxel n // 2. RELION ignores the header's start and
origin fields; they are ignored here and written as zero.
"""

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError, OutputError
from gem_plugin.io.atomic import replacing
from gem_plugin.io.mrc_header import MrcHeader, read_header, read_sections

LABEL_CHARACTERS = 80


@dataclass(frozen=True)
class MapFile:
    """A map or mask with its pixel size."""

    data: NDArray[np.float32]  # [z, y, x], cubic
    pixel_size_in_angstroms: float


def read_map(path: Path) -> MapFile:
    """Read a cubic map or mask.

    Raises
    ------
    InputError
        If the file is missing, damaged, not cubic, holds NaN or Inf, or does not tell its pixel size.
    """
    header = read_header(path)
    if not header.n_columns == header.n_rows == header.n_sections:
        raise InputError(
            f"{path} is not a cubic map: {header.n_columns} x {header.n_rows} x {header.n_sections} voxels (x, y, z). "
            "Give a map or mask with the particles' box."
        )
    if header.axis_order not in ((1, 2, 3), (0, 0, 0)):
        raise InputError(
            f"{path} stores its axes in the order {header.axis_order} (mapc, mapr, maps); expected (1, 2, 3). "
            "Save it again with x fastest and z slowest."
        )
    pixel_size = _pixel_size_in_angstroms(header)
    data = np.empty((header.n_sections, header.n_rows, header.n_columns), np.float32)
    try:
        with path.open("rb") as file:
            read_sections(file.fileno(), header, 0, data)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    n_bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    if n_bad:
        raise InputError(f"{path} holds {n_bad} voxels that are NaN or infinite; make the map again.")
    return MapFile(data=data, pixel_size_in_angstroms=pixel_size)


def _pixel_size_in_angstroms(header: MrcHeader) -> float:
    """Cell length over intervals, the same along x, y and z."""
    sizes = [
        cell / intervals if intervals > 0 else 0.0
        for cell, intervals in zip(header.cell_in_angstroms, header.n_intervals, strict=True)
    ]
    advice = f"Set it with: relion_image_handler --i {header.path} --o fixed.mrc --force_header_angpix <A>"
    if not np.isfinite(sizes[0]) or sizes[0] <= 0:
        raise InputError(f"{header.path} does not tell its pixel size (cell {header.cell_in_angstroms} A). {advice}")
    if any(abs(size - sizes[0]) > 1e-3 * sizes[0] for size in sizes):
        found = " x ".join(f"{size:.4f}" for size in sizes)
        raise InputError(f"{header.path} has voxels of {found} A (x, y, z); expected cubes. {advice}")
    return float(sizes[0])


def write_map(path: Path, data: NDArray[np.float32], pixel_size_in_angstroms: float, label: str = "") -> None:
    """Write a map that RELION 3.1 and later and ChimeraX read: float32, axes x, y, z, exact pixel size.

    Parameters
    ----------
    path
        Target; replaced whole or not at all.
    data
        [z, y, x], finite.
    pixel_size_in_angstroms
        Edge of a voxel; the cell is the number of voxels times it.
    label
        One line of text for the header, ASCII, cut at 80 characters.

    Raises
    ------
    OutputError
        If the file cannot be written, or the map holds NaN or Inf.
    """
    if data.ndim != 3:
        raise ValueError(f"a map has three axes, not {data.ndim}")
    voxels = np.ascontiguousarray(data, dtype=np.float32)
    if not np.isfinite(voxels).all():
        raise OutputError(f"{path} is not written: the map holds values that are NaN or infinite.")
    with replacing(path) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(voxels)
        file.header.ispg = 1  # a single volume; RELION ignores the field, other programs take 0 for an image stack
        file.header.mz = data.shape[0]
        for axis, n_voxels in zip("xyz", reversed(data.shape), strict=True):
            file.header.cella[axis] = n_voxels * pixel_size_in_angstroms
        file.header.nlabl = 1 if label else 0
        file.header.label[:] = b""
        file.header.label[0] = label.encode("ascii", "replace")[:LABEL_CHARACTERS]
