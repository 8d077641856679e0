"""The grid on which Gaussians are drawn, and maps drawn on it.

Sampling a Gaussian at grid points folds its frequencies beyond the grid's Nyquist back: at k cycles a voxel the samples
of one of width s voxels show exp(-2 pi^2 s^2 k^2) and, folded, exp(-2 pi^2 s^2 (1 - k)^2). So the voxels are made
fine enough that the data end at `FINEST_FREQUENCY`, and widths have a floor in voxels (`fit.FitSettings`).
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.conventions import HalfPlane
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.ops import voxelize
from gem_plugin.ops.replicate import Tensors, replicate
from gem_plugin.spreading import fast_even_size
from gem_plugin.symmetry import cosets, moved_sum, point_group

Map = NDArray[np.floating[Any]]

FINEST_FREQUENCY = 0.35  # cycles a voxel of the render grid, where the data end


def choose_render_box(plane: HalfPlane) -> int:
    """Voxels on an axis of the render grid, which has the extent of the particles' box; never fewer than its pixels."""
    return max(plane.box_size_px, fast_even_size(float(plane.radius.max()) / FINEST_FREQUENCY))


def as_tensors(gaussians: Gaussians, operators: NDArray[np.float64] | None = None) -> Tensors:
    """Centres, log-scales, quaternions and amplitudes of Gaussians and their copies by operators.

    Parameters
    ----------
    operators : [m, 3, 3]; by default all of the Gaussians' point group
    """
    return replicate(
        torch.from_numpy(gaussians.centres_px),
        torch.from_numpy(gaussians.log_scales),
        torch.from_numpy(gaussians.quaternions),
        torch.from_numpy(gaussians.amplitudes),
        point_group(gaussians.symmetry).operators if operators is None else operators,
    )


def in_voxels(whole: Tensors, voxels_per_px: float) -> Tensors:
    """The same Gaussians with lengths in voxels of another grid."""
    centres, log_scales, quaternions, amplitudes = whole
    return centres * voxels_per_px, log_scales + math.log(voxels_per_px), quaternions, amplitudes


def gaussian_map(gaussians: Gaussians, box_size_px: int, render_box_px: int, *, engine: str) -> Map:
    """The map that Gaussians and their symmetry mates make, [n, n, n].

    Parameters
    ----------
    box_size_px : n, the box in whose pixels the Gaussians are measured
    render_box_px : voxels on an axis on which they are drawn before the map is cropped to n in Fourier space
    """
    moving, drawn = cosets(point_group(gaussians.symmetry).operators)  # copies that moving the map makes are not drawn
    with torch.no_grad():
        whole = in_voxels(as_tensors(gaussians, drawn), render_box_px / box_size_px)
        volume = voxelize(*whole, render_box_px, engine=engine)
    return fourier_crop(moved_sum(np.asarray(volume.numpy(), dtype=np.float32), moving), box_size_px)


def fourier_crop(volume: Map, box_size_px: int) -> Map:
    """A map on fewer, larger voxels of the same extent; the sum over a region, and so a projection, stays the same.

    Parameters
    ----------
    volume : [m, m, m], m even
    box_size_px : n <= m, even
    """
    m, n = volume.shape[0], box_size_px
    if m == n:
        return volume
    transform = fft.rfftn(fft.ifftshift(volume))
    keep = np.r_[0 : n // 2, m - n // 2 + 1 : m]  # not the new Nyquist planes: they have lost their mates
    place = np.r_[0 : n // 2, n - n // 2 + 1 : n]
    cropped = np.zeros((n, n, n // 2 + 1), dtype=transform.dtype)
    cropped[np.ix_(place, place, np.arange(n // 2))] = transform[np.ix_(keep, keep, np.arange(n // 2))]
    return np.asarray(fft.fftshift(fft.irfftn(cropped, s=(n, n, n))), dtype=np.float32)
