"""A pass over particles that goes on with fewer at once where a GPU has no room."""

import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gem_plugin import accumulation
from gem_plugin.accumulation import Pass, accumulate
from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import half_plane
from gem_plugin.dataset import FourierBatch
from gem_plugin.errors import GpuMemoryError, JobAborted
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.normal_equations import Accumulator
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.run import Run
from gem_plugin.symmetry import NO_SYMMETRY
from tests.helpers import relative_error

N, COUNT = 16, 40
PLANE = half_plane(N, N / 2 - 0.5)
OPTICS = OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1)


class Small(Accumulator):
    """One that has no room for many particles, and finds out when it has half of them."""

    at_most = COUNT
    error: type[Exception] = torch.OutOfMemoryError

    def add(self, batch: FourierBatch) -> None:  # type: ignore[override]
        super().add(batch)
        if len(batch.indices) > self.at_most:
            raise self.error("GPU 0 is out of memory: 0.1 of 80 GB are free")


@pytest.fixture
def particles(monkeypatch: pytest.MonkeyPatch) -> Particles:
    found = random_particles(COUNT, OPTICS, seed=1)
    images = simulate_images(make_phantom(N), found, snr=1.0, seed=2).images

    class Reader:
        def __init__(self, _: Particles) -> None: ...

        def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
            return images[indices]

        def close(self) -> None: ...

    monkeypatch.setattr("gem_plugin.io.images.ImageReader", Reader)
    monkeypatch.setattr(accumulation, "Accumulator", Small)
    monkeypatch.setattr(accumulation, "POINTS_PER_BATCH", 20 * len(PLANE.kx))
    return found


def test_a_pass_that_is_broken_off_leaves_no_thread(particles: Particles) -> None:
    """At once, and not when the error is forgotten: the readers are closed right after it."""
    before = set(threading.enumerate())
    run = Run(ReconstructionConfig(), "cpu", 1, PLANE, N, 6.0, NO_SYMMETRY, SilentMonitor())
    at_work: set[threading.Thread] = set()

    def break_off(done: int) -> None:
        at_work.update(threading.enumerate())
        raise JobAborted("enough")

    noise = (np.ones(len(PLANE.kx), dtype=np.float32),)
    with ReaderPool(particles) as readers, pytest.raises(JobAborted) as held:
        accumulate(particles, readers, np.arange(COUNT), (PLANE,), noise, run, break_off)
    assert at_work > before
    assert set(threading.enumerate()) == before
    assert held.value.__traceback__ is not None


def passed(particles: Particles) -> tuple[Pass, list[str], list[int]]:
    monitor, progress = SilentMonitor(), []
    run = Run(ReconstructionConfig(), "cpu", 1, PLANE, N, 6.0, NO_SYMMETRY, monitor)
    noise = (np.ones(len(PLANE.kx), dtype=np.float32),)
    with ReaderPool(particles) as readers:
        found = accumulate(particles, readers, np.arange(COUNT), (PLANE,), noise, run, progress.append)
    return found, monitor.notes, progress


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, GpuMemoryError])
def test_a_refusal_halves_the_batch_and_counts_nothing_twice(
    particles: Particles, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    expected, notes, progress = passed(particles)
    assert not notes
    assert progress == [20, 40]
    monkeypatch.setattr(Small, "error", error)
    monkeypatch.setattr(Small, "at_most", 12)
    found, notes, progress = passed(particles)
    assert notes == ["GPU 0 is out of memory: reading these particles again, 10 at a time"]
    assert progress == [10, 20, 30, 40]
    assert relative_error(found.equations.right_side, expected.equations.right_side) < 1e-5
    assert relative_error(found.equations.spectrum, expected.equations.spectrum) < 1e-5
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.digests, expected.digests)


def test_no_room_for_a_few_is_an_error(particles: Particles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "at_most", 3)
    monkeypatch.setattr(Small, "error", GpuMemoryError)
    with pytest.raises(GpuMemoryError, match="out of memory"):
        passed(particles)
