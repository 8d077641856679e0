"""The cross-validated curve in soft sliding windows, drawn towards the global one where a window cannot tell.

In each band and window C = X / sqrt(P Q), as in `gem_plugin.honest`, with the sums of `gem_plugin.local_powers`. Q is
known; a window holds few coefficients, so X and P are uncertain where the model-free maps are noisy. With N the noise
power of one such map, H the mean power of the two Gaussian maps and n the independent coefficients of the window,

    Var X = H N / 4n,     Var P = (P N + N^2 / 2) / n.

X and P are therefore drawn, each by itself, towards what the whole map has for that much density Q, by the share of the
variance seen over all windows that is not this noise. Windows several times as wide come first, and each next
narrower one is drawn towards what the wider found. With no difference from place to place, or too little data to see
any, the global curve stands everywhere. A P below its own error is taken to be that error: C is not raised by chance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.honest import (
    BandPowers,
    Bands,
    MaskedHalves,
    band_powers,
    mask_halves,
)
from gem_plugin.local_powers import LocalPowers, local_powers
from gem_plugin.masks import independent_fraction
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.statement import THRESHOLD, trusted_error
from gem_plugin.windows import HALF_HEIGHT, SlidingWindows

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Samples = NDArray[np.float64]

TARGET_ERROR = 0.15  # of ln C in a window, at the stated resolution: larger windows for noisier data
LARGEST_SHARE = 0.25  # of the mask: a window as large as the molecule is not local
WIDEST_SHARE = 0.6  # of the mask, for the windows that smaller ones are drawn to
LEAST_DENSITY = 1e-6  # of the largest: windows with less hold nothing
ROUNDS = 8  # of finding the variance that is not noise


@dataclass(frozen=True)
class LocalCurve:
    """The honest curve round the points of a coarse grid, as a factor on the global one."""

    windows: SlidingWindows
    bands: Bands
    powers: LocalPowers
    ratio: Samples  # [bands, m, m, m] local over global correlation; 1 in bands that cannot be measured

    def lower(self, curve: ResolutionCurve) -> Samples:
        """Local correlation less the global curve's standard error, in proportion, [bands, m, m, m]."""
        stated = stated_curve(curve)
        return np.asarray(np.clip(stated[:, None, None, None] * self.ratio, 0, 1))


def stated_curve(curve: ResolutionCurve) -> Floats:
    """The curve that the statement rests on, [bands]: C_full less its error, 0 where nothing may be stated."""
    if not curve.is_claimed:
        return np.zeros(len(curve.c_full))
    error = trusted_error(curve.c_full_standard_error, curve.c_full_resampled_error)
    lower = np.where(curve.is_measurable, curve.c_full - error, 0.0)
    return np.asarray(np.clip(lower, 0, 1))


def choose_radius_px(curve: ResolutionCurve, mask: Map) -> float:
    """Radius of the windows at half height, in pixels, from how well the global curve is known.

    The error of ln C grows with the root of the mask's volume over the window's.
    """
    n = mask.shape[0]
    width = float(np.median(curve.last_shell - curve.first_shell + 1))
    least = 0.75 * n / width  # features of a band are no smaller than half of it
    volume = independent_fraction(mask) * mask.size
    stated = np.flatnonzero(stated_curve(curve) >= THRESHOLD)
    error = curve.c_full_standard_error[stated[-1]] / curve.c_full[stated[-1]] if len(stated) else 0.0
    share = min((error / TARGET_ERROR) ** 2, LARGEST_SHARE)
    sigma = (share * volume) ** (1 / 3) / np.sqrt(4 * np.pi)
    return float(max(HALF_HEIGHT * sigma, least))


def measure_locally(
    gaussian_maps: tuple[Map, Map],
    model_free_maps: tuple[Map, Map],
    mask: Map,
    curve: ResolutionCurve,
    radius_px: float,
    n_threads: int,
    halves: MaskedHalves | None = None,
) -> LocalCurve:
    """Measure the honest curve in sliding windows.

    Parameters
    ----------
    gaussian_maps, model_free_maps, mask : [n, n, n]
    curve : of the same maps under the same mask
    radius_px : of the windows at half height
    n_threads : of the FFTs
    halves : the same maps under the same mask, if they are at hand
    """
    halves = halves or mask_halves(gaussian_maps, model_free_maps, mask, n_threads)
    bands = Bands(curve.first_shell, curve.last_shell)
    windows = SlidingWindows(mask.shape[0], radius_px)
    powers = local_powers(halves, bands, windows)
    levels = _levels(windows, mask)
    ratio = _ratio(powers, levels, halves, bands, curve)
    return LocalCurve(windows, bands, powers, ratio)


