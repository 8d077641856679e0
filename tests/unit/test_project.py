"""Gaussians on particle images: the oracle against the map and by hand, the CPU engine against the oracle."""

import numba
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gem_plugin.conventions import rotation_matrices
from gem_plugin.ops import numba_project, numba_rows, project, voxelize
from gem_plugin.ops.replicate import replicate
from gem_plugin.symmetry import point_group
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, assert_gradients_match

NAMES = ("centres", "log-scales", "quaternions", "amplitudes")
Parameters = tuple[torch.Tensor, ...]
Floats = np.ndarray


def some_gaussians(n: int, box_size_px: int, seed: int = 0, *, spread: float = 0.6, scale: float = 1.2) -> Parameters:
    random = np.random.default_rng(seed)
    arrays = (
        spread * box_size_px * random.uniform(-0.5, 0.5, (n, 3)),
        np.log(scale) + 0.35 * random.normal(size=(n, 3)),
        random.normal(size=(n, 4)),
        random.uniform(0.5, 1.5, n),
    )
    return tuple(torch.tensor(array, requires_grad=True) for array in arrays)


def views(n: int, seed: int = 1) -> Floats:
    return Rotation.random(n, random_state=seed).as_matrix()


def weights(n_views: int, box_size_px: int, seed: int = 5) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(n_views, box_size_px, box_size_px)))


def with_gradients(
    parameters: Parameters, rotations: Floats, box_size_px: int, engine: str, cutoff: float = 6.0
) -> tuple[torch.Tensor, Parameters]:
    images = project(*parameters, rotations, box_size_px, cutoff_sigmas=cutoff, engine=engine)
    return images.detach(), torch.autograd.grad(images, parameters, weights(len(rotations), box_size_px))


def assert_engines_agree(
    parameters: Parameters, rotations: Floats, box_size_px: int, cutoff: float = 6.0, *, slack: float = 1.0
) -> None:
    expected, expected_gradients = with_gradients(parameters, rotations, box_size_px, "reference", cutoff)
    found, found_gradients = with_gradients(parameters, rotations, box_size_px, "cpu", cutoff)
    assert float((found - expected).norm() / expected.norm()) < FLOAT32_FORWARD
    for name, a, b in zip(NAMES, found_gradients, expected_gradients, strict=True):
        assert_gradients_match(a, b, slack * FLOAT32_GRADIENT, name)


# the oracle


def test_a_round_gaussian_by_hand() -> None:
    """The formula in one pixel beside the centre, in numbers."""
    one = torch.ones(1, dtype=torch.float64)
    image = project(
        torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64),
        torch.full((1, 3), np.log(1.5), dtype=torch.float64),
        torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        4 * one,
        np.eye(3)[None],
        10,
        cutoff_sigmas=3.5,
        engine="reference",
    )[0]
    assert float(image[3, 6]) == pytest.approx(4 / (2 * np.pi * 1.5**2))  # y = 5 - 2, x = 5 + 1
    assert float(image[4, 8]) == pytest.approx(4 / (2 * np.pi * 1.5**2) * np.exp(-(1**2 + 2**2) / (2 * 1.5**2)))
    assert float(image[3, 0]) == 0  # 4 sigma away, and the cut-off is at 3.5


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_an_image_is_the_turned_map_summed_along_z(engine: str) -> None:
    """Gaussians turned by A, put on a map, summed: the whole of the convention, whatever project() does inside.

    The sum over voxels is the integral as far as the Gaussians are band-limited, 1e-7 for widths over 1.1 px.
    """
    parameters = [tensor.detach() for tensor in some_gaussians(12, 32, seed=3, spread=0.4)]
    parameters[1] = parameters[1].clamp(min=np.log(1.1))
    rotations = rotation_matrices(np.array([[20.0, 50.0, -70.0], [130.0, 100.0, 10.0]]))
    images = project(*parameters, rotations, 32, cutoff_sigmas=8, engine=engine)
    for rotation, image in zip(rotations, images, strict=True):
        turned = replicate(*parameters, np.stack([np.eye(3), rotation]))
        volume = voxelize(*(tensor[12:] for tensor in turned), 32, cutoff_sigmas=8, engine="reference")
        torch.testing.assert_close(image, volume.sum(0), rtol=0, atol=2e-6 * float(volume.sum(0).max()))


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_rotation_about_z_turns_the_image_the_right_way(engine: str) -> None:
    """A point on +x is carried by A = (x -> +y) to +y, one row after another in the array; the view is not mirrored."""
    centres = torch.tensor([[6.0, 0, 0], [0, 3.0, 0]])
    shape = (torch.zeros(2, 3), torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1), torch.tensor([2.0, 1.0]))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    image = project(centres, *shape, quarter[None], 20, engine=engine)[0].numpy()
    assert np.unravel_index(image.argmax(), image.shape) == (16, 10)
    assert image[10, 7] == pytest.approx(1 / (2 * np.pi), rel=1e-5)  # +y is carried to -x
    assert image[10, 13] < 1e-6


