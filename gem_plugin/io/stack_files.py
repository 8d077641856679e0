"""Open image stacks of any format that RELION reads for particles: MRC, and TIFF through an optional library."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.mrc_header import MrcHeader, read_header, read_sections
from gem_plugin.io.tiff_stack import TiffStack

TIFF_SUFFIXES = (".tif", ".tiff")  # RELION goes by the name, too; every other name is taken for MRC


FileStamp = tuple[int, int, int]  # size in bytes, time of the last change in ns, number on its disk


def file_stamp(path: Path) -> FileStamp:
    """By which a file that was written again or replaced is told from the one that was there before.

    Raises
    ------
    InputError
        If it cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return found.st_size, found.st_mtime_ns, found.st_ino


class StackFile(Protocol):
    """An open stack of images of one size."""

    path: Path
    n_columns: int
    n_rows: int
    n_images: int
    is_float16: bool  # whether its pixels are stored so, in this machine's byte order

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive images, 0-based from `first`, into `out` [m, rows, columns], C-contiguous.

        `out` is float32 or, where the pixels are stored so, float16.

        Raises
        ------
        InputError
            If the file ends early or cannot be read.
        """

    def close(self) -> None:
        """Close the file."""


class MrcStack:
    """A stack in MRC format, read by position: nothing is mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._header: MrcHeader = read_header(path)
        self.path = path
        self.n_columns = self._header.n_columns
        self.n_rows = self._header.n_rows
        self.n_images = self._header.n_sections
        self.is_float16 = self._header.dtype == np.float16
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive images; see `StackFile.read`."""
        read_sections(self._descriptor, self._header, first, out)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_stack(path: Path) -> StackFile:
    """Open a stack and check that it is whole.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of a format that cannot be used.
    ResourceError
        If the file is TIFF and the library that reads it is not installed.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        return TiffStack(path)
    return MrcStack(path)
