"""Particle images that are asked for again and again: kept on the GPU, in memory or in a scratch file, if they fit."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.resources import available_memory_bytes

SHARE = 0.4  # of the memory that is free, on the GPU or the host

Images = NDArray[np.float16] | NDArray[np.float32] | torch.Tensor


class ImageCache:
    """Reads images of some particles, each once from its stack.

    One optics group's images are of one box and kept together, as float16 where they are stored so.

    Parameters
    ----------
    indices : the particles that will be asked for
    reader : of their images; open as long as the cache is used
    device : a GPU, on which images are kept if there is room, or the CPU
    scratch : a folder on a fast disk for images that fit into no memory; None: they are read again
    tell : is told, once, where images are kept
    """

    def __init__(
        self,
        particles: Particles,
        indices: NDArray[np.int64],
        reader: ImageReader,
        device: torch.device,
        scratch: Path | None,
        tell: Callable[[str], None],
    ) -> None:
        self._particles, self._reader, self._device = particles, reader, device
        self._kept: dict[int, _Kept] = {}  # of each optics group
        groups = particles.group_of_particle[indices]
        bytes_of = {
            int(group): int(np.count_nonzero(groups == group)) * self._bytes_of_one(indices[groups == group])
            for group in np.unique(groups)
        }
        make = self._choose(sum(bytes_of.values()), scratch, tell)
        for group in bytes_of if make is not None else ():
            own = np.sort(indices[groups == group])
            self._kept[group] = _Kept(own, make(self._shape(own), reader.stored_type(own)))
        if isinstance(make, _Slices):
            make.close()

    def read(self, part: NDArray[np.int64]) -> Images:
        """Images of particles of one optics group, [m, n, n], on the GPU if they are kept there.

        Raises
        ------
        InputError
            As `ImageReader.read` does.
        """
        kept = self._kept.get(int(self._particles.group_of_particle[part[0]]))
        if kept is None:
            return self._reader.read(part)
        slots = np.searchsorted(kept.indices, part)
        missing = ~kept.is_there[slots]
        if missing.any():
            kept.put(slots[missing], self._reader.read(part[missing]))
        return kept.get(slots)

    def _choose(self, n_bytes: int, scratch: Path | None, tell: Callable[[str], None]) -> Any:
        size = f"{n_bytes / 1e9:.1f} GB of particle images are"
        if self._device.type == "cuda" and n_bytes < SHARE * torch.cuda.mem_get_info(self._device)[0]:
            tell(f"{size} kept on the GPU")
            return self._on_device
        if n_bytes < SHARE * (available_memory_bytes() or 0):
            tell(f"{size} kept in memory")
            return np.empty
        if scratch is not None:
            file = _scratch_file(scratch, n_bytes)
            tell(f"{size} kept in {scratch}")
            return _Slices(file)
        tell(f"{size} read again in every epoch: they do not fit into memory, and no --scratch folder was given")
        return None

    def _on_device(self, shape: tuple[int, ...], kind: type) -> torch.Tensor:
        dtype = torch.float16 if kind is np.float16 else torch.float32
        return torch.empty(shape, dtype=dtype, device=self._device)

    def _bytes_of_one(self, own: NDArray[np.int64]) -> int:
        return int(np.prod(self._shape(own)[1:])) * np.dtype(self._reader.stored_type(own)).itemsize

    def _shape(self, own: NDArray[np.int64]) -> tuple[int, int, int]:
        box = self._reader.box_size_px(own)
        return len(own), box, box


class _Kept:
    """Images of one optics group, as far as they were read."""

    def __init__(self, indices: NDArray[np.int64], images: Any) -> None:
        self.indices = indices  # sorted
        self.images = images
        self.is_there = np.zeros(len(indices), dtype=bool)

    def get(self, slots: NDArray[np.int64]) -> Images:
        place = torch.from_numpy(slots) if isinstance(self.images, torch.Tensor) else slots
        images: Images = self.images[place]
        return images

    def put(self, slots: NDArray[np.int64], images: NDArray[np.float32]) -> None:
        if isinstance(self.images, torch.Tensor):
            self.images[torch.from_numpy(slots)] = torch.from_numpy(images).to(self.images)
        else:
            self.images[slots] = images
        self.is_there[slots] = True


class _Slices:
    """Makes arrays in one file after the other."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._offset = 0

    def __call__(self, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
        array: NDArray[Any] = np.memmap(self._file, dtype=kind, mode="r+", offset=self._offset, shape=shape)
        self._offset += array.nbytes
        return array

    def close(self) -> None:
        """Close the file; its arrays stay."""
        self._file.close()


def _scratch_file(folder: Path, n_bytes: int) -> Any:
    """A file of that size, with its room on the disk taken, that goes when the process goes, however it ends.

    Raises
    ------
    InputError
        If there is no such folder, or no room in it.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder, prefix="gem-external-")  # noqa: SIM115  `_Slices` closes it
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError:
            file.close()
            raise
    except OSError as error:
        raise InputError(
            f"{n_bytes / 1e9:.1f} GB of particle images cannot be kept in {folder} ({error.strerror or error}): give"
            " --scratch a folder that you may write to, on a disk with room, or none"
        ) from error
    return file
