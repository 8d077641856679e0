"""The resolution that is stated: Gaussian maps judged by the other half's model-free map.

Two Gaussian half maps share the bias of the model (positive, smooth blobs), and shared bias correlates, so their own
Fourier shell correlation is too good to be true. But the bias of one half's Gaussians cannot correlate with the noise
of the other half's model-free map, which is linear in that half's images. With G1, G2 the Gaussian maps, V1, V2 the
model-free maps, F = (G1 + G2) / 2 and sums over a band of shells under one mask

    X = sum Re (G1 V2* + G2 V1*) / 2,   P = sum Re V1 V2*,   Q = sum |F|^2,   C_full = X / sqrt(P Q)

estimates the correlation of F with the truth (docs/method.md). C_full = 0.5 is what a half-map FSC of 0.143 means for
an unbiased map (Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import masks
from gem_plugin.fsc import Shells, correlation, shell_resolutions_in_angstroms
from gem_plugin.reconstruction import ResolutionCurve

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

THRESHOLD = 0.5
LEAST_INDEPENDENT = 40.0  # coefficients in a band
SIGNIFICANCE = 3.0
WIDEST_SHARE = 0.5  # of the shells that hold data: the strong low shells of a wider band would speak for its weak ones
NO_CLAIM = "no resolution is claimed"


@dataclass(frozen=True)
class Bands:
    """Runs of Fourier shells over which powers are summed."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]  # inclusive

    def sum(self, per_shell: Floats) -> Floats:
        """Sum a curve over each band, [bands]."""
        return np.array([per_shell[a : b + 1].sum() for a, b in zip(self.first, self.last, strict=True)])

    @property
    def centre(self) -> Floats:
        """Shell at the middle of each band, [bands]."""
        return np.asarray((self.first + self.last) / 2)


def lay_out_bands(n_independent: Floats, last_shell: int) -> Bands:
    """Bands from shell 1 to `last_shell`, about a fourteenth of the box wide, wider where data are few.

    Parameters
    ----------
    n_independent : [shells] independent coefficients of each shell
    """
    width = max(4, round(2 * last_shell / 14))
    first, last = [], []
    start = 1
    while start <= last_shell:
        end = min(start + width - 1, last_shell)
        while n_independent[start : end + 1].sum() < LEAST_INDEPENDENT and end < last_shell:
            end += 1
        if last_shell - end < width // 2:  # no narrow band at the end
            end = last_shell
        first.append(start)
        last.append(end)
        start = end + 1
    return Bands(np.array(first, dtype=np.int64), np.array(last, dtype=np.int64))


@dataclass(frozen=True)
class MaskedHalves:
    """Transforms of the four maps under one mask, each map's mean outside the mask subtracted first."""

    shells: Shells
    gaussian: tuple[NDArray[np.complex128], NDArray[np.complex128]]
    model_free: tuple[NDArray[np.complex128], NDArray[np.complex128]]


def masked_transform(shells: Shells, volume: Map, mask: Map) -> NDArray[np.complex128]:
    """Transform of a map under a mask, its mean outside subtracted so that the mask's shape does not show."""
    outside = 1 - mask.astype(np.float64)
    level = (volume * outside).sum() / outside.sum() if outside.sum() > 0 else 0.0
    return shells.transform((volume - level) * mask)


def mask_halves(gaussian_maps: tuple[Map, Map], model_free_maps: tuple[Map, Map], mask: Map) -> MaskedHalves:
    """Bring four maps under one mask."""
    shells = Shells(mask.shape[0])
    g1, g2, v1, v2 = (masked_transform(shells, volume, mask) for volume in (*gaussian_maps, *model_free_maps))
    return MaskedHalves(shells, (g1, g2), (v1, v2))


