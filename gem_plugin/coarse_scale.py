"""Makes the coarse density of fitted Gaussians that of the data, where the steps of a fit were too few for it.

All shells' residuals move a Gaussian at once, and those of the few coarse shells, which say how much density there is
in one region and in another, move it least. One multiplication of the amplitudes by the ratio of the two coarse maps at
the Gaussians' centres (a step of Richardson, J. Opt. Soc. Am. 62, 55, 1972) does most of what is left.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from gem_plugin.fsc import Shells
from gem_plugin.gaussians.model import Gaussians

Map = NDArray[np.floating[Any]]

CERTAIN_FSC = 0.7  # of the quarter maps: shells up to the first below it are the coarse ones
LARGEST_FACTOR = 1.4


def to_coarse_density(
    gaussians: Gaussians, drawn: Map, model_free: Map, quarter_fsc: NDArray[np.float64], weight: float
) -> Gaussians:
    """Scale each amplitude by (coarse model-free map / coarse map of the Gaussians)^weight at its centre.

    Parameters
    ----------
    drawn : the map of the Gaussians, [n, n, n]
    model_free : of the same half, in the same greyscale
    quarter_fsc : of the half's two quarter maps, [n // 2 + 1]
    weight : 0 (nothing happens) to 1
    """
    if weight <= 0:
        return gaussians
    shells = Shells(drawn.shape[0])
    uncertain = np.flatnonzero(quarter_fsc[1:] < CERTAIN_FSC)
    width = max(int(uncertain[0]) if len(uncertain) else shells.last, 2)
    low_pass = 0.5 ** ((np.arange(shells.last + 1) / width) ** 2)
    places = (gaussians.centres_px[:, ::-1] + drawn.shape[0] // 2).T
    wanted, found = (
        map_coordinates(shells.filter(volume, low_pass), places, order=1, mode="nearest")
        for volume in (model_free, drawn)
    )
    ratio = np.clip(wanted / np.maximum(found, 1e-3 * found.max()), 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return replace(gaussians, amplitudes=(gaussians.amplitudes * ratio**weight).astype(np.float32))
