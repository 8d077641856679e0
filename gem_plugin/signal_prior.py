"""How strong the particle's Fourier coefficients are expected to be: a prior on the map that a half's fit draws.

The half's own quarter maps say which share of each shell's power is signal. Coefficients of mean 0 with that power add
|v_k|^2 / (2 tau_k^2) to the negative log-likelihood (the regularised likelihood of Scheres, J. Mol. Biol. 415, 406,
2012): the shells where the noise is the stronger are not fitted to the noise.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.gaussians.start import Start
from gem_plugin.normal_equations import NormalEquations, axis_frequencies

STRENGTH = 0.3  # of the prior: the particle's coefficients are not independent, and at full strength detail is lost
LEAST_FSC = 0.005  # of the quarter maps: a shell without signal is not forbidden, only held back


def prior_weight(equations: NormalEquations, start: Start, last_shell: int) -> NDArray[np.float64]:
    """STRENGTH / tau^2 of each shell, in the units of T, [last_shell + 1].

    Where the half's data have the weight w (T's diagonal) and its map the signal-to-noise ratio s = 2 q / (1 - q), of
    the quarter maps' correlation q over the whole box, the box's mean signal power is s / w. All of it is in the share
    of the box that the particle fills, and there the power is higher by that share: tau^2 = s / (w share).

    Parameters
    ----------
    equations : of the whole half, [n, n, n]
    last_shell : last shell that holds data
    """
    n = equations.box_size_px
    shell = conventions.shell_indices(n).ravel()
    weight = np.bincount(shell, weights=equations.sampling_weight().ravel()) / np.bincount(shell)
    q = np.clip(start.quarter_fsc[: last_shell + 1], LEAST_FSC, 1 - LEAST_FSC)
    share = start.occupied_voxels / start.density.size
    return np.asarray(STRENGTH * weight[: last_shell + 1] * share * (1 - q) / (2 * q))


def with_prior(equations: NormalEquations, weight: NDArray[np.floating[Any]], voxels_of_extent: int) -> NormalEquations:
    """The same likelihood with |v_k|^2 weight_k / 2 added.

    Parameters
    ----------
    equations : windowed or not; voxels as large as those of the grid on which the weight was found
    weight : 1 / tau^2 of each shell of the whole box; the last holds beyond it
    voxels_of_extent : voxels of the equations' size on an axis of the whole box
    """
    scale = voxels_of_extent / (2 * equations.box_size_px)  # cycles of the whole box in one of the doubled window
    across = axis_frequencies(equations.box_size_px, equations.band) * scale
    along = np.arange(equations.band + 1) * scale
    z, y, x = np.ix_(across**2, across**2, along**2)
    shell = np.sqrt((z + y + x).astype(np.float32))
    added = np.interp(shell, np.arange(len(weight)), weight)
    return replace(equations, spectrum=equations.spectrum + added.astype(np.float32))
