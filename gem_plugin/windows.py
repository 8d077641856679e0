"""Soft sliding windows: sums of products of maps round points of a coarse grid, and back to the voxels.

A window is a Gaussian, so it is a product of three windows along the axes, and its sums round all points of the coarse
grid are three matrix products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Map = NDArray[np.floating[Any]]
Samples = NDArray[np.float64]

HALF_HEIGHT = float(np.sqrt(2 * np.log(2)))  # radius at half height over standard deviation
SAMPLES_PER_SIGMA = 1.5


class SlidingWindows:
    """Gaussian windows of one radius round the points of a coarse grid of m points an axis.

    Parameters
    ----------
    box_size_px : n
    radius_px : radius at half height, > 0
    n_points : m; by default 1.5 in a standard deviation of the window
    """

    def __init__(self, box_size_px: int, radius_px: float, n_points: int | None = None) -> None:
        self.box_size_px = box_size_px
        self.radius_px = radius_px
        sigma = radius_px / HALF_HEIGHT
        voxels = np.arange(box_size_px)
        enough = max(int(np.ceil(box_size_px * SAMPLES_PER_SIGMA / sigma)), 2)
        points = np.linspace(0, box_size_px - 1, n_points or min(enough, box_size_px))
        self.n_points = len(points)
        self._spacing_px = float(points[1])
        weight = np.exp(-0.5 * ((points[:, None] - voxels) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
        self._gather = weight.astype(np.float32)  # [m, n]
        self._gather_square = (weight**2).astype(np.float32)
        nearest = np.eye(self.n_points)
        self._spread = np.stack([np.interp(voxels, points, row) for row in nearest], axis=1).astype(np.float32)

    @property
    def overlap(self) -> float:
        """How many points of the grid share one window's worth of voxels."""
        return float((np.sqrt(4 * np.pi) * self.radius_px / HALF_HEIGHT / self._spacing_px) ** 3)

    def sum(self, volume: Map) -> Samples:
        """Weighted sum of a map in every window, [m, m, m]; the weights of a window within the box sum to 1."""
        return _along_axes(volume, self._gather).astype(np.float64)

    def widen(self, sums: Samples, wider: "SlidingWindows") -> Samples:
        """Sums in wider windows round the same points, from those in these: a Gaussian of a Gaussian is a Gaussian."""
        extra = np.sqrt(wider.radius_px**2 - self.radius_px**2) / HALF_HEIGHT / self._spacing_px
        return np.asarray(gaussian_filter(sums, extra, mode="constant"))

    def independent_voxels(self, mask: Map) -> Samples:
        """How many voxels a window under a mask is worth, [m, m, m]: (sum w m^2)^2 / sum w^2 m^4.

        The weights act on products of maps, so they stand where `masks.independent_fraction` has m^2.
        """
        square = mask.astype(np.float32) ** 2
        total = _along_axes(square, self._gather).astype(np.float64)
        spread = _along_axes(square**2, self._gather_square).astype(np.float64)
        return np.asarray(np.divide(total**2, spread, out=np.zeros_like(total), where=spread > 1e-12 * spread.max()))

    def at_voxels(self, samples: NDArray[np.floating[Any]]) -> Map:
        """Interpolate values at the windows' centres linearly between them, [n, n, n]."""
        return _along_axes(samples, self._spread)


def _along_axes(volume: Map, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply each axis of a cube by a matrix [new, old]."""
    out = np.asarray(volume, dtype=np.float32)
    for _ in range(3):  # the axis that is contracted comes back as the last: after three rounds all are in place
        out = np.tensordot(out, matrix, axes=(0, 1))
    return np.asarray(out)
