"""Stacks in TIFF format, one image a page, as RELION reads them: the file's first row is the image's last."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError, ResourceError

LARGEST_EDGE_PX = 1 << 16  # as of MRC stacks
LARGEST_EXPANSION = 2000  # of compressed pixels; deflate reaches 1032


class TiffStack:
    """An open TIFF file; needs the library tifffile, which is imported only here."""

    is_float16 = False  # what decoding gives is converted

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        try:
            self._pages: list[Any] = list(self._file.pages)
            self._check_pages()
        except InputError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise InputError(f"{path} is a damaged TIFF file: {error}. Make the stack again.") from error
        self.n_rows, self.n_columns = (int(size) for size in self._pages[0].shape)
        self.n_images = len(self._pages)

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive images, 0-based from `first`, into `out` [m, rows, columns].

        Raises
        ------
        InputError
            If the file is damaged.
        """
        for image, page in zip(out, self._pages[first : first + len(out)], strict=True):
            try:
                pixels = page.asarray()
            except Exception as error:  # whatever a decoder meets in a damaged file
                raise InputError(
                    f"Image {page.index + 1} of {self.path} cannot be read: {error}. Make the stack again, or save it "
                    "as .mrcs."
                ) from error
            image[...] = pixels[::-1]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_pages(self) -> None:
        if not self._pages:
            raise InputError(f"{self.path} is a TIFF file without images.")
        shapes = {tuple(page.shape) for page in self._pages}
        first = self._pages[0]
        if not all(len(shape) > 1 for shape in shapes):
            raise InputError(f"{self.path} is a damaged TIFF file: a page has no pixels. Make the stack again.")
        if len(shapes) > 1 or len(first.shape) != 2 or not 0 < max(first.shape) < LARGEST_EDGE_PX:
            found = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
            raise InputError(
                f"{self.path} is not a stack of particle images: its pages are of {found} pixels; expected grey images "
                "of one size."
            )
        kinds = {np.dtype(page.dtype) for page in self._pages if page.dtype is not None}
        if any(page.dtype is None for page in self._pages) or any(kind.kind not in "iuf" for kind in kinds):
            raise InputError(f"{self.path} does not hold grey values; expected integers or floating-point numbers.")
        file_bytes = self._file.filehandle.size
        for page in self._pages:
            stored_bytes = sum(page.databytecounts)
            # a chunk is what is decoded at once: a strip or a tile
            largest = max(page.nbytes, int(np.prod(page.chunks, dtype=np.float64)) * page.dtype.itemsize)
            if stored_bytes > file_bytes or largest > LARGEST_EXPANSION * max(stored_bytes, 1):
                raise InputError(
                    f"{self.path} is a damaged TIFF file: image {page.index + 1} has {largest} bytes, by its header "
                    f"stored in {stored_bytes}, and the file has {file_bytes}. Make the stack again."
                )


def _open(path: Path) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ResourceError(
            f"{path} is a TIFF file, and the library that reads them is not installed: install it with "
            "'pip install tifffile', or save the images as .mrcs (relion_image_handler --i x.tif --o x.mrcs)"
        ) from error
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is said once, by us
    try:
        return tifffile.TiffFile(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # tifffile's own errors, and those of numbers that make no sense
        raise InputError(f"{path} is not a TIFF file that can be used: {error}.") from error
