"""Fourier shell sums and correlations of maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.shell_sums import Transform, sum_over_shells, weigh_shells

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

MOST_PRUNED = 0.9  # of the shells: with more, skipping the empty lines of a transform costs more than it spares


class Shells:
    """Sums over the Fourier shells 0 ... n // 2 of a cubic box, each conjugate pair counted twice.

    Parameters
    ----------
    box_size_px : n
    n_threads : of the FFTs
    """

    def __init__(self, box_size_px: int, n_threads: int = 1) -> None:
        self.box_size_px = box_size_px
        self.last = box_size_px // 2
        self.n_threads = n_threads
        self.index = conventions.shell_indices(box_size_px).astype(np.int16)  # [n, n, n // 2 + 1], corners and all
        counted = np.bincount(self.index.ravel())
        ends = np.bincount(self.index[..., [0, -1]].ravel(), minlength=len(counted))
        self.n_coefficients = (2.0 * counted - ends)[: self.last + 1]  # [shells] all points, both members of each pair

    def transform(self, volume: Map) -> Transform:
        """``rfftn`` of a map in its own precision; only products of transforms of maps of one box are meaningful."""
        return np.asarray(fft.rfftn(volume, workers=self.n_threads))

    def cross_power(self, first: Transform, second: Transform) -> Floats:
        """Sum over each shell of Re(first second*), [shells]."""
        sums = np.zeros(self.last + 1)
        sum_over_shells(self.index, first, second, 2, sums)
        return sums

    def power(self, transform: Transform) -> Floats:
        """Sum over each shell of |transform|^2, [shells]."""
        return self.cross_power(transform, transform)

    def weighted(self, transform: Transform, weight: Floats) -> Transform:
        """Each shell of a transform multiplied by `weight` [shells]; the corners beyond the last shell go."""
        weighted = np.empty_like(transform)
        weigh_shells(self.index, transform, weight.astype(transform.real.dtype), weighted)
        return weighted

    def map_of(self, transform: Transform, weight: Floats) -> Map:
        """The map of a transform whose shells are multiplied by `weight` [shells], [n, n, n]."""
        n = self.box_size_px
        weighted = self.weighted(transform, weight)
        last = int(np.flatnonzero(weight)[-1]) if weight.any() else 0
        if last > MOST_PRUNED * self.last:
            return np.asarray(fft.irfftn(weighted, s=(n, n, n), workers=self.n_threads))
        rows = np.r_[0 : last + 1, n - last : n]  # the lines along z and y that hold more than zeros
        planes = np.zeros((n, n, last + 1), dtype=transform.dtype)
        planes[:, rows] = fft.ifft(weighted[:, rows, : last + 1], axis=0, overwrite_x=True, workers=self.n_threads)
        planes = fft.ifft(planes, axis=1, overwrite_x=True, workers=self.n_threads)
        return np.asarray(fft.irfft(planes, n, axis=2, overwrite_x=True, workers=self.n_threads))

    def filter(self, volume: Map, weight: Floats) -> Map:
        """Multiply each shell of a map's transform by `weight` [shells]; the corners beyond the last shell go."""
        return self.map_of(self.transform(volume), weight).astype(np.float32, copy=False)


def correlation(cross: Floats, first_power: Floats, second_power: Floats) -> Floats:
    """Cross / sqrt(first_power second_power), 0 where there is no power."""
    scale = np.sqrt(first_power * second_power)
    return np.asarray(np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0))


def fourier_shell_correlation(first: Map, second: Map) -> Floats:
    """Fourier shell correlation of two maps of one box, [n // 2 + 1]."""
    shells = Shells(first.shape[0])
    a, b = shells.transform(first), shells.transform(second)
    return correlation(shells.cross_power(a, b), shells.power(a), shells.power(b))


def shell_resolutions_in_angstroms(box_size_px: int, pixel_size_in_angstroms: float) -> Floats:
    """Resolution of each shell, [n // 2 + 1]; infinite at shell 0."""
    shells = np.arange(box_size_px // 2 + 1)
    edge = box_size_px * pixel_size_in_angstroms
    return np.asarray(np.divide(edge, shells, out=np.full(len(shells), np.inf), where=shells > 0))
