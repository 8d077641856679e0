"""Particle images by index, a batch at a time, never a whole stack."""

import threading
from collections import OrderedDict
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.particles import Particles
from gem_plugin.io.stack_files import StackFile, file_stamp, open_stack

LARGEST_PIXEL = 1e12  # squares and sums of larger ones leave float32
MAX_OPEN_FILES = 32  # far below any limit of the system, enough for the locality of a particle table


class ImageReader:
    """Reads the images of `particles` in any order, with bounded memory and few open files.

    A context manager: leaving the block closes the files. Not for several threads at a time; give
    each thread its own reader.
    """

    def __init__(self, particles: Particles) -> None:
        self._particles = particles
        self._box_size_of_stack = _box_size_of_stack(particles)
        self._open: OrderedDict[int, StackFile] = OrderedDict()

    def __enter__(self) -> "ImageReader":
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close all open stacks; a later `read` opens them again."""
        while self._open:
            self._open.popitem()[1].close()

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of the particles `indices`.

        Parameters
        ----------
        indices
            [m] 0-based rows of the particle table, in any order, repeats allowed; all of one box size.

        Returns
        -------
        images
            [m, box, box], C-contiguous, rows y, columns x, in the order of `indices`; normalised and inverted
            where `Particles.image_repair` says so.

        Raises
        ------
        InputError
            If a stack is missing, changed or truncated, or a pixel is NaN or infinite.
        ValueError
            If the images are of several box sizes.
        """
        indices = np.asarray(indices, dtype=np.int64)
        box_size_px = self.box_size_px(indices)
        images = np.empty((len(indices), box_size_px, box_size_px), np.float32)
        self._read_into(images, indices)
        self._check_finite(images, indices)
        self._repair(images, indices)
        return images

    def read_unchecked(self, images: NDArray[np.float16] | NDArray[np.float32], indices: NDArray[np.int64]) -> None:
        """Read into memory of the caller, who makes sure that all pixels are finite; else as `read`.

        Parameters
        ----------
        images : [m, box, box], C-contiguous, of the type that `stored_type` says, or float32
        """
        self._read_into(images, indices)
        if images.dtype == np.float32:
            self._repair(images, indices)

    def stored_type(self, indices: NDArray[np.int64]) -> type[np.float16] | type[np.float32]:
        """float16 if all these images are stored so and are taken as they are, else float32."""
        if self._particles.image_repair is not None:
            return np.float32
        stacks = np.unique(self._particles.stack_of_particle[indices])
        return np.float16 if all(self._stack(int(stack)).is_float16 for stack in stacks) else np.float32

    def box_size_px(self, indices: NDArray[np.int64]) -> int:
        """The box of these images.

        Raises
        ------
        ValueError
            If there are several.
        """
        return self._one_box_size_px(self._particles.stack_of_particle[indices])

    def _read_into(self, images: NDArray[Any], indices: NDArray[np.int64]) -> None:
        stacks = self._particles.stack_of_particle[indices]
        sections = self._particles.image_in_stack[indices]
        order = np.lexsort((sections, stacks))
        for run in _runs(stacks[order], sections[order], order):
            self._read_run(int(stacks[run[0]]), int(sections[run[0]]), run, images)

    def _repair(self, images: NDArray[Any], indices: NDArray[np.int64]) -> None:
        if self._particles.image_repair is not None:
            self._particles.image_repair.apply(images, self._particles.group_of_particle[indices])

    def _one_box_size_px(self, stacks: NDArray[np.int32]) -> int:
        boxes = np.unique(self._box_size_of_stack[stacks] if len(stacks) else self._box_size_of_stack[:1])
        if len(boxes) != 1:
            raise ValueError(f"images of one box size are read at a time, not of {', '.join(map(str, boxes))} px")
        return int(boxes[0])

    def _read_run(self, stack: int, first: int, rows: NDArray[np.int64], images: NDArray[Any]) -> None:
        """Read consecutive images of one stack into the rows of `images` where they belong."""
        file = self._stack(stack)
        if first + len(rows) > file.n_images:
            raise InputError(
                f"{file.path} holds {file.n_images} images, but image {first + len(rows)} is needed: "
                "the stack was changed during the run."
            )
        is_in_place = bool(np.all(np.diff(rows) == 1))
        if is_in_place:
            file.read(first, images[rows[0] : rows[0] + len(rows)])
        else:
            scattered = np.empty((len(rows), *images.shape[1:]), images.dtype)
            file.read(first, scattered)
            images[rows] = scattered

    def _stack(self, stack: int) -> StackFile:
        """An open stack; the one that was not used for longest is closed."""
        if stack in self._open:
            self._open.move_to_end(stack)
            return self._open[stack]
        while len(self._open) >= MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        file = open_stack(self._particles.stack_paths[stack])
        box_size_px = int(self._box_size_of_stack[stack])
        if (file.n_rows, file.n_columns) != (box_size_px, box_size_px):
            file.close()
            raise InputError(
                f"{file.path} holds images of {file.n_columns} x {file.n_rows} pixels; expected "
                f"{box_size_px} x {box_size_px}: the stack was changed during the run."
            )
        stamps = self._particles.stack_stamps
        if stamps and file_stamp(file.path) != stamps[stack]:
            file.close()
            raise InputError(
                f"{file.path} was changed or replaced during the run, so the results would be of neither file: run the "
                "job again when the stack is complete."
            )
        self._open[stack] = file
        return file

    def _check_finite(self, images: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
        if images.size == 0 or (images.min() > -LARGEST_PIXEL and images.max() < LARGEST_PIXEL):  # false for NaN
            return
        usable = np.abs(images) < LARGEST_PIXEL
        bad = int(np.flatnonzero(~usable.all(axis=(1, 2)))[0])
        particle = int(indices[bad])
        n_pixels = int(np.count_nonzero(~usable[bad]))
        what = "NaN or infinite" if not np.isfinite(images[bad]).all() else f"beyond {LARGEST_PIXEL:g}"
        stack = self._particles.stack_paths[self._particles.stack_of_particle[particle]]
        raise InputError(
            f"Image {self._particles.image_in_stack[particle] + 1} of {stack} (particle {particle + 1}) has {n_pixels} "
            f"pixels that are {what}. Extract it again or take it out of the table."
        )


class ReaderPool:
    """Readers of the same particles, one for each thread that asks; a context manager, as they are."""

    def __init__(self, particles: Particles) -> None:
        self._particles = particles
        self._own = threading.local()
        self._all: list[ImageReader] = []

    def __enter__(self) -> "ReaderPool":
        """Return the pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all files; no thread may be reading any more."""
        while self._all:
            self._all.pop().close()

    def reader(self) -> ImageReader:
        """The reader of the thread that calls."""
        if not hasattr(self._own, "reader"):
            self._own.reader = ImageReader(self._particles)
            self._all.append(self._own.reader)
        reader: ImageReader = self._own.reader
        return reader


def _box_size_of_stack(particles: Particles) -> NDArray[np.int64]:
    """Box size of each stack, [stacks]; it is that of the optics group of its particles."""
    boxes = np.zeros(len(particles.stack_paths), np.int64)
    of_group = np.array([group.box_size_px for group in particles.optics_groups])
    boxes[particles.stack_of_particle] = of_group[particles.group_of_particle]
    return boxes


def _runs(stacks: NDArray[np.int32], sections: NDArray[np.int64], order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split `order` where the next image does not follow the one before it in the same stack."""
    breaks = np.flatnonzero((np.diff(stacks) != 0) | (np.diff(sections) != 1)) + 1
    return [run for run in np.split(order, breaks) if len(run)]
