"""project(): Gaussians -> images of the particle in given views, differentiable in all 11 numbers."""

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.ops import cuda_project, engines, numba_project, numba_rows
from gem_plugin.ops.moments import Axes, Gradients, axes_of, covariance_chain, symmetric_matrices
from gem_plugin.ops.reference import project_reference
from gem_plugin.ops.voxelize import DEFAULT_CUTOFF_SIGMAS, check_parameters

_Arrays = tuple[numba_project.Doubles, numba_project.Doubles, numba_project.Doubles, numba_project.Doubles]

_CHUNKS_PER_THREAD = 2
_SMALLEST_CHUNK, _LARGEST_CHUNK = 32, 1024  # Gaussians that a thread takes through all images at a time


def project(
    centres_px: torch.Tensor,
    log_scales: torch.Tensor,
    quaternions: torch.Tensor,
    amplitudes: torch.Tensor,
    rotations: torch.Tensor | NDArray[np.floating[Any]],
    box_size_px: int,
    *,
    cutoff_sigmas: float = DEFAULT_CUTOFF_SIGMAS,
    engine: str = "cpu",
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum the line integrals of Gaussians at the pixel centres of square images.

    f(x) = sum_j a_j / (2 pi sqrt(det C_j)) exp(-q_j(x) / 2) where q_j(x) <= cutoff^2, else 0, with
    q_j(x) = d^T C_j^-1 d, d = x - (A mu_j)_xy and C_j the xy part of A Sigma_j A^T: what the voxels of the map of
    `voxelize`, turned by A, sum to along z. Shifts of the particle in its image are not here: they are undone on
    the data (`gem_plugin.conventions.centring_phases`).

    Parameters
    ----------
    centres_px : [N, 3] x, y, z from the box centre (voxel n // 2)
    log_scales : [N, 3] natural logarithm of the widths in pixels
    quaternions : [N, 4] w, x, y, z, any length but 0
    amplitudes : [N] integrals, greyscale x voxels
    rotations : [B, 3, 3] A, map to view, of `gem_plugin.conventions.rotation_matrices`; has no gradient
    box_size_px : n >= 1
    cutoff_sigmas : radius of the footprint, > 0
    engine : "reference" (dense, in the arguments' precision), "cpu" (Numba; float64 geometry, float32 pixels) or
        "cuda" (in the precision of the centres; of float32, `gem_plugin.ops.cuda_project` tells the errors)
    order : for "cuda" alone, [N] `gem_plugin.ops.cuda_project.order_of` these Gaussians, to be kept while they hardly
        move; it changes last digits only; None: is found anew, which takes longer than drawing a few images

    Returns
    -------
    [B, n, n] y, x in the precision of the centres, on the engine's device

    Raises
    ------
    ValueError
        If a shape is wrong or there is no such engine.
    """
    check_parameters(centres_px, log_scales, quaternions, amplitudes)
    views = torch.as_tensor(rotations).detach()
    if views.ndim != 3 or views.shape[1:] != (3, 3):
        raise ValueError(f"rotations has shape {tuple(views.shape)}, expected (views, 3, 3)")
    if engine == "reference":
        return project_reference(
            centres_px, log_scales, quaternions, amplitudes, views.to(centres_px.dtype), box_size_px, cutoff_sigmas
        )
    if engines.uses_cuda_kernels(engine):
        device = engines.device_of(engine)
        on_device = (tensor.to(device) for tensor in (centres_px, log_scales, quaternions, amplitudes))
        drawn: torch.Tensor = _ProjectCuda.apply(  # type: ignore[no-untyped-call]
            *on_device, views, box_size_px, cutoff_sigmas, order
        )
        return drawn
    if engine != "cpu":
        raise ValueError(f"no engine '{engine}'")
    images: torch.Tensor = _ProjectCpu.apply(  # type: ignore[no-untyped-call]
        centres_px, log_scales, quaternions, amplitudes, views, box_size_px, cutoff_sigmas
    )
    return images


class _ProjectCpu(torch.autograd.Function):
    """The custom gradient: each Gaussian gathers moments of the incoming gradient over its footprint in every image."""

    @staticmethod
    def forward(
        ctx: Any,
        centres_px: torch.Tensor,
        log_scales: torch.Tensor,
        quaternions: torch.Tensor,
        amplitudes: torch.Tensor,
        views: torch.Tensor,
        box_size_px: int,
        cutoff_sigmas: float,
    ) -> torch.Tensor:
        axes = axes_of(log_scales.detach(), quaternions.detach())
        covariances = axes.covariance().reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]  # xx, xy, xz, yy, yz, zz
        arrays = _doubles(views), _doubles(centres_px), _doubles(covariances), _doubles(amplitudes)
        images = np.zeros((len(views), numba_rows.padded_pixels(box_size_px)), dtype=np.float32)
        numba_project.scatter_views(*arrays, float(cutoff_sigmas), box_size_px, images)
        ctx.save_for_backward(log_scales, quaternions)
        ctx.axes, ctx.arrays, ctx.cutoff_sigmas, ctx.box_size_px = axes, arrays, float(cutoff_sigmas), box_size_px
        pixels = torch.from_numpy(images)[:, : box_size_px**2]
        return pixels.reshape(-1, box_size_px, box_size_px).to(centres_px.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        log_scales, quaternions = ctx.saved_tensors
        pixels = ctx.box_size_px**2
        images = gradients[0].detach().float().reshape(-1, pixels)
        padded = torch.nn.functional.pad(images, (0, numba_rows.padded_pixels(ctx.box_size_px) - pixels)).numpy()
        n = len(log_scales)
        sums = np.zeros((n, 10))
        arrays: _Arrays = ctx.arrays
        numba_project.gather_views(*arrays, ctx.cutoff_sigmas, ctx.box_size_px, _chunk(n), padded, sums)
        return (*_parameter_gradients(torch.from_numpy(sums), log_scales, quaternions, ctx.axes), None, None, None)


class _ProjectCuda(torch.autograd.Function):
    """The same gradient by the kernels of cuda/project.cu."""

    @staticmethod
    def forward(
        ctx: Any,
        centres_px: torch.Tensor,
        log_scales: torch.Tensor,
        quaternions: torch.Tensor,
        amplitudes: torch.Tensor,
        views: torch.Tensor,
        box_size_px: int,
        cutoff_sigmas: float,
        order: torch.Tensor | None,
    ) -> torch.Tensor:
        axes = axes_of(log_scales.detach(), quaternions.detach())
        source = cuda_project.source_for(centres_px)
        scene = cuda_project.scene(
            centres_px, axes, amplitudes, views, box_size_px, cutoff_sigmas, order=order, source=source
        )
        ctx.save_for_backward(log_scales, quaternions)
        ctx.axes, ctx.scene = axes, scene
        return cuda_project.draw(scene).to(centres_px.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        log_scales, quaternions = ctx.saved_tensors
        sums = cuda_project.gather(ctx.scene, gradients[0])
        return (*_parameter_gradients(sums, log_scales, quaternions, ctx.axes), None, None, None, None)


def _doubles(tensor: torch.Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float64)


def _chunk(n: int) -> int:
    """Enough chunks for all threads, each large enough to be worth reading an image for; no result depends on it."""
    return min(max(math.ceil(n / (_CHUNKS_PER_THREAD * numba.get_num_threads())), _SMALLEST_CHUNK), _LARGEST_CHUNK)


def _parameter_gradients(
    sums: torch.Tensor, log_scales: torch.Tensor, quaternions: torch.Tensor, axes: Axes
) -> Gradients:
    """The 11 gradients of the ten that `gem_plugin.ops.numba_project.gather_views` sums."""
    kind = log_scales.dtype
    scale_gradient, quaternion_gradient = covariance_chain(symmetric_matrices(sums[:, 3:9]), quaternions, axes)
    return sums[:, :3].to(kind), scale_gradient.to(kind), quaternion_gradient.to(kind), sums[:, 9].to(kind)
