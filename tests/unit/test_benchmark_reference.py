"""A truth that is known from finitely many images: what is measured against it is corrected, or left out."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from reference import LEAST_FSC, Reference, corrected
from score import fourier_shell_correlation, score_against

BOX, PIXEL = 48, 2.0
MASK = np.ones((BOX,) * 3)
BANDS = [(1, 6), (7, 12), (13, 18), (19, 23)]


def shaped(random: np.random.Generator, power_of_shell: np.ndarray) -> np.ndarray:
    """Noise with a given power in each shell."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.arange(BOX // 2 + 1) ** 2)
    shell = np.minimum(np.rint(radius).astype(int), BOX // 2)
    spectrum = np.fft.rfftn(random.normal(size=(BOX,) * 3)) * np.sqrt(power_of_shell[shell])
    return np.fft.irfftn(spectrum, s=(BOX,) * 3, axes=(0, 1, 2))


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray, Reference]:
    """A truth, a noisy map of it, and a reference whose halves are the noisier the finer the shell."""
    random = np.random.default_rng(1)
    flat = np.ones(BOX // 2 + 1)
    noise_power = np.interp(range(BOX // 2 + 1), [0, 16, 17, BOX // 2], [0.1, 1.0, 30.0, 30.0])
    truth = shaped(random, flat)
    half1, half2 = (truth + shaped(random, noise_power) for _ in range(2))
    return truth, truth + shaped(random, 2 * flat), Reference((half1 + half2) / 2, PIXEL, (half1, half2), 100)


def test_the_corrected_correlation_is_that_with_the_truth(maps: tuple[np.ndarray, np.ndarray, Reference]) -> None:
    truth, noisy, reference = maps
    curve = reference.fsc(noisy, MASK)
    true = fourier_shell_correlation(noisy, truth)[: len(curve)]
    plain = fourier_shell_correlation(noisy, reference.volume)[: len(curve)]
    assert curve[8:].mean() == pytest.approx(true[8:].mean(), abs=0.02)
    assert plain[8:].mean() < true[8:].mean() - 0.05


def test_shells_where_the_reference_is_poor_are_left_out(maps: tuple[np.ndarray, np.ndarray, Reference]) -> None:
    truth, noisy, reference = maps
    assert len(reference.fsc(noisy, MASK)) == 17  # shells 0 to 16
    score = score_against(reference.fsc, noisy, noisy, MASK, PIXEL)
    assert score.mean_fsc_to_truth == pytest.approx(fourier_shell_correlation(noisy, truth)[1:17].mean(), abs=0.03)


def test_bands_are_corrected_or_not_a_number(maps: tuple[np.ndarray, np.ndarray, Reference]) -> None:
    truth, noisy, reference = maps
    found = reference.band_correlation(noisy, MASK, BANDS)
    true = Reference(truth, PIXEL).band_correlation(noisy, MASK, BANDS)
    np.testing.assert_allclose(found[:2], true[:2], atol=0.06)
    assert np.isnan(found[3])
    assert true[3] == pytest.approx(np.sqrt(1 / 3), abs=0.03)


def test_correction_is_the_known_formula_and_a_perfect_reference_needs_none() -> None:
    measured = np.array([0.9, 0.8, 0.6, 0.4])
    np.testing.assert_allclose(corrected(measured, np.ones(4)), measured)
    half = corrected(measured, np.array([1.0, 1.0, 0.5, LEAST_FSC / 2]))
    np.testing.assert_allclose(half, [0.9, 0.8, 0.6 / np.sqrt(1 / 1.5)])


def test_the_level_of_the_solvent_does_not_count_in_bands() -> None:
    random = np.random.default_rng(2)
    mask = np.zeros((BOX,) * 3)
    mask[16:32, 16:32, 16:32] = 1
    truth = random.normal(size=mask.shape) * mask
    exact = Reference(truth, PIXEL)
    np.testing.assert_allclose(exact.band_correlation(3 * truth + 100, mask, BANDS), 1.0)
