"""How strong the particle's Fourier coefficients are: a prior on the map that a half's fit draws, and what it minds.

The half's own quarter maps say which share of each shell's power is signal. Coefficients of mean 0 with that power add
|v_k|^2 / (2 tau_k^2) to the negative log-likelihood (the regularised likelihood of Scheres, J. Mol. Biol. 415, 406,
2012): the shells where the noise is the stronger are not fitted to the noise. For the same reason the fit minds a
residual more where the signal is strong than where the noise is.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.gaussians.start import Start
from gem_plugin.normal_equations import NormalEquations, axis_frequencies

STRENGTH = 0.3  # of the prior: the particle's coefficients are not independent, and at full strength detail is lost
LEAST_FSC = 0.005  # of the quarter maps: a shell without signal is not forbidden, only held back
MOST_FSC = 0.9  # of the quarter maps: shells of more count no more, or those at the data's end are left behind
SEEN_FSC = 0.1  # of the quarter maps: a shell that shows its signal
EMPHASIS = 0.25  # power of 1 + signal-to-noise ratio by which a shell's residual counts more than the likelihood has it
FULL_REACH = 2 / 3  # of the signal, from which on the emphasis is whole


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


def reach_of_signal(start: Start, last_shell: int) -> float:
    """How far the signal reaches, 0 to 1: 1 where every shell shows it, 0 where no more than half of them do.

    A shell shows its signal where the quarter maps' correlation is `SEEN_FSC`, and in part where it is less.
    """
    seen = np.clip(start.quarter_fsc[1 : last_shell + 1] / SEEN_FSC, 0, 1)
    return float(np.clip(2 * seen.mean() - 1, 0, 1))


def shell_emphasis(start: Start, last_shell: int) -> NDArray[np.float64]:
    """How often the fit counts the residual of each shell, [last_shell + 1]: once where there is noise alone.

    (1 + s)^EMPHASIS, and a lesser power where the signal does not reach far; s = 2 q / (1 - q) is the signal-to-noise
    ratio of the half map, of the quarter maps' correlation q. The likelihood would count all shells once, and eleven
    free numbers a Gaussian bend to the noise of the many coefficients of the finest shells. But where most shells show
    no signal, positivity still finds some in them.
    """
    power = EMPHASIS * min(reach_of_signal(start, last_shell) / FULL_REACH, 1)
    q = np.clip(start.quarter_fsc[: last_shell + 1], LEAST_FSC, MOST_FSC)
    return np.asarray(((1 + q) / (1 - q)) ** power)


def with_emphasis(
    equations: NormalEquations, emphasis: NDArray[np.floating[Any]], n_threads: int = 1
) -> NormalEquations:
    """The likelihood of images whose noise in each shell has its power divided by `emphasis`.

    Parameters
    ----------
    equations : not windowed: b ends nowhere before the box does
    emphasis : of each shell of the box; the last holds beyond it
    n_threads : of the FFTs
    """
    n = equations.box_size_px
    transform = fft.rfftn(fft.ifftshift(equations.right_side), workers=n_threads)
    axis = np.fft.fftfreq(n, 1 / n)
    for plane, counted in zip(transform, _at_shells(emphasis, axis, np.arange(n // 2 + 1.0)), strict=True):
        plane *= counted
    right_side = fft.fftshift(fft.irfftn(transform, s=(n, n, n), workers=n_threads, overwrite_x=True))
    spectrum = np.empty_like(equations.spectrum)
    for plane, of_data, counted in zip(
        spectrum, equations.spectrum, _at_shells(emphasis, *_frequencies(equations, n)), strict=True
    ):
        np.multiply(of_data, counted, out=plane)
    return replace(equations, right_side=right_side.astype(np.float32), spectrum=spectrum)


def with_prior(equations: NormalEquations, weight: NDArray[np.floating[Any]], voxels_of_extent: int) -> NormalEquations:
    """The same likelihood with |v_k|^2 weight_k / 2 added.

    Parameters
    ----------
    equations : windowed or not; voxels as large as those of the grid on which the weight was found
    weight : 1 / tau^2 of each shell of the whole box; the last holds beyond it
    voxels_of_extent : voxels of the equations' size on an axis of the whole box
    """
    spectrum = equations.spectrum.copy()
    for plane, added in zip(spectrum, _at_shells(weight, *_frequencies(equations, voxels_of_extent)), strict=True):
        plane += added
    return replace(equations, spectrum=spectrum)


def _frequencies(
    equations: NormalEquations, voxels_of_extent: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Those of T's spectrum across and along x, in cycles of a box of `voxels_of_extent` voxels."""
    scale = voxels_of_extent / (2 * equations.box_size_px)  # cycles of the whole box in one of the doubled window
    return axis_frequencies(equations.box_size_px, equations.band) * scale, np.arange(equations.band + 1) * scale


def _at_shells(
    values: NDArray[np.floating[Any]], across: NDArray[np.floating[Any]], along: NDArray[np.floating[Any]]
) -> Iterator[NDArray[np.float32]]:
    """Values [shells] between the shells, plane by plane [across, along]: frequencies in cycles of the box."""
    in_plane = across[:, None] ** 2 + along**2
    for z in across:
        shell = np.sqrt(in_plane + z**2)
        yield np.interp(shell, np.arange(len(values)), values).astype(np.float32)
