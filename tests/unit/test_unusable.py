"""What is no number is caught with the particle's name, by either engine, before anything is made of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import half_plane
from gem_plugin.errors import InputError
from gem_plugin.half_data import read_quarters
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.run import Run
from gem_plugin.symmetry import NO_SYMMETRY

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as in a run
N, COUNT = 16, 40
PLANE = half_plane(N, N / 2 - 0.5)
OPTICS = OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1)


@pytest.fixture
def particles(monkeypatch: pytest.MonkeyPatch) -> Particles:
    found = random_particles(COUNT, OPTICS, seed=1)
    images = simulate_images(make_phantom(N), found, snr=1.0, seed=2).images

    class Reader:
        def __init__(self, _: Particles) -> None: ...

        def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
            return images[indices]

        def read_unchecked(self, out: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
            out[:] = images[indices]

        def stored_type(self, indices: NDArray[np.int64]) -> type[np.float32]:
            return np.float32

        def box_size_px(self, indices: NDArray[np.int64]) -> int:
            return N

        def close(self) -> None: ...

    monkeypatch.setattr("gem_plugin.io.images.ImageReader", Reader)
    return found


def read(particles: Particles, engine: str = "cpu") -> Any:
    run = Run(ReconstructionConfig(), engine, 1, PLANE, N, N / 2 - 1, NO_SYMMETRY, SilentMonitor())
    return read_quarters(particles, 1, run, "Half 1", *np.random.SeedSequence(1).spawn(2))


def spoilt(particles: Particles, field: str, row: int, value: float) -> Particles:
    values = getattr(particles, field).copy()
    values[row] = value
    return dataclasses.replace(particles, **{field: values})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("defocus_angle_deg", np.inf, "the transfer function of particle"),
        ("ctf_scale", np.nan, "the transfer function of particle"),
        ("ctf_bfactor_in_angstroms2", -1e9, "the transfer function of particle"),
        ("shifts_in_angstroms", np.inf, "the image, centred and corrected, of particle"),
    ],
)
@pytest.mark.parametrize("row_of_half", [3, 12])
def test_the_culprit_is_named(particles: Particles, field: str, value: float, words: str, row_of_half: int) -> None:
    row = int(np.flatnonzero(particles.half_set == 1)[row_of_half])
    with pytest.raises(InputError, match=rf"{words} {row + 1}\b.*has values that are no numbers"):
        read(spoilt(particles, field, row, value))


def test_it_is_named_by_the_engine_of_a_gpu_too(particles: Particles, emulated_gpu: object) -> None:
    row = int(np.flatnonzero(particles.half_set == 1)[5])
    with pytest.raises(InputError, match=rf"the transfer function of particle {row + 1}\b"):
        read(spoilt(particles, "ctf_scale", row, np.nan), "cuda")


def test_particles_of_numbers_pass(particles: Particles) -> None:
    other = int(np.flatnonzero(particles.half_set == 2)[0])
    sums = read(spoilt(particles, "ctf_scale", other, np.nan))  # which is not of this half
    assert all(np.isfinite(one.right_side).all() for part in sums.of_kinds for one in part)
