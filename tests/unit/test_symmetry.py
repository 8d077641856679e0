"""Point groups: closed forms, exact averages, and Gaussians replicated like maps."""

import dataclasses

import numpy as np
import pytest
import torch

from gem_plugin import conventions, symmetry
from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.dataset import fourier_batch
from gem_plugin.errors import OptionError
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.model_free import solve_model_free, support_sphere
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.ops import voxelize
from gem_plugin.ops.replicate import replicate
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images
from gem_plugin.symmetric_equations import symmetric_equations
from gem_plugin.symmetry import NO_SYMMETRY, PointGroup, point_group, symmetrise
from gem_plugin.symmetry_check import LEAST_AGREEMENT, symmetry_agreement, symmetry_sentence
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, assert_gradients_match, relative_error

N = 32
ORDERS = {"C1": 1, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}


@pytest.mark.parametrize("name", ORDERS)
def test_operators_are_a_group_of_rotations(name: str) -> None:
    operators = point_group(name).operators
    assert len(operators) == ORDERS[name]
    np.testing.assert_allclose(operators[0], np.eye(3), atol=1e-7)
    np.testing.assert_allclose(np.linalg.det(operators), 1, atol=1e-7)
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 9)
    distance = np.abs(products[:, None] - operators.reshape(1, -1, 9)).max(axis=2)
    assert distance.min(axis=1).max() < 1e-4  # closed
    assert np.all(np.sort(np.abs(operators[:, None] - operators[None]).max(axis=(2, 3)), axis=1)[:, 1:2] > 0.1)


@pytest.mark.parametrize("name", ["", "C0", "D", "X3", "I5", "C1000", "c 3"])
def test_other_names_are_refused_in_words(name: str) -> None:
    with pytest.raises(OptionError, match=r"expected one of C1, C2"):
        point_group(name)


def symmetric_phantom(group: PointGroup) -> Phantom:
    one = make_phantom(N, 0)
    keep = one.centres_px[::3] * 0.9 + np.array([1.5, 0.7, -0.4])
    centres = np.einsum("gij,nj->gni", group.operators, keep).reshape(-1, 3)
    return Phantom(N, one.sigma_px, centres, np.tile(one.amplitudes[::3], group.order))


@pytest.mark.parametrize("name", ["C3", "D2", "O"])
def test_a_symmetric_map_is_left_as_it_is(name: str) -> None:
    group = point_group(name)
    volume = density(symmetric_phantom(group))
    inside = support_sphere(N, 12)  # the sharp band limit rings into the corners, which do not turn
    assert relative_error(inside * symmetrise(volume, group, 1), inside * volume) < 0.01


def test_the_mean_is_that_of_the_rotated_blobs() -> None:
    """Blob by blob, in closed form: the direction of every operator, and detail up to Nyquist."""
    group = point_group("C3")
    one = make_phantom(N, 0)
    centres = np.einsum("gij,nj->gni", group.operators, one.centres_px).reshape(-1, 3)
    expected = density(Phantom(N, one.sigma_px, centres, np.tile(one.amplitudes, 3) / 3))
    found = symmetrise(density(one), group, 2)
    assert relative_error(found, expected) < 0.02
    assert fourier_shell_correlation(found, expected)[1:15].min() > 0.995


