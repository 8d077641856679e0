"""Gaussians on a grid: the oracle against closed forms, the CPU engine against the oracle."""

import numpy as np
import pytest
import torch

from gem_plugin.ops import voxelize
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, assert_gradients_match

NAMES = ("centres", "log-scales", "quaternions", "amplitudes")
Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def some_gaussians(n: int, box_size_px: int, seed: int = 0, *, spread: float = 0.6, scale: float = 1.2) -> Parameters:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    centres = (torch.rand(n, 3, generator=g, dtype=torch.float64) - 0.5) * spread * box_size_px
    return (
        centres.requires_grad_(),
        (np.log(scale) + 0.35 * normal(n, 3)).requires_grad_(),
        normal(n, 4).requires_grad_(),
        (0.5 + torch.rand(n, generator=g, dtype=torch.float64)).requires_grad_(),
    )


def gradients(parameters: Parameters, box_size_px: int, weight: torch.Tensor, engine: str, cutoff: float = 5.0):  # type: ignore[no-untyped-def]
    volume = voxelize(*parameters, box_size_px, cutoff_sigmas=cutoff, engine=engine)
    return volume.detach(), torch.autograd.grad(volume, parameters, weight)


def test_oracle_is_a_normalised_gaussian() -> None:
    """Integral, centre of mass and covariance of one oblique Gaussian, cut far out."""
    centre = torch.tensor([[1.3, -0.7, 2.1]], dtype=torch.float64)
    scales = torch.tensor([[1.1, 1.5, 2.0]], dtype=torch.float64)
    angle = np.radians(40.0)
    quaternion = torch.tensor([[np.cos(angle / 2), 0, 0, np.sin(angle / 2)]], dtype=torch.float64)  # about z
    volume = voxelize(
        centre,
        scales.log(),
        quaternion,
        torch.tensor([3.0], dtype=torch.float64),
        40,
        cutoff_sigmas=8,
        engine="reference",
    ).numpy()
    axis = np.arange(40) - 20
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    assert abs(volume.sum() - 3.0) < 1e-8
    mean = np.array([(volume * a).sum() / 3 for a in (x, y, z)])
    np.testing.assert_allclose(mean, centre[0].numpy(), atol=1e-8)
    deviations = np.stack([a - m for a, m in zip((x, y, z), mean, strict=True)]).reshape(3, -1)
    covariance = (deviations * volume.ravel()) @ deviations.T / 3
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    np.testing.assert_allclose(covariance, turn @ np.diag([1.21, 2.25, 4.0]) @ turn.T, atol=1e-6)


def test_gradcheck_of_the_oracle() -> None:
    parameters = some_gaussians(3, 8, seed=2)
    assert torch.autograd.gradcheck(
        lambda *p: voxelize(*p, 8, cutoff_sigmas=9.0, engine="reference"), parameters, eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("cutoff", [3.5, 6.0])
@pytest.mark.parametrize("box_size_px", [20, 21])
def test_cpu_engine_agrees_with_the_oracle(box_size_px: int, cutoff: float) -> None:
    parameters = some_gaussians(40, box_size_px, seed=1, spread=1.1)  # some reach over the edge, some lie outside
    weight = torch.randn(
        box_size_px, box_size_px, box_size_px, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    expected, expected_gradients = gradients(parameters, box_size_px, weight, "reference", cutoff)
    found, found_gradients = gradients(parameters, box_size_px, weight, "cpu", cutoff)
    assert float((found - expected).norm() / expected.norm()) < FLOAT32_FORWARD
    for name, a, b in zip(NAMES, found_gradients, expected_gradients, strict=True):
        assert_gradients_match(a, b, FLOAT32_GRADIENT, name)


@pytest.mark.parametrize("column", [0, 3])
@pytest.mark.parametrize("planted", ["dropped", "flipped", "biased", "one dropped"])
def test_the_comparison_catches_a_wrong_gradient(planted: str, column: int) -> None:
    parameters = some_gaussians(40, 20, seed=1)
    weight = torch.randn(20, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    _, good = gradients(parameters, 20, weight, "reference")
    wrong = good[2].clone()
    wrong[:, column] *= {"dropped": 0.0, "flipped": -1.0, "biased": 1.01, "one dropped": 1.0}[planted]
    if planted == "one dropped":
        wrong[7] = 0
    assert_gradients_match(good[2].clone(), good[2], FLOAT32_GRADIENT, "quaternions")
    with pytest.raises(AssertionError):
        assert_gradients_match(wrong, good[2], FLOAT32_GRADIENT, "quaternions")


def test_thin_oblique_gaussians_are_right() -> None:
    """Where marching along a row from its end would underflow or overflow."""
    g = torch.Generator().manual_seed(3)
    n = 30
    log_scales = torch.log(torch.tensor([0.4, 0.5, 4.0], dtype=torch.float64)).repeat(n, 1)
    centres = (torch.rand(n, 3, generator=g, dtype=torch.float64) - 0.5) * 10
    quaternions = torch.randn(n, 4, generator=g, dtype=torch.float64)
    parameters = tuple(t.requires_grad_() for t in (centres, log_scales, quaternions, torch.ones(n).double()))
    weight = torch.randn(32, 32, 32, dtype=torch.float64, generator=g)
    expected, expected_gradients = gradients(parameters, 32, weight, "reference", 6.0)  # type: ignore[arg-type]
    found, found_gradients = gradients(parameters, 32, weight, "cpu", 6.0)  # type: ignore[arg-type]
    assert float((found - expected).norm() / expected.norm()) < FLOAT32_FORWARD
    for name, a, b in zip(NAMES, found_gradients, expected_gradients, strict=True):
        assert_gradients_match(a, b, 4 * FLOAT32_GRADIENT, name)


def test_amplitude_gradient_is_the_adjoint() -> None:
    """<V a, w> = <a, V* w>: the map is linear in the amplitudes."""
    centres, log_scales, quaternions, amplitudes = some_gaussians(25, 24, seed=4)
    weight = torch.randn(24, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    volume = voxelize(centres, log_scales, quaternions, amplitudes, 24, engine="cpu")
    (gathered,) = torch.autograd.grad(volume, amplitudes, weight)
    left, right = float((volume.detach() * weight).sum()), float((amplitudes.detach() * gathered).sum())
    assert abs(left - right) < 1e-5 * float(volume.detach().norm() * weight.norm())


def test_result_does_not_depend_on_threads_or_order_of_voxels() -> None:
    import numba

    parameters = tuple(t.detach().float() for t in some_gaussians(200, 32, seed=7))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = voxelize(*parameters, 32, engine="cpu")
        numba.set_num_threads(before)
        many = voxelize(*parameters, 32, engine="cpu")
    finally:
        numba.set_num_threads(before)
    assert torch.equal(one, many)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_no_gaussians_make_an_empty_map(engine: str) -> None:
    empty = (torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0))
    assert not voxelize(*empty, 8, engine=engine).any()


def test_wrong_shapes_are_named() -> None:
    centres, log_scales, quaternions, amplitudes = some_gaussians(4, 8)
    with pytest.raises(ValueError, match="quaternions has shape"):
        voxelize(centres, log_scales, quaternions[:, :3], amplitudes, 8)
