"""Soft masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gem_plugin.distance import distance_px
from gem_plugin.model_free import support_sphere

Map = NDArray[np.floating[Any]]

BLUR_PX = 2.0
THRESHOLD = 0.05  # of the blurred map's maximum
EXTEND_PX = 3.0
EDGE_PX = 5.0


def soft_mask(volume: Map, radius_px: float) -> Map:
    """A soft mask round the density of a map: blurred, thresholded, extended, with a cosine edge.

    Parameters
    ----------
    volume : [n, n, n], solvent near zero
    radius_px : the mask does not reach beyond this sphere's soft edge

    Returns
    -------
    [n, n, n], 0 to 1; the sphere itself where there is no density at all
    """
    sphere = support_sphere(volume.shape[0], radius_px)
    blurred = gaussian_filter(np.maximum(volume, 0), BLUR_PX)
    inside = blurred > THRESHOLD * blurred.max()
    if not inside.any():
        return sphere
    ramp = np.clip((distance_px(inside) - EXTEND_PX) / EDGE_PX, 0, 1)
    return np.asarray((0.5 + 0.5 * np.cos(np.pi * ramp)) * sphere, dtype=np.float32)


def independent_fraction(mask: Map) -> float:
    """Fraction of Fourier coefficients that stay independent under a mask: (sum m^2)^2 / (N sum m^4).

    White noise under the mask has power proportional to m^2, and the variance of a shell's sum of products goes
    with the sum of m^4.
    """
    square = np.square(mask, dtype=np.float64).ravel()
    return float(square.sum() ** 2 / (square.size * np.einsum("i,i->", square, square)))
