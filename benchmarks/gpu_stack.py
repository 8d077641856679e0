"""Image stacks of 16-bit floats, written without a library."""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 1024
FLOAT16_MODE = 12
PIXEL_SIZE_IN_ANGSTROMS = 1.0


def header(box_size_px: int, n_images: int) -> bytes:
    """The header of an MRC2014 stack (Cheng et al., J Struct Biol 192 (2015) 146)."""
    n = box_size_px
    edge = n * PIXEL_SIZE_IN_ANGSTROMS
    words = struct.pack("<10i", n, n, n_images, FLOAT16_MODE, 0, 0, 0, n, n, n_images)
    words += struct.pack("<6f", edge, edge, n_images * PIXEL_SIZE_IN_ANGSTROMS, 90, 90, 90)
    words += struct.pack("<3i", 1, 2, 3)
    whole = words.ljust(HEADER_BYTES, b"\0")
    return whole[:208] + b"MAP \x44\x44\0\0" + whole[216:]


def write_stack(path: Path, box_size_px: int, n_images: int, blocks: Iterable[NDArray[np.float16]]) -> None:
    """Write images [m, box, box], a block at a time."""
    with path.open("wb") as file:
        file.write(header(box_size_px, n_images))
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=np.float16).data)
