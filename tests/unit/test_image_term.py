"""The data term of single images: with all particles in one step it is the collapsed term, by another way."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gem_plugin import conventions
from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.dataset import fourier_batch
from gem_plugin.image_term import ImageTerm
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.normal_equations import Accumulator
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.prediction import Imaging
from gem_plugin.symmetry import NO_SYMMETRY, PointGroup, point_group

N, COUNT = 24, 30
PLANE = conventions.half_plane(N, 0.35 * N)
NOISE = np.full(len(PLANE.kx), 500, dtype=np.float32)
PARTICLES = random_particles(COUNT, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
MakeTerm = Callable[..., ImageTerm]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return simulate_images(make_phantom(N, 1), PARTICLES, snr=0.5, seed=2).images


@pytest.fixture
def make_term(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> MakeTerm:
    class Reader:
        def __init__(self, particles: object) -> None:
            self.is_open = True

        def read(self, indices: np.ndarray) -> np.ndarray:
            assert self.is_open
            return images[indices]

        def box_size_px(self, indices: np.ndarray) -> int:
            return N

        def stored_type(self, indices: np.ndarray) -> type:
            return np.float32

        def close(self) -> None:
            self.is_open = False

    monkeypatch.setattr("gem_plugin.image_term.ImageReader", Reader)

    def make(particles_per_step: int, group: PointGroup = NO_SYMMETRY) -> ImageTerm:
        return ImageTerm(
            PARTICLES,
            np.arange(COUNT),
            Imaging(PLANE, (PLANE,), (NOISE,), np.ones(1), (N,)),
            engine="cpu",
            generator=np.random.default_rng(0),
            group=group,
            particles_per_step=particles_per_step,
        )

    return make


def unit() -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(5)
    return tuple(
        torch.tensor(values, dtype=torch.float32, requires_grad=True)
        for values in (
            random.uniform(-4, 4, (12, 3)),
            np.log(1.3) + random.uniform(-0.1, 0.1, (12, 3)),
            random.normal(size=(12, 4)),
            random.uniform(0.5, 1.5, 12),
        )
    )


@pytest.mark.parametrize("name", ["C1", "C3"])
def test_all_particles_at_once_are_the_collapsed_term(images: np.ndarray, make_term: MakeTerm, name: str) -> None:
    group = point_group(name)
    accumulator = Accumulator(PLANE, NOISE, 1)
    accumulator.add(fourier_batch(PARTICLES, images, np.arange(COUNT), PLANE))
    collapsed = CollapsedTerm(accumulator.finish(), engine="cpu", n_threads=1, group=group)
    theirs, ours = unit(), unit()
    expected = collapsed.backward(theirs, 99, 100)
    with make_term(COUNT, group) as term:
        assert abs(term.backward(ours, 99, 100) / expected - 1) < 2e-3
        assert abs(term.best_scale(ours) / collapsed.best_scale(theirs) - 1) < 5e-3
    for a, b in zip(ours, theirs, strict=True):
        assert float((a.grad - b.grad).norm() / b.grad.norm()) < 0.03


def test_the_best_scale_is_the_least_loss(make_term: MakeTerm) -> None:
    with make_term(COUNT) as term, torch.no_grad():
        start = unit()
        best = term.best_scale(start)
        batch = term._minibatch()
        losses = [float(term._loss((*start[:3], f * best * start[3]), batch)) for f in (0.9, 1.0, 1.1)]
    assert losses[1] < min(losses[0], losses[2])


def test_each_particle_is_drawn_once_an_epoch_and_scaled_to_the_half(make_term: MakeTerm) -> None:
    with make_term(10) as term:
        epoch = [term._minibatch()[0].indices for _ in range(3)]
        following = [term._minibatch()[0].indices for _ in range(3)]
    assert sorted(np.concatenate(epoch)) == list(range(COUNT))
    assert sorted(np.concatenate(following)) == list(range(COUNT))
    assert not np.array_equal(epoch[0], following[0])
    with make_term(10) as parts, make_term(COUNT) as whole:
        mean = np.mean([parts.backward(unit(), 0, 1) for _ in range(3)])
        assert abs(mean / whole.backward(unit(), 0, 1) - 1) < 1e-4
