"""One pass over some particles: the arrays b and T of their images, where the engine works."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin import dataset
from gem_plugin.conventions import HalfPlane
from gem_plugin.dataset import FourierBatch
from gem_plugin.device_batches import DeviceBatch
from gem_plugin.device_stream import batch_size_for, stream_to_device
from gem_plugin.errors import GpuMemoryError
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.normal_equations import Accumulator, NormalEquations
from gem_plugin.ops import engines
from gem_plugin.run import Run

POINTS_PER_BATCH = 4_000_000  # of the slices of the particles that are in the CPU engine's memory at once
FEWEST_AT_ONCE = 8  # particles: a GPU that has no room for so few has none for the run


@dataclass(frozen=True)
class Pass:
    """What a pass leaves."""

    equations: NormalEquations
    rows: NDArray[np.int64]  # of the particle table, in the order in which they were read
    digests: NDArray[np.uint64]  # of their images


def accumulate(
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
    noise_power: Sequence[NDArray[np.float32]],
    run: Run,
    on_progress: Callable[[int], None],
) -> Pass:
    """Read particles in their order on disk and sum them up; where a GPU has no room, again with half as many at once.

    Parameters
    ----------
    planes, noise_power : of each optics group's images
    on_progress : told how many are done

    Raises
    ------
    InputError
        If an image cannot be used.
    GpuMemoryError
        If a GPU has no room for a few particles.
    """
    at_once = _particles_at_once(planes, run)
    while True:
        try:
            return _accumulate(particles, readers, indices, planes, noise_power, run, on_progress, at_once)
        except (GpuMemoryError, torch.OutOfMemoryError) as error:
            at_once //= 2
            if at_once < FEWEST_AT_ONCE:
                raise
            refusal = str(error).split(":")[0]
        # not within the handler, whose traceback keeps what was allocated
        torch.cuda.empty_cache()
        run.monitor.note(f"{refusal}: reading these particles again, {at_once} at a time")


def _accumulate(
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
    noise_power: Sequence[NDArray[np.float32]],
    run: Run,
    on_progress: Callable[[int], None],
    at_once: int,
) -> Pass:
    accumulator = Accumulator(run.plane, noise_power, run.n_threads, run.render_box_px, engine=run.engine)
    rows, digests = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.uint64)]
    done = 0
    # closed at once, whatever ends the loop: the readers of the threads that read ahead are closed soon
    with contextlib.closing(_batches(particles, readers, indices, planes, run, at_once)) as batches:
        for batch in batches:
            accumulator.add(batch)
            rows.append(batch.indices)
            digests.append(batch.digests)
            done += len(batch.indices)
            on_progress(done)
    return Pass(accumulator.finish(), np.concatenate(rows), np.concatenate(digests))


def _particles_at_once(planes: Sequence[HalfPlane], run: Run) -> int:
    if engines.uses_cuda_kernels(run.engine):
        return batch_size_for(planes, engines.device_of(run.engine))
    return max(POINTS_PER_BATCH // max(len(plane.kx) for plane in planes), 1)


def _batches(
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
    run: Run,
    at_once: int,
) -> Generator[FourierBatch | DeviceBatch, None, None]:
    if engines.uses_cuda_kernels(run.engine):
        device = engines.device_of(run.engine)
        yield from stream_to_device(particles, readers, indices, planes, at_once, device, run.n_threads)
    else:
        yield from dataset.stream(particles, readers.reader(), indices, planes, at_once)
