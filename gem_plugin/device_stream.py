"""Particle images from disk to a GPU: read by several threads, sent while the GPU computes, transformed there."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.dataset import batches, by_group, read_ahead, read_order
from gem_plugin.device_batches import DeviceBatch, DeviceBatches
from gem_plugin.io.images import LARGEST_PIXEL, ImageReader, ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.ops.cuda_spread import particles_per_call

MOST_READERS = 8
READ_AHEAD_BYTES = 2e9  # of the host's memory
DEVICE_SHARE = 0.2  # of a GPU's free memory, for the points of a batch: its images and the next one's need some, too
EMULATED_BYTES = 2**28  # where the device is the host


def stream_to_device(
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
    batch_size: int,
    device: torch.device,
    n_threads: int,
) -> Iterator[DeviceBatch]:
    """Yield the particles `indices` batch by batch: as `gem_plugin.dataset.stream` does, on a device.

    Batches to come are read by threads, and the next one is sent, while a batch is used.

    Parameters
    ----------
    n_threads : of the run; some of them read, of which each holds a batch

    Raises
    ------
    InputError
        If an image cannot be read or has a pixel that is no number; that may be said a batch late.
    """
    makes, sends = DeviceBatches(particles, planes, device), _Sender(device)
    parts = by_group(particles, read_order(particles, indices)) if len(indices) else []
    chunks = [chunk for part in parts for chunk in batches(part, batch_size)]

    def load(chunk: NDArray[np.int64]) -> tuple[NDArray[np.int64], torch.Tensor]:
        return chunk, _read_for_device(readers.reader(), chunk, device)

    box = max(plane.box_size_px for plane in planes)
    n_readers = reading_threads(n_threads, 4.0 * box**2 * batch_size)
    unchecked: deque[tuple[NDArray[np.int64], torch.Tensor]] = deque()
    for chunk, pixels in sends.ahead(read_ahead(load, chunks, n_readers)):
        batch = makes.batch(pixels, chunk)
        unchecked.append((chunk, pixels.abs().amax()))
        yield batch
        while len(unchecked) > 1:  # what the device may still be at is not waited for
            _refuse_unusable(*unchecked.popleft(), readers)
    while unchecked:
        _refuse_unusable(*unchecked.popleft(), readers)


def reading_threads(n_threads: int, batch_bytes: float) -> int:
    """How many of a run's threads read ahead: more only compete for the disk, and each holds a batch of images."""
    return max(min(n_threads, MOST_READERS, int(READ_AHEAD_BYTES / batch_bytes)), 1)


def batch_size_for(planes: Sequence[HalfPlane], device: torch.device) -> int:
    """Particles that are spread at a time: many, because a call costs a pass over the grids, and as many as fit."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else EMULATED_BYTES
    return particles_per_call(max(len(plane.kx) for plane in planes), int(DEVICE_SHARE * free))


def _read_for_device(reader: ImageReader, chunk: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """Pixels as they are stored where that is float16, else float32; in memory that a GPU can fetch from."""
    box = reader.box_size_px(chunk)
    kind = torch.float16 if reader.stored_type(chunk) is np.float16 else torch.float32
    pixels = torch.empty((len(chunk), box, box), dtype=kind, pin_memory=device.type == "cuda")
    reader.read_unchecked(pixels.numpy(), chunk)
    return pixels


def _refuse_unusable(chunk: NDArray[np.int64], largest: torch.Tensor, readers: ReaderPool) -> None:
    """Raise what reading says of images with a pixel that is no number."""
    if not float(largest) < LARGEST_PIXEL:
        readers.reader().read(chunk)


class _Sender:
    """Sends pixels to a device while it computes: on a GPU, in a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def ahead(
        self, items: Iterator[tuple[NDArray[np.int64], torch.Tensor]]
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Each item with its pixels on the device; the next one's are on their way by then."""
        waiting: deque[tuple[NDArray[np.int64], torch.Tensor, Any]] = deque()
        for chunk, pixels in items:
            waiting.append((chunk, *self._send(pixels)))
            if len(waiting) > 1:
                yield self._arrived(*waiting.popleft())
        while waiting:
            yield self._arrived(*waiting.popleft())

    def _send(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if self._stream is None:
            return pixels.to(self._device), None
        with torch.cuda.stream(self._stream):
            return pixels.to(self._device, non_blocking=True), self._stream.record_event()

    def _arrived(
        self, chunk: NDArray[np.int64], pixels: torch.Tensor, event: Any
    ) -> tuple[NDArray[np.int64], torch.Tensor]:
        if event is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_event(event)
            pixels.record_stream(now)  # so that its memory is not given away before this stream is done with it
        return chunk, pixels