@dataclass(frozen=True)
class BandPowers:
    """What C_full and its error bar are made of: sums over each band, [bands]."""

    cross: Floats  # X, Gaussian maps with the other half's model-free map
    own: Floats  # the same with their own half's model-free map: more, by the noise that was fitted
    signal: Floats  # P
    noise: Floats  # of one model-free half
    combined: Floats  # Q
    half: Floats  # mean of sum |G1|^2 and sum |G2|^2
    n_independent: Floats


def band_powers(halves: MaskedHalves, bands: Bands, n_independent: Floats) -> BandPowers:
    """Sum the powers of four maps under one mask over bands."""
    shells = halves.shells
    (g1, g2), (v1, v2) = halves.gaussian, halves.model_free
    signal = bands.sum(shells.cross_power(v1, v2))
    return BandPowers(
        cross=bands.sum((shells.cross_power(g1, v2) + shells.cross_power(g2, v1)) / 2),
        own=bands.sum((shells.cross_power(g1, v1) + shells.cross_power(g2, v2)) / 2),
        signal=signal,
        noise=bands.sum((shells.power(v1) + shells.power(v2)) / 2) - signal,
        combined=bands.sum(shells.power((g1 + g2) / 2)),
        half=bands.sum((shells.power(g1) + shells.power(g2)) / 2),
        n_independent=n_independent,
    )


def cross_validated_correlation(powers: BandPowers) -> tuple[Floats, Floats]:
    """C_full and its standard error, [bands]; nan where there is no signal.

    Write V_i = S + N_i and G_i = c S + alpha N_i + the rest. To first order the error of ln C_full is

        <rest, N1 + N2> / 2X + (alpha / c - 1/2) <N1, N2> / P,

    because what G and V share of S and N cancels. With x = noise / signal, beta = alpha / c measured as
    (own - cross) P / (noise X), and the rest's power from that of the halves,

        Var(ln C) = (x / 4 (half / (Q C^2) - 1 - beta^2 x) + x^2 / 2 (beta - 1/2)^2) / n.
    """
    c, error = np.full(len(powers.cross), np.nan), np.full(len(powers.cross), np.nan)
    used = (powers.signal > 0) & (powers.combined > 0) & (powers.cross != 0)
    cross, signal, combined = powers.cross[used], powers.signal[used], powers.combined[used]
    noise = np.maximum(powers.noise[used], 1e-12 * signal)
    c[used] = cross / np.sqrt(signal * combined)
    x = noise / signal
    beta = np.clip((powers.own[used] - cross) * signal / (noise * cross), 0, 2)
    rest = np.maximum(powers.half[used] * signal / cross**2 - 1 - beta**2 * x, 0)
    variance = (x / 4 * rest + x**2 / 2 * (beta - 0.5) ** 2) / powers.n_independent[used]
    error[used] = np.abs(c[used]) * np.sqrt(variance)
    return c, error


