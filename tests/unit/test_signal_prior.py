"""The prior on the signal's power: what it adds to the likelihood, and how strong the half's own maps make it."""

from dataclasses import replace

import numpy as np
import pytest

from gem_plugin.gaussians.start import Start
from gem_plugin.normal_equations import NormalEquations, Operator
from gem_plugin.signal_prior import LEAST_FSC, STRENGTH, prior_weight, with_prior
from tests.helpers import relative_error

N = 16


def nothing(n: int = N) -> NormalEquations:
    return NormalEquations(np.zeros((n, n, n)), np.zeros((2 * n, 2 * n, n + 1), dtype=np.float32), 0)


def start(fsc: np.ndarray, occupied: float) -> Start:
    return Start(np.zeros((N, N, N), dtype=np.float32), fsc, N // 2, occupied * N**3, N)


def white(level: float) -> NormalEquations:
    """As many data of one weight in every direction and at every frequency."""
    return replace(nothing(), spectrum=np.full((2 * N, 2 * N, N + 1), level, dtype=np.float32))


def test_it_is_the_weight_over_the_signal_to_noise_ratio_times_the_share() -> None:
    fsc = np.linspace(0.9, 0.1, N // 2 + 1)
    found = prior_weight(white(7.0), start(fsc, 0.1), N // 2 - 1)
    expected = STRENGTH * 7.0 * 0.1 * (1 - fsc) / (2 * fsc)
    np.testing.assert_allclose(found, expected[: N // 2], rtol=1e-4)


def test_a_shell_without_signal_is_held_back_not_forbidden() -> None:
    fsc = np.full(N // 2 + 1, -0.2)
    found = prior_weight(white(7.0), start(fsc, 0.1), N // 2 - 1)
    assert np.all(np.isfinite(found))
    assert found.max() == pytest.approx(STRENGTH * 0.7 * (1 - LEAST_FSC) / (2 * LEAST_FSC), rel=1e-4)


@pytest.mark.parametrize("window", [N, 12])
def test_it_adds_the_power_of_each_shell(window: int) -> None:
    """A plane wave within the window meets its shell's weight; so does its part of the loss."""
    weight = np.array([1.0, 5.0, 2.0, 7.0, 3.0, 4.0, 6.0, 8.0])
    equations = with_prior(nothing(window), weight, N)
    axis = np.arange(window) - window // 2
    envelope = np.exp(-0.5 * (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) / 2.0**2)
    wave = (envelope * np.cos(2 * np.pi * 3 * axis / N)[None, :, None]).astype(np.float32)
    padded = np.zeros((2 * window,) * 3)
    padded[:window, :window, :window] = wave
    transform = np.fft.rfftn(padded)
    frequency = np.fft.fftfreq(2 * window) * N
    shell = np.sqrt(frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency[: window + 1] ** 2)
    filtered = transform * np.interp(shell, np.arange(len(weight)), weight)
    expected = np.fft.irfftn(filtered, s=padded.shape, axes=(0, 1, 2))[:window, :window, :window]
    operator = Operator(equations, 1)
    assert relative_error(operator.apply(wave), expected) < 1e-5
    loss, _ = operator.loss_and_gradient(wave)
    assert loss == pytest.approx(0.5 * float(np.vdot(wave, expected)), rel=1e-5)
    assert 3 < float(np.vdot(wave, expected)) / float(np.vdot(wave, wave)) < 7


def test_data_stay_as_they_are() -> None:
    rng = np.random.default_rng(1)
    data = NormalEquations(rng.normal(size=(N, N, N)), rng.random((2 * N, 2 * N, N + 1)).astype(np.float32), 5)
    found = with_prior(data, np.zeros(8), N)
    np.testing.assert_array_equal(found.spectrum, data.spectrum)
    np.testing.assert_array_equal(found.right_side, data.right_side)
    assert found.n_particles == 5
