"""The prior on the signal's power and the emphasis of its shells: what they do to the likelihood, and how strong the
half's own maps make them.
"""

from dataclasses import replace

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.dataset import fourier_batch
from gem_plugin.gaussians.start import Start
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.signal_prior import (
    EMPHASIS,
    LEAST_FSC,
    SEEN_FSC,
    STRENGTH,
    prior_weight,
    reach_of_signal,
    shell_emphasis,
    with_emphasis,
    with_prior,
)
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


def test_a_shell_counts_the_more_the_more_signal_it_has() -> None:
    """A quarter correlation of 0.6 is a signal-to-noise ratio of 3 in the half map; noise alone counts once."""
    found = shell_emphasis(start(np.array([1.0, *[0.6] * 6, 0.0, -0.1]), 0.1), 7)
    np.testing.assert_allclose(found[1:], [*[4**EMPHASIS] * 6, 1.0], rtol=5e-3)
    assert found[1] < found[0] < np.inf


def test_no_shell_counts_more_where_most_show_no_signal() -> None:
    curves = [np.array([1.0, *[0.6] * seen, *[0.0] * (8 - seen)]) for seen in (4, 5, 6, 8)]
    reaches = [reach_of_signal(start(curve, 0.1), 8) for curve in curves]
    np.testing.assert_allclose(reaches, [0, 0.25, 0.5, 1])
    counts = [shell_emphasis(start(curve, 0.1), 8)[1] for curve in curves]
    assert counts[0] == 1
    assert counts == sorted(counts)
    half_seen = start(np.array([1.0, *[SEEN_FSC / 2] * 8]), 0.1)
    assert reach_of_signal(half_seen, 8) == pytest.approx(0.0, abs=1e-9)


def test_emphasis_is_a_likelihood_of_images_with_less_noise_in_the_shells_that_count() -> None:
    """b and T as if accumulated with the noise's power divided by the emphasis."""
    n, count = 32, 20
    particles = random_particles(count, OpticsGroup("one", 3.0, n, 300.0, 2.7, 0.1), seed=1)
    truth = make_phantom(n, 1)
    images = simulate_images(truth, particles, snr=0.5, seed=2).images
    plane = conventions.half_plane(n, n / 2 - 0.5)
    emphasis = 1 + 2 * np.exp(-((np.arange(n // 2 + 1) / 6.0) ** 2))

    def accumulate(noise: np.ndarray) -> NormalEquations:
        accumulator = Accumulator(plane, noise.astype(np.float32), n_threads=1, render_box_px=36)
        accumulator.add(fourier_batch(particles, images, np.arange(count), plane))
        return accumulator.finish()

    noise = np.full(len(plane.radius), 100.0)
    plain = accumulate(noise)
    expected = accumulate(noise / np.interp(plane.radius, np.arange(len(emphasis)), emphasis))
    found = with_emphasis(plain, emphasis)
    inside = slice(9, 27)  # at its faces the box ends what goes round here
    assert relative_error(found.right_side[inside, inside, inside], expected.right_side[inside, inside, inside]) < 0.02
    blob = np.zeros((36, 36, 36), dtype=np.float32)
    blob[inside, inside, inside] = np.random.default_rng(0).normal(size=(18, 18, 18))
    assert relative_error(Operator(found, 1).apply(blob), Operator(expected, 1).apply(blob)) < 0.02
    assert relative_error(Operator(plain, 1).apply(blob), Operator(expected, 1).apply(blob)) > 0.1


def test_no_emphasis_leaves_the_data_as_they_are() -> None:
    rng = np.random.default_rng(1)
    data = NormalEquations(rng.normal(size=(N, N, N)), rng.random((2 * N, 2 * N, N + 1)).astype(np.float32), 5)
    found = with_emphasis(data, np.ones(8))
    np.testing.assert_array_equal(found.spectrum, data.spectrum)
    np.testing.assert_allclose(found.right_side, data.right_side, atol=1e-5)
