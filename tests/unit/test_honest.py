"""The stated resolution: closed forms, simulations with a known answer, and what must not be claimed."""

from dataclasses import replace

import numpy as np
import pytest

from gem_plugin.calibrated import calibrated_pair, target_fsc
from gem_plugin.fsc import Shells, fourier_shell_correlation
from gem_plugin.honest import (
    BandPowers,
    cross_validated_correlation,
    lay_out_bands,
    masked_transform,
)
from gem_plugin.local_curve import choose_radius_px, measure_locally
from gem_plugin.masks import independent_fraction, soft_mask
from gem_plugin.phantom import density, make_phantom
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.statement import NO_CLAIM
from tests.unit.linear_halves import N, band_truth, coloured, curve_of, simulated


def test_fsc_of_a_map_with_itself_its_negative_and_noise() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(N, N, N)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(fourier_shell_correlation(a, a), 1, atol=1e-9)
    np.testing.assert_allclose(fourier_shell_correlation(a, -a), -1, atol=1e-9)
    shells = Shells(N)
    spread = fourier_shell_correlation(a, b)[2:] * np.sqrt(shells.n_coefficients[2:])
    assert 0.6 < spread.std() < 1.5
    assert shells.n_coefficients[0] == 1
    assert shells.n_coefficients[1] == 18  # the neighbours of the origin, its corners excepted


def test_c_full_is_the_correlation_with_the_truth_within_its_error_bar() -> None:
    deviations, wide = [], []
    for seed in range(12):
        halves = simulated(seed, shared_bias=0.5)
        curve = curve_of(halves)
        known = band_truth(halves, halves.mask, curve)
        used = curve.is_measurable
        deviations.extend((curve.c_full - known)[used] / curve.c_full_standard_error[used])
        wide.extend(curve.c_full_standard_error[used])
    assert len(deviations) > 30
    assert abs(np.mean(deviations)) < 0.5
    assert 0.6 < np.std(deviations) < 1.5  # the bar is neither boastful nor timid
    assert np.median(wide) < 0.1


def test_shared_bias_fools_the_plain_fsc_but_not_c_full() -> None:
    halves = simulated(1, own_noise=0.05, shared_bias=4.0)
    curve = curve_of(halves)
    known = band_truth(halves, halves.mask, curve)
    assert curve.plain_half_map_fsc[-3] > 0.9
    assert known[-1] < 0.4
    assert curve.crosses_before_nyquist
    last = np.flatnonzero(curve.is_measurable)[-1]
    assert abs(curve.c_full[last] - known[last]) < 3 * curve.c_full_standard_error[last]


def test_standard_error_vanishes_without_noise_and_falls_with_data() -> None:
    # X, own, P, noise, Q, half, n
    c, error = cross_validated_correlation(BandPowers(*np.array([[8.0], [8.0], [10.0], [0.0], [10.0], [10.0], [50.0]])))
    assert abs(c[0] - 0.8) < 1e-12
    assert error[0] < 1e-5
    _, few = cross_validated_correlation(BandPowers(*np.array([[8.0], [9.0], [10.0], [30.0], [10.0], [10.0], [50.0]])))
    _, many = cross_validated_correlation(
        BandPowers(*np.array([[8.0], [9.0], [10.0], [30.0], [10.0], [10.0], [200.0]]))
    )
    assert abs(few[0] / many[0] - 2) < 1e-9


def test_bands_cover_every_shell_once_and_hold_enough_data() -> None:
    counts = np.arange(25) ** 2 * 0.3
    bands = lay_out_bands(counts, 23)
    assert bands.first[0] == 1
    assert bands.last[-1] == 23
    np.testing.assert_array_equal(bands.first[1:], bands.last[:-1] + 1)
    assert np.all(bands.sum(counts) >= 40)


