"""The resolution of a run: C_full in bands, its error bars, what the mask adds, and the claim that follows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import masks
from gem_plugin.fsc import Shells, correlation, shell_resolutions_in_angstroms
from gem_plugin.honest import (
    LEAST_INDEPENDENT,
    SIGNIFICANCE,
    BandPowers,
    Bands,
    MaskedHalves,
    band_powers,
    cross_validated_correlation,
    lay_out_bands,
    mask_halves,
    masked_transform,
)
from gem_plugin.independence import shares_noise
from gem_plugin.phase_randomisation import postprocess_curves
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.resampling import BandMeasures, resampled_error
from gem_plugin.shell_sums import Transform
from gem_plugin.statement import Evidence, make_claim, trusted_error

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Pair = tuple[Map, Map]
Transforms = tuple[tuple[Transform, Transform], tuple[Transform, Transform]]

WIDEST_SHARE = 0.5  # of the shells that hold data: the strong low shells of a wider band would speak for its weak ones


def resolution_curve(
    gaussian_maps: Pair,
    model_free_maps: Pair,
    mask: Map,
    sphere: Map,
    pixel_size_in_angstroms: float,
    *,
    last_shell: int,
    half_sets_are_refined: bool,
    symmetry_order: int = 1,
    quarter_maps: tuple[Pair, Pair] | None = None,
    seed: int = 0,
    n_threads: int = 1,
    halves: MaskedHalves | None = None,
) -> ResolutionCurve:
    """The honest curve, its two error bars, what the mask does to it, and the one resolution that may be stated.

    Parameters
    ----------
    mask : [n, n, n] soft mask under which all is measured
    sphere : [n, n, n] the particle sphere, which no data shaped: a claim needs a signal under it too, because a mask
        drawn round noise makes the lowest shells of any two maps correlate
    last_shell : last shell that holds data
    half_sets_are_refined : False when the poses were not refined in separate halves
    symmetry_order : of the group over which all maps were averaged: so many coefficients are copies of each other
    quarter_maps : both halves' model-free maps of their two quarter sets, for the second error bar
    seed : of the random phases
    n_threads : of the FFTs
    halves : the same maps under the same mask, if they are at hand
    """
    halves = halves or mask_halves(gaussian_maps, model_free_maps, mask, n_threads)
    shells = halves.shells
    (g1, g2), (v1, v2) = halves.gaussian, halves.model_free
    n_shell = shells.n_coefficients / 2 * masks.independent_fraction(mask) / symmetry_order
    bands = lay_out_bands(n_shell, last_shell)
    p11, p22, p12 = shells.power(v1), shells.power(v2), shells.cross_power(v1, v2)
    n_band = bands.sum(n_shell)
    powers = band_powers(halves, bands, n_band)
    c, error = cross_validated_correlation(powers)
    model_free_fsc = correlation(powers.signal, bands.sum(p11), bands.sum(p22))
    above = (model_free_fsc > SIGNIFICANCE / np.sqrt(n_band)) & (n_band >= LEAST_INDEPENDENT) & np.isfinite(c)
    above &= bands.last - bands.first + 1 <= WIDEST_SHARE * last_shell
    measurable = np.logical_and.accumulate(above)
    if not _has_signal_under(shells, sphere, model_free_maps, last_shell, symmetry_order):
        measurable[:] = False
    quarters = _masked_quarters(shells, quarter_maps, mask)
    resampled = _resampled(halves, quarters, mask, bands, powers, symmetry_order) * np.abs(c)
    generator = np.random.default_rng([seed, mask.shape[0]])
    postprocess, random_maps = postprocess_curves(model_free_maps, mask, generator, n_threads)
    of_mask, of_mask_error = _randomised(halves, random_maps, mask, bands, powers, postprocess.from_shell)
    evidence = Evidence(
        lower=np.where(measurable, c - trusted_error(error, resampled), 0.0),
        centre=bands.centre,
        is_measurable=measurable,
        last_shell=last_shell,
        box_size_px=shells.box_size_px,
        pixel_size_in_angstroms=pixel_size_in_angstroms,
        half_sets_are_refined=half_sets_are_refined,
        is_coarse=bool(bands.last[0] > WIDEST_SHARE * last_shell),
        shares_noise=_shares_noise(shells, quarters, bands, model_free_fsc, n_band),
    )
    claim = make_claim(evidence)
    return ResolutionCurve(
        first_shell=bands.first,
        last_shell=bands.last,
        band_resolution_in_angstroms=shells.box_size_px * pixel_size_in_angstroms / bands.centre,
        c_full=np.where(measurable, c, np.nan),
        c_full_standard_error=np.where(measurable, error, np.nan),
        c_full_resampled_error=np.where(measurable, resampled, np.nan),
        c_full_randomised=np.where(measurable, of_mask, np.nan),
        c_full_randomised_error=np.where(measurable, of_mask_error, np.nan),
        band_model_free_fsc=model_free_fsc,
        band_model_free_correlation=correlation_of_the_mean(model_free_fsc),
        n_independent=n_band,
        is_measurable=measurable,
        shell_resolution_in_angstroms=shell_resolutions_in_angstroms(shells.box_size_px, pixel_size_in_angstroms),
        plain_half_map_fsc=correlation(shells.cross_power(g1, g2), shells.power(g1), shells.power(g2)),
        model_free_fsc=correlation(p12, p11, p22),
        postprocess=postprocess,
        filter_weight=_filter_weight(np.where(measurable, np.clip(c, 0, 1), 0.0), bands, shells.last),
        resolution_in_angstroms=claim.resolution_in_angstroms,
        is_claimed=claim.is_claimed,
        crosses_before_nyquist=claim.crosses,
        statement=claim.sentence,
    )


def _masked_quarters(shells: Shells, quarter_maps: tuple[Pair, Pair] | None, mask: Map) -> Transforms | None:
    if quarter_maps is None:
        return None
    (a1, b1), (a2, b2) = (
        (masked_transform(shells, a, mask), masked_transform(shells, b, mask)) for a, b in quarter_maps
    )
    return (a1, b1), (a2, b2)


def _shares_noise(shells: Shells, quarters: Transforms | None, bands: Bands, half_fsc: Floats, n_band: Floats) -> bool:
    if quarters is None:
        return False
    fscs = []
    for a, b in quarters:
        fscs.append(
            correlation(bands.sum(shells.cross_power(a, b)), bands.sum(shells.power(a)), bands.sum(shells.power(b)))
        )
    return shares_noise(half_fsc, np.mean(fscs, axis=0), n_band)


def correlation_of_the_mean(half_map_fsc: Floats) -> Floats:
    """Correlation with the truth of the mean of two half maps without bias: sqrt(2 FSC / (1 + FSC)), 0 below 0."""
    fsc = np.clip(half_map_fsc, 0, 1)
    return np.asarray(np.sqrt(2 * fsc / (1 + fsc)))


def _resampled(
    halves: MaskedHalves,
    quarters: Transforms | None,
    mask: Map,
    bands: Bands,
    powers: BandPowers,
    symmetry_order: int,
) -> Floats:
    """Standard error of ln C_full from the quarter sets, [bands]."""
    if quarters is None:
        return np.full(len(bands.first), np.nan)
    d1, d2 = ((a - b) / 2 for a, b in quarters)
    measures = BandMeasures(bands.first, bands.last, powers.cross, powers.signal, powers.beta)
    return resampled_error(halves.shells, halves.gaussian, halves.model_free, (d1, d2), mask, measures, symmetry_order)


def _randomised(
    halves: MaskedHalves, random_maps: Pair, mask: Map, bands: Bands, powers: BandPowers, from_shell: int | None
) -> tuple[Floats, Floats]:
    """C_full with X from model-free maps whose phases are random, and the error that it has by chance, [bands].

    P stays that of the data, since the random maps have none. Var X is that of unrelated maps: the mean over both
    halves of sum |G|^2 sum |R|^2 / 4n.
    """
    value, error = (np.full(len(bands.first), np.nan) for _ in range(2))
    used = (powers.signal > 0) & (powers.combined > 0) & (bands.first >= (from_shell or np.inf))
    if not used.any():
        return value, error
    shells, (g1, g2) = halves.shells, halves.gaussian
    r1, r2 = (masked_transform(shells, volume, mask) for volume in random_maps)
    cross = bands.sum((shells.cross_power(g1, r2) + shells.cross_power(g2, r1)) / 2)[used]
    signal, combined = powers.signal[used], powers.combined[used]
    value[used] = cross / np.sqrt(signal * combined)
    random = bands.sum((shells.power(r1) + shells.power(r2)) / 2)[used]
    chance = powers.half[used] * random / (4 * powers.n_independent[used])
    error[used] = np.sqrt(chance / (signal * combined))
    return value, error


def _has_signal_under(shells: Shells, sphere: Map, model_free_maps: Pair, last_shell: int, symmetry_order: int) -> bool:
    v1, v2 = (masked_transform(shells, volume, sphere) for volume in model_free_maps)
    n_shell = shells.n_coefficients / 2 * masks.independent_fraction(sphere) / symmetry_order
    bands = lay_out_bands(n_shell, last_shell)
    fsc = correlation(bands.sum(shells.cross_power(v1, v2)), bands.sum(shells.power(v1)), bands.sum(shells.power(v2)))
    return bool(fsc[0] > SIGNIFICANCE / np.sqrt(bands.sum(n_shell)[0]))


def _filter_weight(c: Floats, bands: Bands, last_shell: int) -> Floats:
    """C_full over the shells: linear between band centres, 1 at the origin, 0 beyond the last band used."""
    used = int((c > 0).sum()) if (c > 0).any() else 1  # nothing measurable: only the first band, as it is
    values = np.where(c[:used] > 0, c[:used], 1.0)
    centres = bands.centre[:used]
    end = bands.last[used - 1] + 0.5
    width = float(bands.last[used - 1] - bands.first[used - 1] + 1) / 2
    knots = np.concatenate([[0.0], centres, [end, end + width]])
    heights = np.concatenate([[1.0], values, [values[-1], 0.0]])
    return np.asarray(np.interp(np.arange(last_shell + 1), knots, heights))
