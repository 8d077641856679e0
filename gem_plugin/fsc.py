"""Fourier shell sums and correlations of maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


class Shells:
    """Sums over the Fourier shells 0 ... n // 2 of a cubic box, each conjugate pair counted twice."""

    def __init__(self, box_size_px: int) -> None:
        self.box_size_px = box_size_px
        self.last = box_size_px // 2
        shell = conventions.shell_indices(box_size_px)
        self.shell = np.minimum(shell, self.last + 1).ravel()  # of each element of a flattened ``rfftn``
        twice = np.full(shell.shape, 2.0)
        twice[..., 0] = 1
        twice[..., -1] = 1
        self.multiplicity = twice.ravel()  # how many Fourier coefficients the element stands for
        self.n_coefficients = self._sum(np.ones(shell.shape))  # [shells] all points, both members of each pair

    def _sum(self, values: Floats) -> Floats:
        weighted = values.ravel() * self.multiplicity
        return np.asarray(
            np.bincount(self.shell, weights=weighted, minlength=self.last + 2)[: self.last + 1], dtype=np.float64
        )

    def transform(self, volume: Map) -> NDArray[np.complex128]:
        """``rfftn`` of a map; only products of transforms of maps of one box are meaningful."""
        return np.asarray(fft.rfftn(np.asarray(volume, dtype=np.float64)))

    def cross_power(self, first: NDArray[np.complex128], second: NDArray[np.complex128]) -> Floats:
        """Sum over each shell of Re(first second*), [shells]."""
        return self._sum(first.real * second.real + first.imag * second.imag)

    def power(self, transform: NDArray[np.complex128]) -> Floats:
        """Sum over each shell of |transform|^2, [shells]."""
        return self.cross_power(transform, transform)

    def filter(self, volume: Map, weight: Floats) -> Map:
        """Multiply each shell of a map's transform by `weight` [shells]; the corners beyond the last shell go."""
        full = np.append(weight, 0.0)
        response = full[self.shell].reshape(self.box_size_px, self.box_size_px, -1)
        return np.asarray(fft.irfftn(fft.rfftn(volume) * response, s=volume.shape), dtype=np.float32)


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
