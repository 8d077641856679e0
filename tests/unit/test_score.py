"""The benchmarks' yardstick is itself measured: on maps whose correlation with the truth is known beforehand."""

import numpy as np
import pytest

from benchmarks import score

BOX, PIXEL = 32, 2.0


def ball(radius_px: float) -> np.ndarray:
    axis = np.arange(BOX) - BOX // 2
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2
    return (squared <= radius_px**2).astype(np.float64)


def test_a_map_agrees_with_itself_whatever_its_scale() -> None:
    volume = np.random.default_rng(1).normal(size=(BOX,) * 3)
    np.testing.assert_allclose(score.fourier_shell_correlation(volume, 3 * volume), 1.0)
    np.testing.assert_allclose(score.fourier_shell_correlation(volume, -volume), -1.0)


def test_noise_of_equal_power_halves_the_squared_correlation() -> None:
    random = np.random.default_rng(2)
    signal, noise = random.normal(size=(2, BOX, BOX, BOX))
    curve = score.fourier_shell_correlation(signal, signal + noise)
    assert curve[5:].mean() == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_shells_count_every_coefficient_of_the_whole_spectrum_once() -> None:
    volume = np.random.default_rng(3).normal(size=(BOX,) * 3)
    index = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.sqrt(index[:, None, None] ** 2 + index[None, :, None] ** 2 + index**2)
    whole = np.bincount(np.rint(radius).astype(int).ravel(), weights=(np.abs(np.fft.fftn(volume)) ** 2).ravel())
    (halves,) = score.shell_sums(BOX, np.abs(np.fft.rfftn(volume)) ** 2)
    np.testing.assert_allclose(halves, whole[: BOX // 2 + 1])


def test_crossing_lies_on_the_line_between_two_shells() -> None:
    curve = np.array([1.0, 0.9, 0.7, 0.3, 0.1])
    assert score.crossing(curve, BOX, PIXEL, 0.5) == pytest.approx(BOX * PIXEL / 2.5)
    assert np.isnan(score.crossing(curve, BOX, PIXEL, 0.05))
    assert score.crossing(curve, BOX, PIXEL, 0.95) == np.inf


def test_mask_grows_from_the_truth_and_falls_softly_to_zero() -> None:
    mask = score.mask_from_truth(ball(5), extend_px=2, edge_px=4)
    line = mask[BOX // 2, BOX // 2, BOX // 2 :]
    assert np.all(line[:8] == 1)
    assert np.all(np.diff(line) <= 0)
    assert np.all(line[-3:] == 0)
    assert np.count_nonzero((line > 0) & (line < 1)) >= 3


def test_score_is_of_the_mean_of_both_halves_under_the_mask() -> None:
    random = np.random.default_rng(4)
    truth = ball(8) * random.normal(size=(BOX,) * 3)
    mask = score.mask_from_truth(ball(8))
    error = 0.5 * random.normal(size=truth.shape) * mask
    opposed = score.score(truth, truth + error, truth - error, mask, PIXEL)
    assert opposed.mean_fsc_to_truth == pytest.approx(1.0)
    shared = score.score(truth, truth + error, truth + error, mask, PIXEL)
    assert shared.mean_fsc_to_truth < 0.95
    solvent = 5 * random.normal(size=truth.shape) * (mask == 0)
    outside = score.score(truth, truth + solvent, truth + solvent, mask, PIXEL)
    assert outside.mean_fsc_to_truth == pytest.approx(1.0)
    assert outside.mean_fsc_to_truth_unmasked < 0.9
