"""The error bar of C_full a second time, from the noise that the data show rather than from a count of coefficients.

A half's two quarter sets A and B give model-free maps with independent noise, so D = (A - B) / 2 is noise of the same
law as that of the half's own map, and independent of it and of everything that was fitted to the half as a whole. The
error of C_full is, to first order (`gem_plugin.honest`),

    <rest, N1 + N2> / 2X + (beta - 1/2) <N1, N2> / P.

Here N is replaced by D. The sums over a band are taken in blocks of Fourier coefficients, wider than the distance over
which the mask ties coefficients together; flipping the sign of D at random in each block leaves its law as it is, and
the variance over all flips is the sum of the blocks' squares. So neither the number of independent coefficients nor
the assumption that noise is even over a band enters.

The rest itself is not known, but G - c V = rest + (alpha - c) N is, with the half's own noise N; what N adds is taken
off, with the same beta = alpha / c as in theory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.fsc import Shells
from gem_plugin.shell_sums import Transform

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BLOCK_EDGE = 3.0  # in distances over which a mask ties coefficients together
N_GRIDS = 4  # of blocks, displaced: no coefficient is at a block's edge in all of them


@dataclass(frozen=True)
class BandMeasures:
    """What theory has measured in each band, [bands]; see `gem_plugin.honest.BandPowers`."""

    first_shell: Integers
    last_shell: Integers
    cross: Floats  # X
    signal: Floats  # P
    beta: Floats  # share of the model-free noise that the Gaussians fitted, over the share of the signal


def resampled_error(
    shells: Shells,
    gaussian: tuple[Transform, Transform],
    model_free: tuple[Transform, Transform],
    differences: tuple[Transform, Transform],
    mask: Map,
    measures: BandMeasures,
    symmetry_order: int = 1,
) -> Floats:
    """Standard error of ln C_full in each band, [bands]; nan where there is no signal.

    Parameters
    ----------
    gaussian, model_free, differences : transforms under the mask of G, V and half of A - B, of both halves
    symmetry_order : of the group over which all maps were averaged: coefficients of one orbit are copies
    """
    (g1, g2), (v1, v2), (d1, d2) = gaussian, model_free, differences
    used = (measures.signal > 0) & (measures.cross != 0)
    x, p = np.where(used, measures.cross, 1.0), np.where(used, measures.signal, 1.0)
    c = x / p
    weight = np.zeros(shells.last + 1)
    for band, (first, last) in enumerate(zip(measures.first_shell, measures.last_shell, strict=True)):
        weight[first : last + 1] = c[band]
    rest1, rest2, apart = g1 - shells.weighted(v1, weight), g2 - shells.weighted(v2, weight), v1 - v2
    pairs = [(rest1, d1), (rest1, d2), (rest2, d1), (rest2, d2), (d1, d2), (apart, d1), (apart, d2)]
    variance = _flip_variances(shells, pairs, measures, mask) * symmetry_order
    noise = (variance[4] + (variance[5] + variance[6]) / 2) / 3  # of <N, N'>
    rest = variance[:4].mean(axis=0) - (c * (measures.beta - 1)) ** 2 * noise
    total = 2 * np.maximum(rest, 0) / (2 * x) ** 2 + ((measures.beta - 0.5) / p) ** 2 * noise
    return np.asarray(np.where(used, np.sqrt(total), np.nan))


def _flip_variances(
    shells: Shells, pairs: list[tuple[Transform, Transform]], measures: BandMeasures, mask: Map
) -> Floats:
    """Variance over sign flips, block by block, of sum Re(first second*) of each pair and band, [pairs, bands]."""
    n = shells.box_size_px
    band_of_shell = np.full(shells.last + 2, -1)
    for band, (first, last) in enumerate(zip(measures.first_shell, measures.last_shell, strict=True)):
        band_of_shell[first : last + 1] = band
    band_of_each = band_of_shell[np.minimum(shells.index.ravel(), shells.last + 1)]
    used = np.flatnonzero(band_of_each >= 0)
    band_of = band_of_each[used]
    frequencies = np.stack(np.unravel_index(used, (n, n, n // 2 + 1))).astype(np.int32)
    frequencies[:2] -= n * (frequencies[:2] > n // 2)
    z, y, x = frequencies
    mirrored = (x == 0) & ((y < 0) | ((y == 0) & (z < 0)))
    frequencies[:, mirrored] *= -1  # a conjugate pair lies in one block
    edge, lost = _block_edge(mask)
    grids = [_blocks(frequencies, edge, grid) for grid in range(N_GRIDS)]
    grids = [((band_of * per_band + blocks).astype(np.int32), per_band) for blocks, per_band in grids]
    multiplicity = np.where((x == 0) | (x == n // 2), 1, 2)
    result = np.zeros((len(pairs), len(measures.first_shell)))
    for row, (first, second) in enumerate(pairs):
        values = (first.real * second.real + first.imag * second.imag).ravel()[used] * multiplicity
        for blocks, per_band in grids:
            size = len(measures.first_shell) * per_band
            sums = np.bincount(blocks, weights=values, minlength=size).reshape(-1, per_band)
            result[row] += (sums**2).sum(axis=1)
    return result * lost / N_GRIDS


def _blocks(frequencies: NDArray[np.int32], edge: int, grid: int) -> tuple[Integers, int]:
    """The block of each coefficient [coefficients] in one of the displaced grids, and the number of blocks."""
    offset = np.array([edge * ((grid * step) % N_GRIDS) // N_GRIDS for step in (1, 3, 2)], dtype=np.int32)
    block = (frequencies + offset[:, None]) // np.int32(edge)
    block -= block.min(axis=1, keepdims=True)
    shape = tuple(int(last) + 1 for last in block.max(axis=1))
    return np.asarray(np.ravel_multi_index(tuple(block), shape)), int(np.prod(shape))


def _block_edge(mask: Map) -> tuple[int, float]:
    """Coefficients along a block's edge, and the factor that makes up for ties across the blocks' borders.

    Under a mask m the products of noise at two frequencies a distance d apart are tied by |transform of m^2|^2 at d.
    """
    n = mask.shape[0]
    tie = np.abs(fft.rfftn(mask.astype(np.float64) ** 2)) ** 2
    tie[..., 1:-1] *= 2
    edge = max(int(np.ceil(BLOCK_EDGE * (tie.sum() / tie[0, 0, 0]) ** (1 / 3))), 2)
    distance = np.minimum(np.arange(n), n - np.arange(n))
    within = np.maximum(1 - distance / edge, 0)  # share of the pairs at a distance that lie in one block
    kept = np.einsum("ijk,i,j,k->", tie, within, within, within[: n // 2 + 1], optimize=True)
    return edge, float(tie.sum() / kept)
