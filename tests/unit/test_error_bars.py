"""Two error bars of C_full, from theory and from quarter sets, against how far it really is from the truth."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.curve_checks import check_curve
from gem_plugin.fsc import Shells
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.resampling import BandMeasures, resampled_error
from tests.unit.linear_halves import Halves, Map, N, Pair, band_truth, curve_of, simulated

SEEDS = 20


def bars_and_scatter(**halves: float) -> NDArray[np.float64]:
    """Scatter of C_full about the truth over the seeds and the medians of both bars, one row a band, [bands, 3]."""
    curves, deviations = [], []
    for seed in range(SEEDS):
        made = simulated(seed, **halves)
        curve = curve_of(made)
        curves.append(curve)
        deviations.append(curve.c_full - band_truth(made, made.mask, curve))
    deviation = np.array(deviations)
    always = np.isfinite(deviation).all(axis=0)
    theory = np.median([curve.c_full_standard_error for curve in curves], axis=0)
    resampled = np.median([curve.c_full_resampled_error for curve in curves], axis=0)
    return np.stack([deviation.std(axis=0), theory, resampled], axis=1)[always]


@pytest.mark.parametrize(
    "halves",
    [
        {"shared_bias": 0.5},
        {"own_noise": 0.8},  # most of the fitted noise cancels: without beta the bars would be far too wide
        {"own_noise": 0.0, "signal": 1.5},
        {"steepness": 3.0, "signal": 2.0},
    ],
    ids=str,
)
def test_both_error_bars_are_the_scatter_about_the_truth(halves: dict[str, float]) -> None:
    rows = bars_and_scatter(**halves)
    assert len(rows) >= 3
    scatter, theory, resampled = rows.T
    for name, ratio in {"theory": theory / scatter, "quarters": resampled / scatter}.items():
        assert 1 / 1.5 < np.median(ratio) < 1.5, name
        assert ratio.min() > 0.6, name
        assert ratio.max() < 2.2, name
    assert np.abs(np.log(theory / resampled)).max() < np.log(1.3)


def turned(volume: Map, axes: tuple[int, ...]) -> Map:
    """The map after half a turn about the axis that is not named, through the box centre."""
    for axis in axes:
        volume = np.roll(np.flip(volume, axis), 1, axis)
    return volume


def with_d2(halves: Halves) -> Halves:
    def average(volume: Map) -> Map:
        return sum(turned(volume, axes) for axes in ((), (0, 1), (1, 2), (0, 2))) / 4

    def pair(maps: Pair) -> Pair:
        return average(maps[0]), average(maps[1])

    first, second = halves.quarters
    return Halves(average(halves.truth), pair(halves.gaussian), pair(halves.model_free), (pair(first), pair(second)))


def test_both_error_bars_know_that_symmetric_maps_hold_less() -> None:
    curves, deviations = [], []
    for seed in range(SEEDS):
        halves = with_d2(simulated(seed, signal=5.0, shared_bias=0.5))
        curves.append(curve_of(halves, order=4))
        deviations.append(curves[-1].c_full - band_truth(halves, halves.mask, curves[-1]))
    scatter = np.std(deviations, axis=0)
    assert np.isfinite(scatter).sum() >= 4
    for name in ("c_full_standard_error", "c_full_resampled_error"):
        ratio = np.median([getattr(curve, name) for curve in curves], axis=0) / scatter
        assert 1 / 1.5 < np.nanmedian(ratio) < 1.5, name


def test_the_quarters_bar_follows_their_noise_and_the_order_of_the_group() -> None:
    """Theory counts coefficients; this bar must come from the noise in the quarter maps themselves."""
    halves = simulated(3, shared_bias=0.5)
    (a1, b1), (a2, b2) = halves.quarters
    louder = replace(halves, quarters=((a1 + (a1 - b1) / 2, b1 - (a1 - b1) / 2), (a2, b2)))
    plain, noisy = curve_of(halves), curve_of(louder)
    used = plain.is_measurable
    assert np.all(noisy.c_full_resampled_error[used] > 1.2 * plain.c_full_resampled_error[used])
    np.testing.assert_array_equal(noisy.c_full_standard_error[used], plain.c_full_standard_error[used])


def errors_of_white_noise(seed: int, order: int = 1) -> NDArray[np.float64]:
    """G and V without noise and noise of power 1 in every coefficient: the bar has a closed form."""
    rng = np.random.default_rng(seed)
    shells = Shells(N)
    volumes = [rng.normal(size=(N, N, N)) for _ in range(6)]
    g1, g2, v1, v2, d1, d2 = (shells.transform(volume) for volume in volumes)
    n_shell = shells.n_coefficients
    bands = np.array([8, 14]), np.array([13, 20])
    n = np.array([n_shell[a : b + 1].sum() for a, b in zip(*bands, strict=True)])
    # P so large that c V is nothing: the rest is G, of power 1
    measures = BandMeasures(*bands, cross=n * N**3, signal=1e6 * n * N**3, beta=np.array([0.5, 0.5]))
    mask = np.ones((N, N, N), np.float32)
    found = resampled_error(shells, (g1, g2), (v1, v2), (d1, d2), mask, measures, order)
    return found * np.sqrt(2 * n)  # two sums <G, D> of variance n each, over (2 X)^2 = 4 n^2


def test_the_quarters_bar_in_closed_form() -> None:
    ratios = np.array([errors_of_white_noise(seed) for seed in range(4)])
    assert ratios.mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(errors_of_white_noise(0, order=4), 2 * ratios[0], rtol=1e-6)


@pytest.fixture(scope="module")
def halves() -> Halves:
    return simulated(1, own_noise=0.05, shared_bias=4.0)


def changed(curve: ResolutionCurve, factor: float) -> ResolutionCurve:
    return replace(curve, c_full_resampled_error=factor * curve.c_full_resampled_error)


def test_bars_that_disagree_are_told(halves: Halves) -> None:
    curve = curve_of(halves)
    assert curve.crosses_before_nyquist
    assert check_curve(curve) == []
    for factor in (4, 0.2):
        (sentence,) = check_curve(changed(curve, factor))
        assert "error bars" in sentence
    far = np.arange(len(curve.c_full)) == 0  # the first band decides nothing
    wrong_there = np.where(far, 9 * curve.c_full_resampled_error, curve.c_full_resampled_error)
    assert check_curve(replace(curve, c_full_resampled_error=wrong_there)) == []
    assert check_curve(replace(curve, c_full_resampled_error=np.full(len(far), np.nan))) == []
