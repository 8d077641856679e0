"""Random phases: what they keep, what they show of a mask, and RELION's four curves."""

import numpy as np
import pytest
from scipy import fft

from gem_plugin.conventions import shell_indices
from gem_plugin.curve_checks import check_curve
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.phase_randomisation import corrected_fsc, first_randomised_shell, postprocess_curves, randomise_phases
from tests.unit.linear_halves import N, curve_of, simulated, unit_truth


def test_amplitudes_and_low_shells_stay_and_phases_beyond_go() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(16, 16, 16))
    changed = randomise_phases(volume, 5, rng)
    before, after = fft.rfftn(volume), fft.rfftn(changed)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-5, atol=1e-5)
    low = shell_indices(16) < 5
    np.testing.assert_allclose(after[low], before[low], rtol=1e-5, atol=1e-5)
    turned = np.angle(after[~low] / before[~low])
    assert abs(np.mean(np.exp(1j * turned))) < 0.1
    assert turned.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.05)  # uniform
    np.testing.assert_allclose(fft.irfftn(after, s=volume.shape), changed, atol=1e-5)


def test_another_seed_gives_other_phases_and_the_same_seed_the_same() -> None:
    volume = np.random.default_rng(1).normal(size=(16, 16, 16))
    first, second, again = (randomise_phases(volume, 3, np.random.default_rng(seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    fsc = fourier_shell_correlation(first, second)
    assert np.abs(fsc[4:]).max() < 0.3
    assert fsc[1:3].min() > 0.999


def test_where_phases_become_random_and_what_is_taken_off() -> None:
    unmasked = np.array([0.1, 0.95, 0.81, 0.79, 0.9, 0.1])
    assert first_randomised_shell(unmasked) == 3
    assert first_randomised_shell(np.array([0.0, 1.0, 0.9])) is None
    masked = np.array([1.0, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
    randomised = np.array([1.0, 0.9, 0.8, 0.7, 0.5, 0.2, 0.3, -0.1])
    expected = [1.0, 0.95, 0.9, 0.8, 0.6, (0.4 - 0.2) / 0.8, 0.0, 0.2 / 1.1]
    np.testing.assert_allclose(corrected_fsc(masked, randomised, 3), expected)
    np.testing.assert_array_equal(corrected_fsc(masked, randomised, None), masked)


def test_a_tight_mask_correlates_and_the_correction_takes_it_off() -> None:
    """Halves that agree up to shell 8 and hold nothing in common beyond: all that is left there is the mask's."""
    halves = simulated(4, signal=20.0)
    z, y, x = np.mgrid[:N, :N, :N] - N // 2
    tight = ((np.abs(x) < 3) & (np.abs(y) < 3) & (np.abs(z) < 6)).astype(np.float32)  # a box with sharp edges
    rng = np.random.default_rng(4)
    shared = randomise_phases(halves.model_free[0], 9, rng)
    maps = shared, randomise_phases(shared, 9, rng)
    curves, randomised = postprocess_curves(maps, tight, rng)
    assert curves.from_shell == 9
    beyond = slice(11, N // 2)
    assert np.abs(curves.unmasked[beyond]).max() < 0.15
    assert curves.masked[beyond].mean() > 0.2
    assert abs(curves.masked[beyond].mean() - curves.randomised[beyond].mean()) < 0.15
    assert abs(curves.corrected[beyond].mean()) < 0.4 * curves.masked[beyond].mean()
    r1, r2 = randomised
    np.testing.assert_allclose(curves.randomised, fourier_shell_correlation(r1 * tight, r2 * tight), atol=0.1)


def test_the_masks_part_of_c_full_is_nothing_under_a_good_mask_and_told_under_a_bad_one() -> None:
    values, errors = [], []
    for seed in range(8):
        curve = curve_of(simulated(seed, signal=3.0))
        there = np.isfinite(curve.c_full_randomised)
        assert there.sum() >= 2
        assert not there[curve.first_shell < (curve.postprocess.from_shell or 0)].any()
        assert [sentence for sentence in check_curve(curve) if "mask" in sentence] == []
        values.extend(curve.c_full_randomised[there])
        errors.extend(curve.c_full_randomised_error[there])
    assert 0.6 < np.std(np.array(values) / errors) < 1.5
    assert np.median(np.abs(values)) < 0.1
    sharp = (unit_truth() > 1).astype(np.float32)
    (sentence,) = [s for s in check_curve(curve_of(simulated(1, signal=3.0), sharp)) if "mask" in s]
    assert "wider or softer" in sentence