def test_replicated_gaussians_are_the_rotated_map_and_its_gradient() -> None:
    """Copies made one at a time by rotating centre and axes, and torch's own derivative through the oracle."""
    group = point_group("D3")
    g = torch.Generator().manual_seed(0)
    numbers = (
        (torch.rand(5, 3, generator=g).double() - 0.5) * 10,
        0.3 * torch.randn(5, 3, generator=g).double(),
        torch.randn(5, 4, generator=g).double(),
        torch.rand(5, generator=g).double() + 0.5,
    )
    parameters = tuple(t.requires_grad_() for t in numbers)
    weight = torch.randn(20, 20, 20, generator=g).double()
    whole = voxelize(*replicate(*parameters, group.operators), 20, cutoff_sigmas=5, engine="reference")
    axis = np.arange(20) - 10
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z]).reshape(3, -1).astype(float)
    expected = np.zeros(points.shape[1])
    for operator in group.operators:
        back = operator.T @ points
        for j in range(5):
            centre, scales = parameters[0][j].detach().numpy(), parameters[1][j].detach().exp().numpy()
            w, a, b, c = torch.nn.functional.normalize(parameters[2][j].detach(), dim=0).numpy()
            turn = np.array(
                [
                    [1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)],
                    [2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)],
                    [2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)],
                ]
            )
            q = (((turn.T @ (back - centre[:, None])) / scales[:, None]) ** 2).sum(0)
            peak = float(parameters[3][j].detach()) / ((2 * np.pi) ** 1.5 * scales.prod())
            expected += np.where(q <= 25, peak * np.exp(-q / 2), 0)
    np.testing.assert_allclose(whole.detach().numpy().ravel(), expected, atol=1e-12)
    fast = voxelize(*replicate(*parameters, group.operators), 20, cutoff_sigmas=5, engine="cpu")
    assert float((fast - whole).detach().norm() / whole.detach().norm()) < FLOAT32_FORWARD
    slow_gradients = torch.autograd.grad(whole, parameters, weight)
    for a, b in zip(torch.autograd.grad(fast, parameters, weight), slow_gradients, strict=True):
        assert_gradients_match(a, b, 2 * FLOAT32_GRADIENT, "replicated")


