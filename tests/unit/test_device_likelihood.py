"""Gaussians, projections, transforms, CTFs, likelihood and gradients on the device: all of it beside the host's."""

import dataclasses

import numpy as np
import pytest
import torch

from gem_plugin.conventions import half_plane
from gem_plugin.dataset import fourier_batch
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.device_likelihood import PROJECTIONS_PER_ORDER, DeviceLikelihood
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.image_term import ImageTerm
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.monitor import SilentMonitor
from gem_plugin.particle_results import _compare, particle_results
from gem_plugin.phantom import random_particles
from gem_plugin.prediction import Imaging
from gem_plugin.symmetry import point_group
from tests.cuda_shim.emulator import EmulatedGpu
from tests.helpers import FLOAT32_GRADIENT, assert_gradients_match

pytestmark = pytest.mark.usefixtures("emulated_gpu")

COUNT = 8
FIRST = OpticsGroup("one", 1.0, 48, 300.0, 2.7, 0.1)
SECOND = dataclasses.replace(FIRST, pixel_size_in_angstroms=2.5, box_size_px=20, ctf_state="premultiplied")
PARTICLES = dataclasses.replace(
    random_particles(COUNT, FIRST, seed=1),
    optics_groups=(FIRST, SECOND),
    group_of_particle=np.array([0, 1] * (COUNT // 2), dtype=np.int32),
    shifts_in_angstroms=np.random.default_rng(2).uniform(-9, 9, (COUNT, 2)),
)
PLANES = (half_plane(48, 20), half_plane(20, 8, 48 / 50))
IMAGING = Imaging(
    half_plane(48, 20),
    PLANES,
    tuple(np.random.default_rng(3).uniform(300, 600, len(plane.kx)).astype(np.float32) for plane in PLANES),
    np.array([1.0, 1.4]),
    (60, 50),
)
IMAGES = {n: np.random.default_rng(n).normal(size=(COUNT, n, n)).astype(np.float32) for n in (48, 20)}


class Reader:
    def __init__(self, particles: object = None) -> None:
        pass

    def read(self, indices: np.ndarray) -> np.ndarray:
        return IMAGES[PARTICLES.optics_groups[PARTICLES.group_of_particle[indices[0]]].box_size_px][indices]

    def box_size_px(self, indices: np.ndarray) -> int:
        return len(self.read(indices)[0])

    def stored_type(self, indices: np.ndarray) -> type:
        return np.float32

    def read_unchecked(self, images: np.ndarray, indices: np.ndarray) -> None:
        images[:] = self.read(indices)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def unit(n: int = 40) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(5)
    return tuple(
        torch.tensor(values, dtype=torch.float32, requires_grad=True)
        for values in (
            random.uniform(-9, 9, (n, 3)),
            np.log(1.3) + random.uniform(-0.2, 0.2, (n, 3)),
            random.normal(size=(n, 4)),
            random.uniform(0.5, 1.5, n),
        )
    )


def term(engine: str, symmetry: str = "C1") -> ImageTerm:
    generator, everyone = np.random.default_rng(0), np.arange(COUNT)
    return ImageTerm(
        PARTICLES, everyone, IMAGING, engine=engine, generator=generator, group=point_group(symmetry),
        particles_per_step=5,
    )  # fmt: skip


@pytest.mark.parametrize("symmetry", ["C1", "C2"])
def test_losses_and_gradients_are_the_hosts(symmetry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gem_plugin.image_term.ImageReader", Reader)
    theirs, ours = unit(), unit()
    with term("cpu", symmetry) as host, term("cuda", symmetry) as device:
        for _ in range(3):
            assert device.backward(ours, 0, 1) == pytest.approx(host.backward(theirs, 0, 1), rel=1e-5)
        # images of noise: the scale is next to nothing, a small difference of two losses
        assert device.best_scale(ours) == pytest.approx(host.best_scale(theirs), rel=1e-4, abs=2e-6)
    for name, a, b in zip(("centres", "log-scales", "quaternions", "amplitudes"), ours, theirs, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert_gradients_match(a.grad, b.grad, 4 * FLOAT32_GRADIENT, name)


@pytest.mark.parametrize("group", [0, 1])
def test_scales_and_residuals_are_the_hosts(group: int, emulated_gpu: EmulatedGpu) -> None:
    part = np.flatnonzero(PARTICLES.group_of_particle == group)
    images, whole = Reader().read(part), tuple(tensor.detach() for tensor in unit())
    batch = fourier_batch(PARTICLES, images, part, PLANES[group])
    expected = _compare(whole, batch, IMAGING, "cpu", 1, 22)
    makes = DeviceBatches(PARTICLES, PLANES, torch.device("cpu"))
    results = []
    for emulated_gpu.reversed_order in (False, True):
        results.append(DeviceLikelihood(IMAGING, "cuda").compare(whole, makes.batch(images, part), 22))
        for found, wanted in zip(results[-1], expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert (expected[1] > 0).any(axis=0).sum() > 5  # shells: there is something to compare


def test_all_particles_results_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, compared and summed by groups of particles: the same numbers whatever the engine."""
    monkeypatch.setattr("gem_plugin.io.images.ImageReader", Reader)
    gaussians = Gaussians(*(tensor.detach().numpy() for tensor in unit()))
    host, device = (
        particle_results(
            gaussians, PARTICLES, np.arange(COUNT), IMAGING, engine=engine, n_threads=1, monitor=SilentMonitor()
        )
        for engine in ("cpu", "cuda")
    )
    for name in ("scale", "normalised_residual", "group_residual", "shell_residual"):
        np.testing.assert_allclose(getattr(device, name), getattr(host, name), rtol=1e-5, atol=1e-6)


def test_an_empty_projection_has_scale_zero() -> None:
    whole = tuple(tensor.detach() for tensor in unit())
    whole[0][:] += 1e4
    part = np.flatnonzero(PARTICLES.group_of_particle == 0)
    batch = DeviceBatches(PARTICLES, PLANES, torch.device("cpu")).batch(Reader().read(part), part)
    fitted, left = DeviceLikelihood(IMAGING, "cuda").compare(whole, batch, 22)
    assert not fitted.any()
    assert (left.sum(axis=1) > 0).all()


def test_the_order_is_kept_and_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def counted(centres: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        found.append(len(centres))
        return torch.arange(len(centres))

    monkeypatch.setattr("gem_plugin.device_likelihood.order_of", counted)
    part = np.flatnonzero(PARTICLES.group_of_particle == 0)[:1]
    batch = DeviceBatches(PARTICLES, PLANES, torch.device("cpu")).batch(Reader().read(part), part)
    likelihood = DeviceLikelihood(IMAGING, "cuda")
    for n in (3, 3, 2, 2):
        likelihood.loss(unit(n), batch)
    assert found == [3, 2]
    for _ in range(PROJECTIONS_PER_ORDER - 3):
        likelihood.loss(unit(2), batch)
    assert found == [3, 2, 2]