@pytest.mark.parametrize("seed", range(5))
def test_noise_claims_nothing_even_where_the_mask_follows_it(seed: int) -> None:
    halves = simulated(seed, signal=0.0)
    smooth = np.exp(-0.5 * (np.arange(N // 2 + 1) / 6) ** 2)
    mask = soft_mask(coloured((halves.model_free[0] + halves.model_free[1]) / 2, smooth), 0.4 * N)
    curve = curve_of(halves, mask)
    assert curve.resolution_in_angstroms is None
    assert not curve.is_claimed
    assert NO_CLAIM in curve.statement


def test_halves_that_were_not_refined_apart_claim_nothing() -> None:
    halves = simulated(0)
    assert curve_of(halves).resolution_in_angstroms is not None
    curve = curve_of(halves, refined=False)
    assert curve.resolution_in_angstroms is None
    assert not curve.is_claimed
    assert "rlnRandomSubset" in curve.statement


def test_a_curve_that_never_falls_is_not_called_nyquist() -> None:
    halves = simulated(0, signal=40.0, own_noise=0.0)
    curve = curve_of(halves)
    assert not curve.crosses_before_nyquist
    assert curve.is_claimed
    assert curve.resolution_in_angstroms is None, "a number would look like a measurement"
    assert "not crossed before Nyquist (4.00 Angstrom)" in curve.statement
    curve = curve_of(halves, last_shell=16)
    assert curve.is_claimed
    assert "not crossed before the data end at 6.00 Angstrom" in curve.statement


def calibrated(gaussian, model_free, mask: np.ndarray, curve: ResolutionCurve):  # type: ignore[no-untyped-def]
    local = measure_locally(gaussian, model_free, mask, curve, choose_radius_px(curve, mask), 1)
    return calibrated_pair(gaussian, model_free, mask, curve, local)


def test_calibrated_pair_has_the_honest_fsc_and_the_same_mean() -> None:
    halves = simulated(2, own_noise=0.05, shared_bias=4.0)
    gaussian, mask = halves.gaussian, halves.mask
    curve = curve_of(halves)
    first, second = calibrated(gaussian, halves.model_free, mask, curve)
    shells = Shells(N)
    t1, t2 = (masked_transform(shells, v, mask) for v in (first, second))
    found = shells.cross_power(t1, t2) / np.sqrt(shells.power(t1) * shells.power(t2))
    target = np.minimum(target_fsc(curve, N // 2 + 1), curve.plain_half_map_fsc)
    assert np.abs(found - target)[2 : N // 2].max() < 0.08
    inside = mask > 0.999
    mean_moved = ((first + second) - (gaussian[0] + gaussian[1]))[inside] / 2
    half_moved = (first - gaussian[0])[inside]
    assert mean_moved.std() < 0.2 * half_moved.std()  # what there is leaks in from outside the mask
    assert abs(float((first - second).mean())) < 0.02 * first.std()  # RELION takes no mean off: levels must be alike


def test_independent_fraction_of_a_mask() -> None:
    assert independent_fraction(np.ones((8, 8, 8), np.float32)) == 1
    half = np.ones((8, 8, 8), np.float32)
    half[:4] = 0
    assert abs(independent_fraction(half) - 0.5) < 1e-12


def test_mask_holds_the_molecule_softly() -> None:
    truth = density(make_phantom(N, 3))
    mask = soft_mask(truth, 0.4 * N)
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask[truth > 0.2 * truth.max()].min() > 0.99
    assert 0.02 < mask.mean() < 0.3
    assert np.abs(np.diff(mask, axis=0)).max() < 0.5


def pair_fsc(pair, mask: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    shells = Shells(N)
    a, b = (masked_transform(shells, v, mask) for v in pair)
    return shells.cross_power(a, b) / np.sqrt(shells.power(a) * shells.power(b))


def test_calibrated_pair_of_an_unclaimed_map_agrees_nowhere() -> None:
    halves = simulated(2)
    pair = calibrated(halves.gaussian, halves.model_free, halves.mask, curve_of(halves, refined=False))
    assert np.abs(pair_fsc(pair, halves.mask)[1 : N // 2]).max() < 0.14


def test_calibrated_pair_agrees_nowhere_beyond_the_data() -> None:
    """Where --maxres ends the data, Gaussians still correlate, and model-free maps hold nothing to add."""
    halves = simulated(2, shared_bias=4.0)
    end = 14
    weight = (np.arange(N // 2 + 1) <= end).astype(float)
    v1, v2 = (coloured(v, weight) for v in halves.model_free)
    halves = replace(halves, model_free=(v1, v2))
    curve = curve_of(halves, last_shell=end)
    assert curve.plain_half_map_fsc[end + 2 :].min() > 0.5
    fsc = pair_fsc(calibrated(halves.gaussian, halves.model_free, halves.mask, curve), halves.mask)
    assert fsc[end - 2] > 0.143
    assert np.abs(fsc[end + 2 : N // 2]).max() < 0.14


@pytest.mark.parametrize(("order", "claims"), [(1, True), (4, True), (200, False)])
def test_one_wide_band_is_no_resolution(order: int, claims: bool) -> None:
    """So many copies that all shells make one band: its strong low shells must not speak for the others."""
    curve = curve_of(simulated(1, signal=30.0), order=order)
    assert curve.is_claimed == claims
    widest = (curve.last_shell - curve.first_shell + 1).max()
    assert (widest > 0.5 * (N // 2 - 1)) == (not claims)
    if not claims:
        assert not curve.is_measurable.any()
        assert "too few independent Fourier coefficients" in curve.statement