def equations_of(phantom: Phantom, count: int, snr: float | None, parts: int = 1) -> list[NormalEquations]:
    particles = random_particles(count, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    images = simulate_images(phantom, particles, snr=snr, seed=2).images
    plane = conventions.half_plane(N, N / 2 - 0.5)
    sums = []
    for part in range(parts):
        indices = np.arange(part, count, parts)
        accumulator = Accumulator(plane, np.full(len(plane.kx), N * N, dtype=np.float32), 2)
        accumulator.add(fourier_batch(particles, images[indices], indices, plane))
        sums.append(accumulator.finish())
    return sums


def test_the_model_free_map_of_a_group_is_that_of_all_symmetric_poses() -> None:
    """Few particles: solving among symmetric maps beats averaging a map that few views made."""
    group = point_group("D2")
    phantom = symmetric_phantom(group)
    (equations,) = equations_of(phantom, 60, 0.2)
    truth = density(phantom)
    exact = solve_model_free(symmetric_equations(equations, group, 15, 2), 12, 2)
    mean = symmetrise(solve_model_free(equations, 12, 2), group, 2)
    for axes in ((1, 2), (0, 1), (0, 2)):  # the two-fold axes of D2 map voxels to voxels
        turned = np.roll(np.flip(exact, axes), (1, 1), axes)
        assert relative_error(turned, exact) < 1e-4
    exact_fsc, mean_fsc = (fourier_shell_correlation(v, truth)[1:15].mean() for v in (exact, mean))
    assert exact_fsc > mean_fsc + 0.02


@pytest.mark.parametrize(
    ("name", "k_max", "tolerance"), [("C3", 11.2, 0.02), ("D2", 15.5, 1e-3), ("D3", 11.2, 0.02), ("T", 15.5, 0.03)]
)
def test_symmetric_equations_are_those_of_particles_added_in_all_their_poses(
    name: str, k_max: float, tolerance: float
) -> None:
    """The particles accumulated again for every operator, with the rotated pose: another way to the same arrays.

    b and t do not end at the box's edge, so what is read between voxels is a little off; flips are exact.
    """
    group = point_group(name)
    particles = random_particles(6, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    images = simulate_images(make_phantom(N, 1), particles, snr=0.5, seed=2).images
    plane = conventions.half_plane(N, k_max)
    batch = fourier_batch(particles, images, np.arange(6), plane)
    noise = np.full(len(plane.kx), N * N, dtype=np.float32)
    once, in_all_poses = Accumulator(plane, noise, 1), Accumulator(plane, noise, 1)
    once.add(batch)
    for operator in group.operators:  # A r = (A R^T) (R r): the same image, seen of the rotated map
        in_all_poses.add(dataclasses.replace(batch, slices=batch.slices @ operator.T))
    found = symmetric_equations(once.finish(), group, 14, 1)
    expected = in_all_poses.finish()
    inside = support_sphere(N, 11)
    b = expected.right_side / group.order
    assert relative_error(inside * found.right_side, inside * b) < tolerance
    volume = inside * np.random.default_rng(0).normal(size=(N, N, N)).astype(np.float32)
    t_v = Operator(expected, 1).apply(volume) / group.order
    assert relative_error(inside * Operator(found, 1).apply(volume), inside * t_v) < tolerance


@pytest.mark.parametrize("name", ["C2", "C4", "D2", "D5", "T", "O", "I1", "I3"])
def test_moved_and_interpolated_copies_are_one_and_the_same(name: str) -> None:
    """With every operator taken for one that needs interpolation, nothing changes."""
    group = point_group(name)
    volume = support_sphere(N, 11) * density(make_phantom(N, 0))
    moving, representatives = symmetry.cosets(group.operators)
    assert len(moving) * len(representatives) == group.order
    zyx = np.argwhere(np.ones((N, N, N), dtype=bool)) - N // 2
    slow = symmetry._rotated_sum(volume, group.operators, zyx, 1, lambda: None).reshape(N, N, N) / group.order
    inside = conventions.radius_from_centre_px(N) < N / 2
    assert relative_error(symmetrise(volume, group, 1), np.where(inside, slow, 0)) < 1e-2


@pytest.mark.parametrize("name", ["D2", "D5", "T", "O"])
def test_the_data_term_of_an_asymmetric_unit_is_that_of_all_copies(name: str) -> None:
    """Copies that are had by moving the map, against copies that are all drawn: loss, scale and every gradient."""
    group = point_group(name)
    (equations,) = equations_of(symmetric_phantom(group), 10, 0.5)
    g = torch.Generator().manual_seed(0)
    numbers = (
        (torch.rand(6, 3, generator=g) - 0.5) * 14,
        0.2 + 0.2 * torch.randn(6, 3, generator=g),
        torch.randn(6, 4, generator=g),
        torch.rand(6, generator=g) + 0.5,
    )

    def outcome(is_unit: bool) -> tuple[float, float, list[torch.Tensor]]:
        unit = tuple(t.clone().requires_grad_() for t in numbers)
        term = CollapsedTerm(equations, engine="cpu", n_threads=1, group=group if is_unit else NO_SYMMETRY)
        given = unit if is_unit else replicate(*unit, group.operators)
        scale = term.best_scale(given)
        return term.backward(given, 99, 100), scale, [t.grad for t in unit]

    (loss, scale, gradients), (expected, expected_scale, expected_gradients) = outcome(True), outcome(False)
    assert abs(loss / expected - 1) < 1e-4
    assert abs(scale / expected_scale - 1) < 1e-4
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert_gradients_match(found, wanted, 1e-3, name)


@pytest.mark.parametrize(
    ("true", "given", "fits"),
    [("C2", "C2", True), ("D2", "C2", True), ("C1", "C2", False), ("C2", "D2", False), ("C3", "T", False)],
)
def test_a_wrong_group_is_noticed(true: str, given: str, fits: bool) -> None:
    plain = [solve_model_free(e, 14, 2) for e in equations_of(symmetric_phantom(point_group(true)), 400, 0.2, 2)]
    averaged = [symmetrise(v, point_group(given), 2) for v in plain]
    maps = (plain[0], plain[1]), (averaged[0], averaged[1])
    found = symmetry_agreement(*maps, support_sphere(N, 14))
    assert found is not None
    share, error = found
    assert abs(share - 1) < 5 * error + 0.05 if fits else share < LEAST_AGREEMENT
    sentence = symmetry_sentence(given, *maps, support_sphere(N, 14))
    assert sentence is None if fits else f"do not show symmetry {given}" in str(sentence)


def test_it_is_said_that_nothing_can_be_said() -> None:
    random = np.random.default_rng(0)
    maps = [support_sphere(N, 14) * random.normal(size=(N, N, N)).astype(np.float32) for _ in range(2)]
    averaged = [symmetrise(v, point_group("D2"), 1) for v in maps]
    sentence = symmetry_sentence("D2", (maps[0], maps[1]), (averaged[0], averaged[1]), support_sphere(N, 14))
    assert sentence is not None
    assert "taken on trust" in sentence


def test_two_maps_are_turned_at_the_price_of_one() -> None:
    generator = np.random.default_rng(4)
    first, second = (generator.standard_normal((24, 24, 24)).astype(np.float32) for _ in range(2))
    group = point_group("D3")
    both = symmetrise((first + 1j * second).astype(np.complex64), group, 1)
    assert relative_error(both.real, symmetrise(first, group, 1)) < 1e-3
    assert relative_error(both.imag, symmetrise(second, group, 1)) < 1e-3
