"""The kernels of cuda/project.cu and cuda/transfer.cu on a GPU, through CuPy: against the oracle and the CPU engine."""

import numpy as np
import pytest
import torch

from gem_plugin.conventions import half_plane
from gem_plugin.dataset import fourier_batch
from gem_plugin.device_batches import DeviceBatches, host_tensor
from gem_plugin.device_likelihood import DeviceLikelihood
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.ops import cuda_project, project
from gem_plugin.particle_results import _compare
from gem_plugin.phantom import random_particles
from gem_plugin.prediction import Imaging, negative_log_likelihood, predicted_transforms, weights
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, FLOAT64_EXACT, assert_gradients_match, relative_error
from tests.unit.test_project import NAMES, Floats, Parameters, some_gaussians, views

pytestmark = pytest.mark.gpu
BOUNDS = [(torch.float64, FLOAT64_EXACT, FLOAT64_EXACT), (torch.float32, 2 * FLOAT32_FORWARD, 2 * FLOAT32_GRADIENT)]
MANY = 5e-5  # relative L2 error between two float engines, with pixels on the cutoff
GPU = torch.device("cuda:0")


def drawn(
    parameters: Parameters, rotations: Floats, n: int, engine: str, cutoff: float, precision: torch.dtype
) -> list[torch.Tensor]:
    """Images and the 11 gradients, on the CPU."""
    leaves = [tensor.detach().to(precision).requires_grad_() for tensor in parameters]
    images = project(*leaves, rotations, n, cutoff_sigmas=cutoff, engine=engine)
    gradient = torch.randn(images.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return [images.detach().cpu(), *torch.autograd.grad(images, leaves, gradient.to(images))]


@pytest.mark.parametrize(("precision", "forward", "backward"), BOUNDS)
@pytest.mark.parametrize(("n", "count", "n_views"), [(1, 9, 2), (3, 9, 3), (20, 40, 3), (21, 40, 3), (16, 301, 35)])
def test_kernels_agree_with_the_oracle(
    n: int, count: int, n_views: int, precision: torch.dtype, forward: float, backward: float
) -> None:
    parameters, rotations = some_gaussians(count, max(n, 8), seed=1, spread=0.9), views(n_views)
    expected = drawn(parameters, rotations, n, "reference", 6.0, torch.float64)
    found = drawn(parameters, rotations, n, "cuda", 6.0, precision)
    assert relative_error(found[0].double().numpy(), expected[0].numpy()) < forward
    for name, a, b in zip(NAMES, found[1:], expected[1:], strict=True):
        assert_gradients_match(a, b, backward, name)


def test_many_gaussians_agree_with_the_cpu_engine_and_repeat_bit_for_bit() -> None:
    """Patches of every size, and bands: the box of 400 pixels spreads the chunks."""
    parameters, rotations = some_gaussians(20000, 400, seed=4), views(20)
    found, again = (drawn(parameters, rotations, 400, "cuda", 4.0, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    on_cpu = drawn(parameters, rotations, 400, "cpu", 4.0, torch.float32)
    for a, b in zip(found, on_cpu, strict=True):  # as wholes: a few pixels lie on the cutoff to within rounding
        assert relative_error(a.double().numpy(), b.double().numpy()) < MANY


def test_a_patch_that_is_too_small_changes_no_image() -> None:
    centres, log_scales, quaternions, amplitudes = (
        tensor.detach().float().to(GPU) for tensor in some_gaussians(500, 60, seed=2)
    )
    axes = cuda_project.Axes(torch.eye(3, device=GPU).double().repeat(500, 1, 1), log_scales.double().exp())
    images = []
    for patch_px in (6144, 256):
        source = cuda_project.project_source("float", patch_px=patch_px)
        rotations = torch.tensor(views(3))
        scene = cuda_project.scene(centres, axes, amplitudes, rotations, 60, 4.0, source=source)
        images.append(cuda_project.draw(scene))
    assert torch.equal(*images)


def test_a_side_stream_is_waited_for() -> None:
    parameters = [tensor.detach().float().to(GPU) for tensor in some_gaussians(5000, 64, seed=6)]
    order = cuda_project.order_of(parameters[0], parameters[1])
    expected = project(*parameters, views(40), 64, engine="cuda", order=order)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = [project(*parameters, views(40), 64, engine="cuda", order=order) for _ in range(5)]
    stream.synchronize()
    assert all(torch.equal(one, expected) for one in found)


def test_nothing_to_draw() -> None:
    parameters = [tensor.detach().to(GPU) for tensor in some_gaussians(3, 8)]
    assert not project(*(tensor[:0] for tensor in parameters), views(2), 8, engine="cuda").any()
    assert project(*parameters, views(1)[:0], 8, engine="cuda").shape == (0, 8, 8)


def test_batches_likelihood_and_residuals_are_the_hosts() -> None:
    n, count = 64, 30
    plane, everyone = half_plane(n, 0.4 * n), np.arange(count)
    particles = random_particles(count, OpticsGroup("one", 1.5, n, 300.0, 2.7, 0.1), seed=1)
    images = np.random.default_rng(2).normal(size=(count, n, n)).astype(np.float32)
    imaging = Imaging(plane, (plane,), (np.full(len(plane.kx), 900, dtype=np.float32),), np.ones(1), (80,))
    host = fourier_batch(particles, images, everyone, plane)
    there = DeviceBatches(particles, (plane,), GPU).batch(host_tensor(images, GPU), everyone)
    for a, b in ((there.observed, host.observed), (there.ctf, host.ctf)):
        assert np.abs(a.cpu().numpy() - b).max() < 2e-6 * np.abs(b).max()
    whole = [tensor.detach().float() for tensor in some_gaussians(400, 60, seed=3, spread=0.5)]
    likelihood = DeviceLikelihood(imaging, "cuda")
    leaves = [[tensor.clone().requires_grad_() for tensor in whole] for _ in range(2)]
    found = likelihood.loss(tuple(leaves[0]), there)  # type: ignore[arg-type]
    predicted = predicted_transforms(tuple(leaves[1]), imaging.views(host), plane, 80, engine="cpu")  # type: ignore[arg-type]
    expected = negative_log_likelihood(predicted, host, weights(plane, imaging.noise_power[0]))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    found.backward()
    expected.backward()
    for a, b in zip(*leaves, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert relative_error(a.grad.numpy(), b.grad.numpy()) < MANY
    compared = likelihood.compare(tuple(whole), there, 40)  # type: ignore[arg-type]
    for a, b in zip(compared, _compare(tuple(whole), host, imaging, "cpu", 1, 40), strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