def resolution_curve(
    gaussian_maps: tuple[Map, Map],
    model_free_maps: tuple[Map, Map],
    mask: Map,
    sphere: Map,
    pixel_size_in_angstroms: float,
    *,
    last_shell: int,
    half_sets_are_refined: bool,
    symmetry_order: int = 1,
) -> ResolutionCurve:
    """The honest curve, its error bar and the one resolution that may be stated.

    Parameters
    ----------
    mask : [n, n, n] soft mask under which all is measured
    sphere : [n, n, n] the particle sphere, which no data shaped: a claim needs a signal under it too, because a mask
        drawn round noise makes the lowest shells of any two maps correlate
    last_shell : last shell that holds data
    half_sets_are_refined : False when the poses were not refined in separate halves
    symmetry_order : of the group over which all maps were averaged: so many coefficients are copies of each other
    """
    halves = mask_halves(gaussian_maps, model_free_maps, mask)
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
    if not _has_signal_under(sphere, model_free_maps, last_shell, symmetry_order):
        measurable[:] = False
    resolution_of_shell = shell_resolutions_in_angstroms(shells.box_size_px, pixel_size_in_angstroms)
    edge = shells.box_size_px * pixel_size_in_angstroms
    lower = np.where(measurable, c - error, 0.0)
    crossing, crosses = _crossing_shell(lower, bands, measurable)
    ends = crosses and not measurable[int(np.argmax(lower < THRESHOLD))]
    is_coarse = bool(bands.last[0] > WIDEST_SHARE * last_shell)
    statement, resolution = _statement(crossing, crosses, ends, is_coarse, edge, half_sets_are_refined)
    return ResolutionCurve(
        first_shell=bands.first,
        last_shell=bands.last,
        band_resolution_in_angstroms=edge / bands.centre,
        c_full=np.where(measurable, c, np.nan),
        c_full_standard_error=np.where(measurable, error, np.nan),
        band_model_free_fsc=model_free_fsc,
        n_independent=n_band,
        is_measurable=measurable,
        shell_resolution_in_angstroms=resolution_of_shell,
        plain_half_map_fsc=correlation(shells.cross_power(g1, g2), shells.power(g1), shells.power(g2)),
        model_free_fsc=correlation(p12, p11, p22),
        filter_weight=_filter_weight(np.where(measurable, np.clip(c, 0, 1), 0.0), bands, shells.last),
        resolution_in_angstroms=resolution,
        crosses_before_nyquist=crosses,
        statement=statement,
    )


def _has_signal_under(sphere: Map, model_free_maps: tuple[Map, Map], last_shell: int, symmetry_order: int) -> bool:
    shells = Shells(sphere.shape[0])
    v1, v2 = (masked_transform(shells, volume, sphere) for volume in model_free_maps)
    n_shell = shells.n_coefficients / 2 * masks.independent_fraction(sphere) / symmetry_order
    bands = lay_out_bands(n_shell, last_shell)
    fsc = correlation(bands.sum(shells.cross_power(v1, v2)), bands.sum(shells.power(v1)), bands.sum(shells.power(v2)))
    return bool(fsc[0] > SIGNIFICANCE / np.sqrt(bands.sum(n_shell)[0]))


def _crossing_shell(lower: Floats, bands: Bands, measurable: NDArray[np.bool_]) -> tuple[float | None, bool]:
    """Where the curve crosses the threshold: (shell, True), (last shell, False) or (None, False) if never above."""
    below = np.flatnonzero(lower < THRESHOLD)
    if len(below) == 0:
        return float(bands.last[-1]), False
    band = below[0]
    if band == 0:
        return None, False
    left, right = bands.centre[band - 1], bands.centre[band]
    drop = lower[band - 1] - lower[band]
    return float(left + (right - left) * (lower[band - 1] - THRESHOLD) / drop), True


def _statement(
    crossing: float | None,
    crosses: bool,
    ends: bool,
    is_coarse: bool,
    edge_in_angstroms: float,
    half_sets_are_refined: bool,
) -> tuple[str, float | None]:
    if not half_sets_are_refined:
        return f"{NO_CLAIM}: the poses were not refined in separate halves (no rlnRandomSubset)", None
    if is_coarse:
        return (
            f"{NO_CLAIM}: under this mask and symmetry there are too few independent Fourier coefficients to tell one"
            " resolution from another",
            None,
        )
    if crossing is None:
        return f"{NO_CLAIM}: the half sets' model-free maps do not agree beyond chance, or the map not with them", None
    resolution = edge_in_angstroms / crossing
    if not crosses:
        return (
            f"Resolution: {resolution:.2f} Angstrom, where the data end: the cross-validated correlation does not"
            f" cross {THRESHOLD} before",
            resolution,
        )
    measure = "cross-validated correlation with the truth, less one standard error"
    if ends:
        return (
            f"Resolution: {resolution:.2f} Angstrom (the {measure}, is above {THRESHOLD} up to there; beyond, the half"
            " sets' model-free maps agree too little to measure it)",
            resolution,
        )
    return f"Resolution: {resolution:.2f} Angstrom (the {measure}, crosses {THRESHOLD})", resolution


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
