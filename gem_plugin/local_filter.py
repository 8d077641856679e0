"""A filter that changes from place to place: maps of overlapping bands, each weighted by its local curve."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.fsc import Shells
from gem_plugin.honest import Bands
from gem_plugin.local_curve import LocalCurve
from gem_plugin.reconstruction import ResolutionCurve

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


def overlapping_bands(bands: Bands, n_shells: int) -> Floats:
    """Triangles from each band's centre to its neighbours', [bands, shells].

    A curve that is linear between centres is a sum of them. The first and last band reach to the ends, so that the
    triangles add up to 1 in every shell.
    """
    shells = np.arange(n_shells)
    return np.stack([np.interp(shells, bands.centre, row) for row in np.eye(len(bands.first))])


def filter_locally(mean: Map, local: LocalCurve, curve: ResolutionCurve, n_threads: int) -> Map:
    """Filter a map by the honest curve as it is in each place, [n, n, n].

    Where the local curve is the global one this is the combined map.
    """
    shells = Shells(mean.shape[0], n_threads)
    transform = shells.transform(mean.astype(np.float32, copy=False))
    filtered = np.zeros(mean.shape, dtype=np.float32)
    for triangle, ratio in zip(overlapping_bands(local.bands, len(curve.filter_weight)), local.ratio, strict=True):
        if (curve.filter_weight[triangle > 0] > 0).any():
            band = shells.map_of(transform, triangle * curve.filter_weight)
            filtered += np.multiply(local.windows.at_voxels(ratio), band, out=band)
    return filtered
