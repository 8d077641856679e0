"""The kernels of cuda/project.cu, run thread after thread: against the oracle, the CPU engine and themselves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gem_plugin.ops import cuda_project, project
from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.moments import axes_of
from gem_plugin.ops.project import _parameter_gradients
from gem_plugin.ops.spatial_order import spatial_order
from tests.cuda_shim.emulator import EmulatedGpu
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, FLOAT64_EXACT, assert_gradients_match, relative_error
from tests.unit.test_project import NAMES, Floats, Parameters, some_gaussians, views, weights, with_gradients

pytestmark = pytest.mark.usefixtures("emulated_gpu")

SCALED = np.diag([1.25, 1.25, 1.25]) @ views(3, seed=2) * 0.8


def thin(widths: tuple[float, float, float]) -> Parameters:
    parameters = some_gaussians(30, 32, seed=3, spread=0.3)
    with torch.no_grad():
        parameters[1].copy_(torch.log(torch.tensor(widths, dtype=torch.float64)).expand(30, 3))
    return parameters


def single(parameters: Parameters) -> Parameters:
    return tuple(tensor.detach().float().requires_grad_() for tensor in parameters)


def of_both_signs() -> Parameters:
    parameters = some_gaussians(150, 20, seed=13)
    with torch.no_grad():
        parameters[3][::3] *= -1
    return parameters


CASES: dict[str, tuple[Callable[[], Parameters], Floats, int, float]] = {
    "even box": (lambda: some_gaussians(40, 20, seed=1), views(3), 20, 6.0),
    "odd box": (lambda: some_gaussians(40, 21, seed=1), views(3), 21, 6.0),
    "near cutoff": (lambda: some_gaussians(40, 20, seed=1), views(3), 20, 3.5),
    "over the edge": (lambda: some_gaussians(80, 20, seed=4, spread=1.6, scale=1.6), views(3), 20, 6.0),
    "needles": (lambda: thin((0.5, 0.5, 5.0)), views(4), 32, 6.0),
    "plates": (lambda: thin((0.5, 4.0, 4.0)), views(4), 32, 6.0),
    "wide": (lambda: some_gaussians(6, 40, seed=6, scale=7.0), views(2), 40, 6.0),
    "small box": (lambda: some_gaussians(4, 5, seed=7), views(2), 5, 6.0),
    "one": (lambda: some_gaussians(1, 16, seed=8, spread=0.3), views(1), 16, 6.0),
    "both signs, two chunks": (of_both_signs, views(2), 20, 6.0),
    "chunks and groups of images": (lambda: some_gaussians(301, 12, seed=9, spread=1.0), views(35), 12, 5.0),
    "views that scale and shear": (lambda: some_gaussians(40, 20, seed=1), SCALED, 20, 6.0),
}


def by_kernels(
    parameters: Parameters, rotations: Floats, n: int, cutoff: float, source: KernelSource, gradient: torch.Tensor
) -> tuple[torch.Tensor, Parameters]:
    """Images and the 11 gradients with some variant of the kernels, without rounding on the way."""
    centres, log_scales, quaternions, amplitudes = (tensor.detach() for tensor in parameters)
    axes = axes_of(log_scales, quaternions)
    scene = cuda_project.scene(centres, axes, amplitudes, torch.tensor(rotations), n, cutoff, source=source)
    scene = replace(scene, images_per_block=16)
    sums = cuda_project.gather(scene, gradient)
    return cuda_project.draw(scene), _parameter_gradients(sums, log_scales, quaternions, axes)


def assert_agrees(
    found: tuple[torch.Tensor, Parameters], expected: tuple[torch.Tensor, Parameters], forward: float, backward: float
) -> None:
    assert float((found[0] - expected[0]).norm() / expected[0].norm()) < forward
    for name, a, b in zip(NAMES, found[1], expected[1], strict=True):
        if len(b) > 1:
            assert_gradients_match(a, b, backward, name)
        else:
            assert float((a - b).norm() / b.norm()) < backward, name


@pytest.mark.parametrize("case", CASES)
def test_kernels_agree_with_the_oracle(case: str) -> None:
    """In float, and in double through the engine, which takes the precision of the parameters."""
    make, rotations, n, cutoff = CASES[case]
    parameters = make()
    expected = with_gradients(parameters, rotations, n, "reference", cutoff)
    found = by_kernels(parameters, rotations, n, cutoff, cuda_project.FLOAT, weights(len(rotations), n))
    assert_agrees(found, expected, FLOAT32_FORWARD, FLOAT32_GRADIENT)
    found = with_gradients(parameters, rotations, n, "cuda", cutoff)
    assert_agrees(found, expected, FLOAT64_EXACT, FLOAT64_EXACT)


def test_engine_agrees_with_the_cpu_engine_in_single_precision() -> None:
    parameters = single(some_gaussians(200, 24, seed=20))
    results = []
    for engine in ("cuda", "cpu"):
        images = project(*parameters, views(3), 24, engine=engine)
        results.append((images.detach(), torch.autograd.grad(images, parameters, weights(3, 24).float())))
    assert results[0][0].dtype == torch.float32
    assert_agrees(results[0], results[1], 2 * FLOAT32_FORWARD, 2 * FLOAT32_GRADIENT)


def test_each_pixel_is_within_the_stated_bound() -> None:
    """Also where a chunk holds peaks of very different height: an error counts in units of its highest."""
    parameters = [tensor.detach() for tensor in some_gaussians(40, 16, seed=21)]
    parameters[3] *= torch.tensor(10.0) ** torch.linspace(-4, 4, 40)
    widths = parameters[1].exp()
    highest = float((parameters[3] / (2 * np.pi * widths.sort(1).values[:, :2].prod(1))).max())
    expected = project(*parameters, views(2), 16, engine="reference", cutoff_sigmas=6.0)
    found, _ = by_kernels(tuple(parameters), views(2), 16, 6.0, cuda_project.FLOAT, weights(2, 16))
    errors = (found - expected).abs()
    assert bool((errors < 40 * 2**-22 * highest + 1e-6 * expected).all())


def test_sums_do_not_overflow() -> None:
    """All peaks of full chunks on one pixel; together, they are over what 32 bits hold."""
    n = 1100
    parameters = [torch.zeros(n, 3), torch.zeros(n, 3), torch.zeros(n, 4), torch.full((n,), 7.0)]
    parameters[2][:, 0] = 1
    found = project(*parameters, np.eye(3)[None], 8, engine="cuda", cutoff_sigmas=3.9)[0].double()
    axis = torch.arange(8).double() - 4
    squares = axis[:, None] ** 2 + axis**2
    expected = torch.where(squares < 3.9**2, n * 7 / (2 * np.pi) * torch.exp(-squares / 2), 0.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2**-22 * float(expected.max()))


@pytest.mark.parametrize("precision", ["float", "double"])
def test_a_patch_that_is_too_small_changes_no_image(precision: str) -> None:
    """Bands of one row or two or of some instead of all at once; a row more than fits is refused."""
    parameters, rotations, n = some_gaussians(140, 29, seed=14, spread=0.9), views(2), 29
    usual = {"float": cuda_project.FLOAT, "double": cuda_project.DOUBLE}[precision]
    images, gradients = by_kernels(parameters, rotations, n, 5.0, usual, weights(2, n))
    for patch_px in (29, 300) if precision == "float" else (61,):
        small = cuda_project.project_source(precision, patch_px=patch_px)
        in_bands, of_bands = by_kernels(parameters, rotations, n, 5.0, small, weights(2, n))
        assert torch.equal(in_bands, images)
        for a, b in zip(of_bands, gradients, strict=True):
            tolerance = 1e-6 if precision == "float" else 1e-13
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))
    narrow = cuda_project.project_source(precision, patch_px=28)
    with pytest.raises(ValueError, match="a box of 29 px is wider than the 28 px of a patch"):
        by_kernels(parameters, rotations, n, 5.0, narrow, weights(2, n))


@pytest.mark.parametrize("lanes", [1, 4, 32])
def test_threads_a_gaussian_change_no_image(lanes: int) -> None:
    parameters, rotations, n = some_gaussians(140, 24, seed=15), views(2), 24
    images, gradients = by_kernels(parameters, rotations, n, 5.0, cuda_project.FLOAT, weights(2, n))
    source = cuda_project.project_source("float", patch_px=1024, lanes=lanes)
    again, of_lanes = by_kernels(parameters, rotations, n, 5.0, source, weights(2, n))
    assert torch.equal(again, images)
    for a, b in zip(of_lanes, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * float(b.abs().max()))


def test_the_order_of_threads_changes_nothing(emulated_gpu: EmulatedGpu) -> None:
    parameters, gradient = some_gaussians(300, 24, seed=16, spread=0.9), weights(18, 24)
    for source in cuda_project.SOURCES:
        results = []
        for emulated_gpu.reversed_order in (False, True):
            results.append(by_kernels(parameters, views(18), 24, 4.0, source, gradient))
        assert torch.equal(results[0][0], results[1][0])
        assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_an_older_order_is_as_good() -> None:
    parameters, rotations, gradient = single(some_gaussians(300, 20, seed=17)), views(3), weights(3, 20).float()
    results = []
    for order in (None, torch.randperm(300, generator=torch.Generator().manual_seed(1))):
        images = project(*parameters, rotations, 20, engine="cuda", order=order)
        results.append((images.detach(), torch.autograd.grad(images, parameters, gradient)))
    assert not torch.equal(results[0][0], results[1][0])  # the order does reach the kernels
    assert_agrees(results[0], results[1], FLOAT32_FORWARD, FLOAT32_GRADIENT)
    with pytest.raises(ValueError, match="an order of 299 Gaussians was given for 300"):
        project(*parameters, rotations, 20, engine="cuda", order=torch.arange(299))


def test_how_many_images_a_block_takes_changes_no_image() -> None:
    centres, log_scales, quaternions, amplitudes = (tensor.detach() for tensor in some_gaussians(50, 16, seed=18))
    axes = axes_of(log_scales, quaternions)
    many = cuda_project.scene(centres, axes, amplitudes, torch.tensor(views(7)), 16, 4.0)
    gradient = weights(7, 16)
    expected = cuda_project.draw(many), cuda_project.gather(many, gradient)
    assert many.images_per_block == 1  # so little work is spread as widely as it can be
    assert cuda_project._images_per_block(100, 30000) == 11
    assert cuda_project._images_per_block(1000, 300000) == 16
    assert cuda_project._images_per_block(17 * 65535, 1) == 17  # a grid has no more blocks on y
    for count in (2, 3, 7):
        few = replace(many, images_per_block=count)
        assert torch.equal(cuda_project.draw(few), expected[0])
        torch.testing.assert_close(cuda_project.gather(few, gradient), expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tiny_boxes(n: int) -> None:
    parameters = some_gaussians(9, 4, seed=19)
    expected = with_gradients(parameters, views(3), n, "reference")
    assert_agrees(with_gradients(parameters, views(3), n, "cuda"), expected, FLOAT32_FORWARD, FLOAT32_GRADIENT)


def test_nothing_makes_empty_images_and_no_gradient() -> None:
    empty = tuple(tensor.detach()[:0].requires_grad_() for tensor in some_gaussians(3, 8))
    images = project(*empty, views(2), 8, engine="cuda")
    assert images.shape == (2, 8, 8)
    assert not images.any()
    assert [len(g) for g in torch.autograd.grad(images.sum(), empty)] == [0, 0, 0, 0]
    parameters = some_gaussians(3, 8)
    images = project(*parameters, views(1)[:0], 8, engine="cuda")
    assert images.shape == (0, 8, 8)
    assert not any(g.any() for g in torch.autograd.grad(images.sum(), parameters))


def test_chunks_that_some_images_do_not_show() -> None:
    """A block goes on to the next image where nothing of its chunk is on one."""
    parameters = some_gaussians(300, 12, seed=22)
    with torch.no_grad():
        parameters[0][:150, 2] += 200  # in sight only along z
    rotations = np.concatenate([views(2), np.eye(3)[None], views(1, seed=3), np.eye(3)[None]])
    gradient = weights(5, 12)
    images, gradients = by_kernels(parameters, rotations, 12, 4.5, cuda_project.FLOAT, gradient)
    expected = project(*parameters, rotations, 12, cutoff_sigmas=4.5)
    assert relative_error(images.double().numpy(), expected.detach().numpy()) < FLOAT32_FORWARD
    for name, a, b in zip(NAMES, gradients, torch.autograd.grad(expected, parameters, gradient), strict=True):
        assert_gradients_match(a, b, 2 * FLOAT32_GRADIENT, name)


def test_what_is_outside_has_no_gradient() -> None:
    parameters = single(some_gaussians(6, 16))
    with torch.no_grad():
        for row, far in enumerate((1e6, -1e6, 1e30, -1e30)):
            parameters[0][row, 0] = far
    images, gradients = with_gradients(parameters, views(1), 16, "cuda")
    assert not any(gradient[:4].any() for gradient in gradients)
    inside = tuple(tensor.detach()[4:].double().requires_grad_() for tensor in parameters)
    expected = with_gradients(inside, views(1), 16, "reference")
    assert_agrees((images, tuple(g[4:] for g in gradients)), expected, FLOAT32_FORWARD, FLOAT32_GRADIENT)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_broken_gaussian_has_no_footprint(precision: torch.dtype) -> None:
    """What is not finite is not drawn, and the others are as if it were not there."""
    parameters = [tensor.detach().to(precision) for tensor in some_gaussians(6, 16)]
    rotations = np.concatenate([views(2), np.eye(3)[None]])
    expected = project(*(tensor[1:] for tensor in parameters), rotations, 16, engine="cuda")
    every = slice(None)
    for which, columns, value in (
        (0, 0, np.nan), (0, 1, np.inf), (0, every, np.nan), (1, 0, np.nan), (1, every, -500.0), (1, every, -12.0),
        (1, every, 500.0), (1, 1, 60.0), (2, 1, np.nan)
    ):  # fmt: skip
        broken = [tensor.clone() for tensor in parameters]
        broken[which][0, columns] = value
        found = project(*broken, rotations, 16, engine="cuda")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=f"{which}, {columns}, {value}")


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_broken_view_is_empty_and_a_broken_amplitude_shows(precision: torch.dtype) -> None:
    parameters = [tensor.detach().to(precision) for tensor in some_gaussians(6, 16)]
    rotations = np.concatenate([views(1), np.full((1, 3, 3), np.nan), np.zeros((1, 3, 3))])
    images = project(*parameters, rotations, 16, engine="cuda")
    assert torch.equal(images[0], project(*parameters, views(1), 16, engine="cuda")[0])
    assert not images[1:].any()
    for value in (np.nan, np.inf, -np.inf):
        parameters[3][2] = value
        assert project(*parameters, views(1), 16, engine="cuda").isnan().all()


def test_a_gradient_of_another_kind_is_refused() -> None:
    centres, log_scales, quaternions, amplitudes = (tensor.detach() for tensor in some_gaussians(5, 16))
    axes = axes_of(log_scales, quaternions)
    scene = cuda_project.scene(centres, axes, amplitudes, torch.tensor(views(2)), 16, 4.0)
    with pytest.raises(ValueError, match=r"expected contiguous \(2, 16, 16\)"):
        cuda_project.gather(scene, torch.zeros(2, 16, 15))


# the order


def test_a_chunk_is_one_cluster() -> None:
    """Clusters at the corners of a box, shuffled: each run of the order is one of them, with all its points."""
    random = np.random.default_rng(0)
    corners = np.array([[x, y, z] for x in (0, 50) for y in (0, 40) for z in (0, 30)])
    member = np.repeat(np.arange(8), 16)
    random.shuffle(member)
    order = spatial_order(torch.tensor(corners[member] + random.normal(size=(128, 3))), 16)
    runs = member[order.numpy()].reshape(8, 16)
    assert (runs == runs[:, :1]).all()
    assert sorted(runs[:, 0]) == list(range(8))


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 1000])
def test_an_order_holds_every_point_once(n: int) -> None:
    points = torch.tensor(np.random.default_rng(n).normal(size=(n, 3)))
    if n > 100:
        points[5], points[7, 1], points[9:40] = torch.nan, torch.inf, 1.0
    assert torch.equal(spatial_order(points, 128).sort().values, torch.arange(n))


def test_a_chunk_goes_from_small_to_large() -> None:
    random = np.random.default_rng(5)
    points, sizes = torch.tensor(random.normal(size=(300, 3))), torch.tensor(random.random(300))
    sizes[4] = torch.nan
    plain, sized = spatial_order(points, 128), spatial_order(points, 128, sizes)
    for begin in (0, 128, 256):
        run = sized[begin : begin + 128]
        assert torch.equal(run.sort().values, plain[begin : begin + 128].sort().values)
        assert (torch.nan_to_num(sizes)[run].diff() >= 0).all()


def test_chunks_of_a_ball_are_small() -> None:
    """Of 64 chunks of a ball of radius 1, the mean edge is that of 64 cubes of the ball's volume, or little more."""
    points = np.random.default_rng(3).normal(size=(64 * 128, 3))
    points *= (np.random.default_rng(4).random((len(points), 1)) ** (1 / 3)) / np.linalg.norm(points, axis=1)[:, None]
    chunks = points[spatial_order(torch.tensor(points), 128).numpy()].reshape(64, 128, 3)
    edge = (4 / 3 * np.pi / 64) ** (1 / 3)
    assert (chunks.max(1) - chunks.min(1)).mean() < 1.2 * edge