@dataclass(frozen=True)
class _Level:
    """Windows of one width, and how many independent voxels each holds [m, m, m]."""

    windows: SlidingWindows
    n_voxels: Samples


def _levels(windows: SlidingWindows, mask: Map) -> list[_Level]:
    """The windows and others twice, four times ... as wide round the same points, widest first."""
    volume = independent_fraction(mask) * mask.size
    levels = [_Level(windows, windows.independent_voxels(mask))]
    radius = 2 * windows.radius_px
    while (np.sqrt(4 * np.pi) * radius / HALF_HEIGHT) ** 3 < WIDEST_SHARE * volume:
        wide = SlidingWindows(windows.box_size_px, radius, windows.n_points)
        levels.insert(0, _Level(wide, wide.independent_voxels(mask)))
        radius *= 2
    return levels


def _ratio(
    powers: LocalPowers, levels: list[_Level], halves: MaskedHalves, bands: Bands, curve: ResolutionCurve
) -> Samples:
    whole = band_powers(halves, bands, curve.n_independent)
    share = bands.sum(halves.shells.n_coefficients / 2) / halves.shells.box_size_px**3
    ratio = np.ones_like(powers.cross)
    for band in np.flatnonzero(curve.is_measurable):
        cross, signal = np.ones(ratio.shape[1:]), np.ones(ratio.shape[1:])
        for level in levels:
            sums = _window_sums(powers, int(band), levels[-1], level)
            cross, signal = _correct(cross, signal, sums, share[band] * level.n_voxels, whole, int(band))
        ratio[band] = cross / np.sqrt(signal)
    largest = 1 / np.where(curve.is_measurable, np.maximum(curve.c_full, 1e-3), 1.0)
    return np.clip(ratio, 0, largest[:, None, None, None])


@dataclass(frozen=True)
class _Sums:
    """One band in windows of one width, [m, m, m]."""

    cross: Samples
    signal: Samples
    noise: Samples
    combined: Samples
    half: Samples


def _window_sums(powers: LocalPowers, band: int, finest: _Level, level: _Level) -> _Sums:
    fields = (powers.cross, powers.signal, 2 * powers.nn, powers.combined, powers.half)
    sums = [field[band] for field in fields]
    return _Sums(*(sums if level is finest else [finest.windows.widen(field, level.windows) for field in sums]))


def _correct(
    cross: Samples, signal: Samples, sums: _Sums, n: Samples, whole: BandPowers, band: int
) -> tuple[Samples, Samples]:
    """Correct X / Q and P / Q, both relative to the whole map's [m, m, m], by what windows of one width show."""
    known = (sums.combined > LEAST_DENSITY * sums.combined.max(initial=0)) & (n > 1)
    if not known.any():
        return cross, signal
    q, noise, count = sums.combined[known], sums.noise[known], n[known]
    x0, p0 = q * whole.cross[band] / whole.combined[band], q * whole.signal[band] / whole.combined[band]
    variance_x = sums.half[known] * noise / (4 * count * x0**2)
    variance_p = (p0 * noise + noise**2 / 2) / (count * p0**2)
    new_cross, new_signal = cross.copy(), signal.copy()
    new_cross[known], _ = _draw_towards(cross[known], sums.cross[known] / x0, variance_x)
    drawn, share = _draw_towards(signal[known], sums.signal[known] / p0, variance_p)
    new_signal[known] = np.maximum(drawn, np.maximum(share * np.sqrt(variance_p), 1e-6))
    return new_cross, new_signal


def _draw_towards(expected: Floats, found: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """The expected values corrected by what was found, and the share by which: that of the deviations that is no noise.

    Each window counts by how well it can tell.
    """
    deviation = found - expected
    true = float(np.median(variance))
    for _ in range(ROUNDS):
        weight = 1 / (true + variance) ** 2
        true = max(float((weight * (deviation**2 - variance)).sum() / weight.sum()), 0.0)
    share = true / (true + variance)
    return expected + share * deviation, share
