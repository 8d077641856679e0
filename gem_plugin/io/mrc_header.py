"""The 1024-byte header of an MRC file, read with suspicion.

Stacks are opened by the thousand and read by index, so their header is parsed here rather than by
a library that also maps or reads the data. Nothing is allocated on the word of a header: every
size is checked against the size of the file first. Format: Cheng et al., J Struct Biol 192 (2015)
146, "MRC2014".
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError

HEADER_BYTES = 1024
# Mode 0 is signed and mode 6 unsigned in MRC2014; modes 3 and 4 (complex) and 101 (4 bits) hold no particles or maps.
DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


@dataclass(frozen=True)
class MrcHeader:
    """What is needed to find and interpret the data of an MRC file."""

    path: Path
    n_columns: int  # nx
    n_rows: int  # ny
    n_sections: int  # nz: images of a stack, slices of a map
    dtype: np.dtype[np.generic]  # with the file's byte order
    data_offset_bytes: int
    cell_in_angstroms: tuple[float, float, float]  # x, y, z
    n_intervals: tuple[int, int, int]  # mx, my, mz
    axis_order: tuple[int, int, int]  # mapc, mapr, maps

    @property
    def section_bytes(self) -> int:
        """Bytes of one image of a stack, or of one slice of a map."""
        return self.n_columns * self.n_rows * self.dtype.itemsize


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC stack or map.

    Raises
    ------
    InputError
        If the file is missing, unreadable, not MRC, of an unknown mode, or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
            file_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{path} is not an MRC file: it has {file_bytes} bytes, and the header alone has {HEADER_BYTES}."
        )
    header = _parse(path, raw, _byte_order(path, raw))
    _check_size(header, file_bytes)
    return header


def _byte_order(path: Path, raw: bytes) -> Literal["<", ">"]:
    """Byte order in which the sizes and the mode make sense; the machine stamp is often wrong."""
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        *sizes, mode = struct.unpack_from(f"{order}4i", raw)
        if mode in DTYPE_OF_MODE and 0 < sizes[0] < 1 << 16 and 0 < sizes[1] < 1 << 16 and sizes[2] > 0:
            return order
    n_columns, n_rows, n_sections, mode = struct.unpack_from("<4i", raw)
    raise InputError(
        f"{path} is not an MRC file that can be used: its header gives size {n_columns} x {n_rows} x {n_sections} and "
        f"mode {mode}; expected positive sizes and mode {', '.join(map(str, DTYPE_OF_MODE))}."
    )


def _parse(path: Path, raw: bytes, order: Literal["<", ">"]) -> MrcHeader:
    words = struct.unpack_from(f"{order}10i6f3i", raw)  # nx ny nz mode nstart[3] m[3] cella[3] cellb[3] map[3]
    (extended_header_bytes,) = struct.unpack_from(f"{order}i", raw, 92)  # nsymbt
    if extended_header_bytes < 0:
        raise InputError(f"{path} has a damaged header: the extended header has {extended_header_bytes} bytes.")
    return MrcHeader(
        path=path,
        n_columns=words[0],
        n_rows=words[1],
        n_sections=words[2],
        dtype=np.dtype(order + DTYPE_OF_MODE[words[3]]),
        data_offset_bytes=HEADER_BYTES + extended_header_bytes,
        cell_in_angstroms=(words[10], words[11], words[12]),
        n_intervals=(words[7], words[8], words[9]),
        axis_order=(words[16], words[17], words[18]),
    )


def _check_size(header: MrcHeader, file_bytes: int) -> None:
    """Refuse a file that is shorter than its header promises; trailing bytes are harmless, as for RELION."""
    expected = header.data_offset_bytes + header.section_bytes * header.n_sections
    if file_bytes < expected:
        raise InputError(
            f"{header.path} is truncated: its header promises {header.n_sections} sections of {header.n_columns} x "
            f"{header.n_rows} pixels, {expected} bytes in all, but the file has {file_bytes}. Copy or make it again."
        )


def read_sections(descriptor: int, header: MrcHeader, first: int, out: NDArray[Any]) -> None:
    """Read consecutive sections into `out`.

    Parameters
    ----------
    descriptor
        Of the open file.
    header
        Of the same file.
    first
        0-based index of the first section.
    out
        [m, rows, columns], C-contiguous; m sections are read. Of a type that holds the file's numbers: float32, or that
        of the file itself.

    Raises
    ------
    InputError
        If the file ends early or the disk fails.
    """
    offset = header.data_offset_bytes + first * header.section_bytes
    is_stored_so = header.dtype == out.dtype  # then the bytes go straight to their place
    target = out if is_stored_so else np.empty(out.shape, header.dtype)
    view = target.reshape(-1).view(np.uint8).data
    n_read = 0
    while n_read < len(view):
        try:
            n_bytes = os.preadv(descriptor, [view[n_read:]], offset + n_read)
        except OSError as error:
            raise InputError(f"{header.path} cannot be read: {error.strerror or error}.") from error
        if n_bytes == 0:
            raise InputError(f"{header.path} ends before section {first + len(out)}: it was changed during the run.")
        n_read += n_bytes
    if not is_stored_so:
        out[...] = target
