"""Products of the four maps, band by band, summed in sliding windows.

The maps are filtered to each band of Fourier shells and multiplied in real space. Summed over the whole box such a
product is the band's power, exactly; summed in a window it is that power in one place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.honest import Bands, MaskedHalves
from gem_plugin.windows import SlidingWindows

Map = NDArray[np.floating[Any]]
Samples = NDArray[np.float64]


@dataclass(frozen=True)
class LocalPowers:
    """Window sums of products, [bands, m, m, m], with n = (v1 - v2) / 2."""

    g11: Samples
    g22: Samples
    g12: Samples
    cross: Samples  # (g1 v2 + g2 v1) / 2
    g1n: Samples
    g2n: Samples
    signal: Samples  # v1 v2
    nn: Samples

    @property
    def combined(self) -> Samples:
        """Power of the mean of both Gaussian maps."""
        return (self.g11 + 2 * self.g12 + self.g22) / 4

    @property
    def half(self) -> Samples:
        """Mean power of the two Gaussian maps."""
        return (self.g11 + self.g22) / 2


class BandFilter:
    """Maps from a transform, one band of Fourier shells after the other.

    Parameters
    ----------
    box_size_px : n
    n_threads : of the FFTs
    """

    def __init__(self, box_size_px: int, n_threads: int) -> None:
        self._shape = (box_size_px,) * 3
        self._n_threads = n_threads
        self._shell = np.minimum(conventions.shell_indices(box_size_px), box_size_px // 2 + 1).astype(np.int16)

    def transform(self, volume: Map) -> NDArray[np.complex64]:
        """``rfftn`` in single precision."""
        return np.asarray(fft.rfftn(np.asarray(volume, dtype=np.float32), workers=self._n_threads))

    def __call__(self, transform: NDArray[np.complexfloating[Any, Any]], weight: NDArray[np.float64]) -> Map:
        """The map of a transform multiplied by a weight a shell [n // 2 + 1]; the corners beyond go, [n, n, n]."""
        response = np.append(weight, 0.0).astype(np.float32)[self._shell]
        return np.asarray(fft.irfftn(transform * response, s=self._shape, workers=self._n_threads), dtype=np.float32)


def local_powers(halves: MaskedHalves, bands: Bands, windows: SlidingWindows, n_threads: int) -> LocalPowers:
    """Sum the products of four maps under one mask in every window and band."""
    band_filter = BandFilter(windows.box_size_px, n_threads)
    transforms = [t.astype(np.complex64) for t in (*halves.gaussian, *halves.model_free)]
    shells = np.arange(halves.shells.last + 1)
    sums: list[list[Samples]] = []
    for first, last in zip(bands.first, bands.last, strict=True):
        weight = ((shells >= first) & (shells <= last)).astype(np.float64)
        g1, g2, v1, v2 = (band_filter(transform, weight) for transform in transforms)
        n = (v1 - v2) / 2
        products = (g1 * g1, g2 * g2, g1 * g2, (g1 * v2 + g2 * v1) / 2, g1 * n, g2 * n, v1 * v2, n * n)
        sums.append([windows.sum(product) for product in products])
    return LocalPowers(*(np.stack(field) for field in zip(*sums, strict=True)))
