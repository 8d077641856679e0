"""Products of the four maps, band by band, summed in sliding windows.

The maps are filtered to each band of Fourier shells and multiplied in real space. Summed over the whole box such a
product is the band's power, exactly; summed in a window it is that power in one place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def local_powers(halves: MaskedHalves, bands: Bands, windows: SlidingWindows) -> LocalPowers:
    """Sum the products of four maps under one mask in every window and band."""
    shells = halves.shells
    transforms = [t.astype(np.complex64, copy=False) for t in (*halves.gaussian, *halves.model_free)]
    numbers = np.arange(shells.last + 1)
    first_product, second_product = (np.empty((shells.box_size_px,) * 3, dtype=np.float32) for _ in range(2))

    def windowed(a: Map, b: Map) -> Samples:
        return windows.sum(np.multiply(a, b, out=first_product))

    sums: list[list[Samples]] = []
    for first, last in zip(bands.first, bands.last, strict=True):
        weight = ((numbers >= first) & (numbers <= last)).astype(np.float64)
        g1, g2, v1, v2 = (shells.map_of(transform, weight) for transform in transforms)
        signal = windowed(v1, v2)
        np.multiply(g1, v2, out=first_product)
        first_product += np.multiply(g2, v1, out=second_product)
        cross = windows.sum(first_product) / 2
        v1 -= v2
        v1 /= 2
        own = [windowed(g1, g1), windowed(g2, g2), windowed(g1, g2)]
        sums.append([*own, cross, windowed(g1, v1), windowed(g2, v1), signal, windowed(v1, v1)])
    return LocalPowers(*(np.stack(field) for field in zip(*sums, strict=True)))
