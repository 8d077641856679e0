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
from gem_plugin.ops import engines, voxelize
from gem_plugin.ops.replicate import Tensors, replicate
from gem_plugin.spreading import fast_even_size
from gem_plugin.symmetry import cosets, moved_sum, point_group

Map = NDArray[np.floating[Any]]

FINEST_FREQUENCY = 0.40  # cycles a voxel of the render grid, where the data end
SLAB_PLANES = 32  # planes of a map that are transformed together


def choose_render_box(plane: HalfPlane) -> int:
    """Voxels on an axis of the render grid, which has the extent of the particles' box; never fewer than its pixels."""
    return max(plane.box_size_px, fast_even_size(float(plane.radius.max()) / FINEST_FREQUENCY))


def as_tensors(
    gaussians: Gaussians, operators: NDArray[np.float64] | None = None, device: torch.device | None = None
) -> Tensors:
    """Centres, log-scales, quaternions and amplitudes of Gaussians and their copies by operators.

    Parameters
    ----------
    operators : [m, 3, 3]; by default all of the Gaussians' point group
    device : where the tensors are to be, by default the CPU's memory
    """
    return replicate(
        torch.from_numpy(gaussians.centres_px).to(device),
        torch.from_numpy(gaussians.log_scales).to(device),
        torch.from_numpy(gaussians.quaternions).to(device),
        torch.from_numpy(gaussians.amplitudes).to(device),
        point_group(gaussians.symmetry).operators if operators is None else operators,
    )


def in_voxels(whole: Tensors, voxels_per_px: float) -> Tensors:
    """The same Gaussians with lengths in voxels of another grid."""
    centres, log_scales, quaternions, amplitudes = whole
    return centres * voxels_per_px, log_scales + math.log(voxels_per_px), quaternions, amplitudes


def gaussian_map(gaussians: Gaussians, box_size_px: int, render_box_px: int, *, engine: str, n_threads: int = 1) -> Map:
    """The map that Gaussians and their symmetry mates make, [n, n, n].

    Parameters
    ----------
    box_size_px : n, the box in whose pixels the Gaussians are measured
    render_box_px : voxels on an axis on which they are drawn before the map is cropped to n in Fourier space
    n_threads : of the cropping; the engine has its own
    """
    moving, drawn = cosets(point_group(gaussians.symmetry).operators)  # copies that moving the map makes are not drawn
    with torch.no_grad():
        whole = in_voxels(as_tensors(gaussians, drawn, engines.device_of(engine)), render_box_px / box_size_px)
        volume = voxelize(*whole, render_box_px, engine=engine)
    drawn_map = moved_sum(np.asarray(volume.cpu().numpy(), dtype=np.float32), moving)
    return fourier_crop(drawn_map, box_size_px, n_threads)


def fourier_crop(volume: Map, box_size_px: int, n_threads: int = 1) -> Map:
    """A map on fewer, larger voxels of the same extent; the sum over a region, and so a projection, stays the same.

    Parameters
    ----------
    volume : [m, m, m], m even
    box_size_px : n <= m, even
    """
    m, n = volume.shape[0], box_size_px
    if m == n:
        return volume
    half = n // 2  # the new Nyquist planes stay empty: they have lost their mates
    low, high, behind = slice(half), slice(half + 1, n), slice(m - half + 1, m)
    # An axis is cropped as soon as it is transformed. Both boxes are even, so that the origin is their middle voxel
    # here and there, and the signs that would move it cancel.
    planes = np.zeros((m, n, half), dtype=np.complex64)
    for part in _slabs(m):
        lines = fft.rfft(volume[part], axis=2, workers=n_threads)[:, :, :half]
        transform = fft.fft(lines, axis=1, workers=n_threads)
        planes[part, low], planes[part, high] = transform[:, low], transform[:, behind]
    cropped = np.zeros((n, n, half + 1), dtype=np.complex64)
    for part in _slabs(n):
        transform = fft.fft(planes[:, part], axis=0, workers=n_threads)
        cropped[low, part, :half], cropped[high, part, :half] = transform[low], transform[behind]
    return np.asarray(fft.irfftn(cropped, s=(n, n, n), workers=n_threads, overwrite_x=True), dtype=np.float32)


def _slabs(n_planes: int) -> list[slice]:
    return [slice(start, start + SLAB_PLANES) for start in range(0, n_planes, SLAB_PLANES)]
