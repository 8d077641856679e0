"""T on a GPU's tensors, here on the CPU's, against the CPU engine's own operator."""

import numpy as np
import pytest
import torch

from gem_plugin.map_operators import MapOperator, map_operator
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import NormalEquations, axis_frequencies
from gem_plugin.ops import engines
from gem_plugin.symmetry import point_group
from tests.helpers import relative_error

N = 12
ROUNDING = 2e-6


@pytest.fixture(autouse=True)
def _device_in_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "device_of", lambda _: torch.device("cpu"))


def equations(band: int) -> NormalEquations:
    """Positive, falling with frequency, without any symmetry but that of a real kernel."""
    rng = np.random.default_rng(band)
    across = axis_frequencies(N, band)
    z, y, x = np.ix_(across, across, np.arange(band + 1))
    spectrum = 2 + np.cos(0.3 * z) * np.cos(0.2 * y) + 0.2 * np.sin(0.4 * z) * np.sin(0.1 * x)
    right_side = rng.normal(size=(N, N, N)).astype(np.float32)
    return NormalEquations(right_side, (spectrum * np.exp(-(z**2 + y**2 + x**2) / 200)).astype(np.float32), 5)


def both(band: int) -> tuple[MapOperator, MapOperator]:
    return map_operator(equations(band), "cpu", 1), map_operator(equations(band), "cuda", 1)


def some_map() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(N, N, N)).astype(np.float32))


@pytest.mark.parametrize("band", [7, N])
@pytest.mark.parametrize("slab_bytes", [1, 512e6])
def test_t_is_the_cpu_engines(band: int, slab_bytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gem_plugin.map_operators.SLAB_BYTES", slab_bytes)
    host, device = both(band)
    assert type(host) is not type(device)
    expected = host.apply(some_map())
    assert relative_error(device.apply(some_map()).numpy(), expected.numpy()) < ROUNDING
    loss, gradient = host.loss_and_gradient(some_map())
    device_loss, device_gradient = device.loss_and_gradient(some_map())
    assert abs(device_loss / loss - 1) < 10 * ROUNDING
    assert relative_error(device_gradient.numpy(), gradient.numpy()) < ROUNDING


def test_filters_and_moves_are_the_cpu_engines() -> None:
    host, device = both(7)
    response = np.random.default_rng(2).random((N, N, N // 2 + 1)).astype(np.float32)
    expected = host.filtered(some_map(), host.given(response))
    assert relative_error(device.filtered(some_map(), device.given(response)).numpy(), expected.numpy()) < ROUNDING
    moving = point_group("O").operators  # 24 signed permutations of the axes
    expected = host.moved_sum(some_map(), moving)
    assert relative_error(device.moved_sum(some_map(), moving).numpy(), expected.numpy()) < ROUNDING
    assert abs(device.inner(expected, some_map()) - host.inner(expected, some_map())) < 1e-3


def test_the_map_without_gaussians_is_the_cpu_engines() -> None:
    expected = solve_model_free(equations(7), 4.0, 1)
    found = solve_model_free(equations(7), 4.0, 1, engine="cuda")
    assert np.abs(expected).max() > 0
    assert relative_error(found, expected) < 20 * ROUNDING