def test_gradcheck_of_the_oracle() -> None:
    parameters = some_gaussians(2, 8, seed=2)
    assert torch.autograd.gradcheck(
        lambda *p: project(*p, views(2), 8, cutoff_sigmas=9.0, engine="reference"), parameters, eps=1e-6, atol=1e-6
    )


# the CPU engine


@pytest.mark.parametrize("cutoff", [3.5, 6.0])
@pytest.mark.parametrize("box_size_px", [20, 21])
def test_cpu_engine_agrees_with_the_oracle(box_size_px: int, cutoff: float) -> None:
    assert_engines_agree(some_gaussians(40, box_size_px, seed=1), views(3), box_size_px, cutoff)


def test_gaussians_over_the_edge_and_outside() -> None:
    parameters = some_gaussians(80, 20, seed=4, spread=1.6, scale=1.6)
    assert_engines_agree(parameters, views(3), 20)
    far = [tensor.detach().clone() for tensor in parameters]
    far[0][:, 0] += 1e6  # in a view along z nothing is left
    assert not project(*far, np.eye(3)[None], 20).any()


@pytest.mark.parametrize("widths", [(0.5, 0.5, 5.0), (0.5, 4.0, 4.0)])
def test_thin_oblique_gaussians_are_right(widths: tuple[float, float, float]) -> None:
    """Needles and plates: in many views the ellipse is ten times longer than wide, at any angle."""
    parameters = some_gaussians(30, 32, seed=3, spread=0.3)
    with torch.no_grad():
        parameters[1].copy_(torch.log(torch.tensor(widths, dtype=torch.float64)).expand(30, 3))
    assert_engines_agree(parameters, views(4), 32, slack=4)


def test_wide_gaussians_and_a_small_box() -> None:
    """A row of many groups of pixels, a footprint larger than the image, a box smaller than a group."""
    assert_engines_agree(some_gaussians(6, 40, seed=6, scale=7.0), views(2), 40)
    assert_engines_agree(some_gaussians(4, 5, seed=7), views(2), 5)


def test_a_single_gaussian_in_a_single_view() -> None:
    parameters = some_gaussians(1, 16, seed=8, spread=0.3)
    expected, expected_gradients = with_gradients(parameters, views(1), 16, "reference")
    found, found_gradients = with_gradients(parameters, views(1), 16, "cpu")
    assert float((found - expected).norm() / expected.norm()) < FLOAT32_FORWARD
    for a, b in zip(found_gradients, expected_gradients, strict=True):
        assert float((a - b).norm() / b.norm()) < FLOAT32_GRADIENT


def test_gaussians_that_fill_no_whole_chunk() -> None:
    """More than are seen at once forward and than a chunk holds backward, and no multiple of either."""
    assert_engines_agree(some_gaussians(2311, 8, seed=9, spread=1.0), views(2), 8)


def test_sums_over_many_images_keep_their_digits() -> None:
    """The gradient summed over 200 images is the sum of the gradients of each, far below float32's rounding."""
    parameters = tuple(tensor.detach().requires_grad_() for tensor in some_gaussians(20, 16, seed=10))
    rotations, gradient = views(200), weights(200, 16)
    together = torch.autograd.grad(project(*parameters, rotations, 16), parameters, gradient)
    one_by_one = [
        torch.autograd.grad(project(*parameters, rotations[[b]], 16), parameters, gradient[[b]]) for b in range(200)
    ]
    for a, parts in zip(together, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(parts).sum(0), rtol=0, atol=1e-12 * float(a.abs().max()) * 200)


@pytest.mark.parametrize("column", range(11))
def test_the_comparison_catches_three_percent_in_one_parameter(column: int) -> None:
    """In each of the 11 columns, and that a gradient without the mistake passes."""
    parameters = some_gaussians(40, 20, seed=1)
    _, good = with_gradients(parameters, views(3), 20, "cpu")
    _, expected = with_gradients(parameters, views(3), 20, "reference")
    which, inside = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)][column]
    wrong = good[which].clone().reshape(40, -1)
    assert_gradients_match(wrong.reshape(good[which].shape), expected[which], FLOAT32_GRADIENT, NAMES[which])
    wrong[:, inside] *= 1.03
    with pytest.raises(AssertionError):
        assert_gradients_match(wrong.reshape(good[which].shape), expected[which], FLOAT32_GRADIENT, NAMES[which])


def test_the_engine_notices_a_transposed_rotation() -> None:
    """The comparison of the engines is not blind to the convention."""
    parameters = some_gaussians(40, 20, seed=1)
    rotations = views(3)
    right = project(*parameters, rotations, 20, engine="reference")
    wrong = project(*parameters, rotations.transpose(0, 2, 1).copy(), 20)
    assert float((wrong - right).detach().norm() / right.detach().norm()) > 0.1


