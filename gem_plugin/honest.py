"""C_full: Gaussian maps judged by the other half's model-free map.

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

from gem_plugin.fsc import Shells
from gem_plugin.shell_sums import Transform

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

LEAST_INDEPENDENT = 40.0  # coefficients in a band
SIGNIFICANCE = 3.0


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
    gaussian: tuple[Transform, Transform]
    model_free: tuple[Transform, Transform]


def masked_transform(shells: Shells, volume: Map, mask: Map) -> Transform:
    """Transform of a map under a mask, its mean outside subtracted so that the mask's shape does not show."""
    inside = mask.sum(dtype=np.float64)
    outside = mask.size - inside
    density = volume.sum(dtype=np.float64) - np.einsum("i,i->", volume.ravel(), mask.ravel(), dtype=np.float64)
    level = float(density / outside) if outside > 0 else 0.0
    return shells.transform((volume - level) * mask)


def mask_halves(
    gaussian_maps: tuple[Map, Map], model_free_maps: tuple[Map, Map], mask: Map, n_threads: int = 1
) -> MaskedHalves:
    """Bring four maps under one mask."""
    shells = Shells(mask.shape[0], n_threads)
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

    @property
    def beta(self) -> Floats:
        """Share of a model-free map's noise that the Gaussians took over, relative to their share of the signal."""
        noise = np.maximum(self.noise, 1e-12 * np.abs(self.signal))
        excess = (self.own - self.cross) * self.signal
        scale = noise * self.cross
        return np.clip(np.divide(excess, scale, out=np.zeros_like(scale), where=scale != 0), 0, 2)


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
    beta = powers.beta[used]
    rest = np.maximum(powers.half[used] * signal / cross**2 - 1 - beta**2 * x, 0)
    variance = (x / 4 * rest + x**2 / 2 * (beta - 0.5) ** 2) / powers.n_independent[used]
    error[used] = np.abs(c[used]) * np.sqrt(variance)
    return c, error