def test_gradients_flow_through_symmetry() -> None:
    """One asymmetric unit of D2, replicated, projected: the gradient arrives at the unit's own numbers."""
    parameters = some_gaussians(10, 20, seed=11)
    group = point_group("D2").operators
    gradient = weights(3, 20)
    found, expected = (
        torch.autograd.grad(project(*replicate(*parameters, group), views(3), 20, engine=engine), parameters, gradient)
        for engine in ("cpu", "reference")
    )
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert_gradients_match(a, b, 4 * FLOAT32_GRADIENT, name)


def test_result_does_not_depend_on_threads() -> None:
    parameters = tuple(tensor.detach().float().requires_grad_() for tensor in some_gaussians(777, 32, seed=7))
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before, before):
            numba.set_num_threads(threads)
            images = project(*parameters, views(5), 32)
            results.append((images.detach(), *torch.autograd.grad(images, parameters, weights(5, 32).float())))
    finally:
        numba.set_num_threads(before)
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))
    assert results[0][0].dtype == torch.float32


def test_views_may_be_a_tensor_of_any_precision() -> None:
    parameters = some_gaussians(10, 16)
    rotations = views(2)
    expected = project(*parameters, rotations, 16)
    assert torch.equal(project(*parameters, torch.tensor(rotations), 16), expected)
    torch.testing.assert_close(project(*parameters, torch.tensor(rotations).float(), 16), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_nothing_makes_empty_images(engine: str) -> None:
    empty = (torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0))
    assert not project(*empty, views(2), 8, engine=engine).any()
    assert project(*some_gaussians(3, 8), views(1)[:0], 8, engine=engine).shape == (0, 8, 8)


def test_no_row_reaches_outside_an_images_numbers() -> None:
    """What the kernels rely on, since they check no index: rows at the corners, wide ones, ones over the edge."""
    n, cutoff = 24, 5.0
    random = np.random.default_rng(12)
    spreads = np.linalg.qr(random.normal(size=(400, 3, 3)))[0] * np.exp(random.uniform(-1, 3, (400, 1, 3)))
    covariances = (spreads @ spreads.transpose(0, 2, 1)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    centres = random.uniform(-1.2 * n, 1.2 * n, (400, 3))
    ellipses = np.empty((400, numba_project._COLUMNS))
    numba_project._see(views(1)[0], centres, covariances, cutoff, n, ellipses)
    ends = []
    for e in ellipses:
        start, rows, dy, walk = numba_project._walk(e, cutoff, n)
        for row in range(rows):
            first = start + row * n + numba_rows.row_of(walk, np.float32(dy + row))[0]
            assert 0 <= first < n * n
            ends.append(first + walk.groups * numba_rows.LANES)
    assert n * n + numba_rows.LANES < max(ends) <= numba_rows.padded_pixels(n)  # some need more than one group


def test_a_broken_gaussian_has_no_footprint() -> None:
    """What is not finite is not drawn, and the others are as if it were not there."""
    parameters = [tensor.detach() for tensor in some_gaussians(6, 16)]
    rotations = np.concatenate([views(2), np.eye(3)[None]])
    expected = project(*(tensor[1:] for tensor in parameters), rotations, 16)
    every = slice(None)
    for which, columns, value in (
        (0, 0, np.nan), (0, 1, np.inf), (0, every, np.nan), (1, 0, np.nan), (1, every, -500.0), (2, 1, np.nan)
    ):  # fmt: skip
        broken = [tensor.clone() for tensor in parameters]
        broken[which][0, columns] = value
        assert torch.equal(project(*broken, rotations, 16), expected), (which, columns, value)
    ellipses = np.empty((4, numba_project._COLUMNS))
    centres = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0], [0, 0, 0]])
    covariances = np.array([[1.0, 0, 0, 1, 0, 1]] * 2 + [[np.nan] * 6, [0.0] * 6])
    numba_project._see(np.eye(3), centres, covariances, 3.0, 16, ellipses)
    assert [numba_project._walk(e, 3.0, 16)[1] for e in ellipses[:2]] == [0, 0]  # no rows
    assert (ellipses[:, numba_project._LAST_Y] < ellipses[:, numba_project._FIRST_Y]).all()


def test_wrong_shapes_and_engines_are_named() -> None:
    centres, log_scales, quaternions, amplitudes = some_gaussians(4, 8)
    with pytest.raises(ValueError, match="quaternions has shape"):
        project(centres, log_scales, quaternions[:, :3], amplitudes, views(2), 8)
    for wrong in (np.eye(3), np.zeros((2, 2, 3))):
        with pytest.raises(ValueError, match="rotations has shape"):
            project(centres, log_scales, quaternions, amplitudes, wrong, 8)
    with pytest.raises(ValueError, match="no engine 'abacus'"):
        project(centres, log_scales, quaternions, amplitudes, views(2), 8, engine="abacus")
