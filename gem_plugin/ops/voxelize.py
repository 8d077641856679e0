"""voxelize(): Gaussians -> map, differentiable in all 11 numbers, whatever engine does the work."""

from typing import Any

import numpy as np
import torch

from gem_plugin.ops import cuda_voxelize, engines, numba_cpu
from gem_plugin.ops.moments import footprint_shape, parameter_gradients
from gem_plugin.ops.reference import voxelize_reference

DEFAULT_CUTOFF_SIGMAS = 4.0


def voxelize(
    centres_px: torch.Tensor,
    log_scales: torch.Tensor,
    quaternions: torch.Tensor,
    amplitudes: torch.Tensor,
    box_size_px: int,
    *,
    cutoff_sigmas: float = DEFAULT_CUTOFF_SIGMAS,
    engine: str = "cpu",
) -> torch.Tensor:
    """Sum Gaussians at the voxel centres of a cubic box.

    f(r) = sum_j a_j / ((2 pi)^1.5 s1 s2 s3) exp(-q_j(r) / 2) where q_j(r) <= cutoff^2, else 0, with
    q_j(r) = |S^-1 Q^T (r - mu_j)|^2 (arXiv 2509.25075, section 3, with normalised amplitudes).

    Parameters
    ----------
    centres_px : [N, 3] x, y, z from the box centre (voxel n // 2)
    log_scales : [N, 3] natural logarithm of the widths in pixels
    quaternions : [N, 4] w, x, y, z, any length but 0
    amplitudes : [N] integrals, greyscale x voxels
    box_size_px : n >= 1
    cutoff_sigmas : radius of the footprint, > 0
    engine : "reference" (dense, in the arguments' precision), "cpu" (Numba, float32) or "cuda", "cuda:1" (float64
        for centres in float64, else float32)

    Returns
    -------
    [n, n, n] z, y, x in the precision of the centres, on the engine's device

    Raises
    ------
    ValueError
        If a shape is wrong or there is no such engine.
    """
    check_parameters(centres_px, log_scales, quaternions, amplitudes)
    if engine == "reference":
        return voxelize_reference(centres_px, log_scales, quaternions, amplitudes, box_size_px, cutoff_sigmas)
    if engines.uses_cuda_kernels(engine):
        device = engines.device_of(engine)
        on_device = (tensor.to(device) for tensor in (centres_px, log_scales, quaternions, amplitudes))
        drawn: torch.Tensor = _VoxelizeCuda.apply(*on_device, box_size_px, cutoff_sigmas)  # type: ignore[no-untyped-call]
        return drawn
    if engine != "cpu":
        raise ValueError(f"no engine '{engine}'")
    volume: torch.Tensor = _VoxelizeCpu.apply(  # type: ignore[no-untyped-call]
        centres_px, log_scales, quaternions, amplitudes, box_size_px, cutoff_sigmas
    )
    return volume


def check_parameters(
    centres_px: torch.Tensor, log_scales: torch.Tensor, quaternions: torch.Tensor, amplitudes: torch.Tensor
) -> None:
    """Refuse parameters whose shapes do not belong together (ValueError)."""
    n = len(amplitudes)
    for name, tensor, shape in (
        ("centres_px", centres_px, (n, 3)),
        ("log_scales", log_scales, (n, 3)),
        ("quaternions", quaternions, (n, 4)),
        ("amplitudes", amplitudes, (n,)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


class _VoxelizeCpu(torch.autograd.Function):
    """The custom gradient: each Gaussian gathers moments of the incoming gradient over its own footprint."""

    @staticmethod
    def forward(
        ctx: Any,
        centres_px: torch.Tensor,
        log_scales: torch.Tensor,
        quaternions: torch.Tensor,
        amplitudes: torch.Tensor,
        box_size_px: int,
        cutoff_sigmas: float,
    ) -> torch.Tensor:
        shape = footprint_shape(log_scales.detach(), quaternions.detach(), amplitudes.detach())
        centres = np.ascontiguousarray(centres_px.detach().numpy(), dtype=np.float32)
        volume = np.zeros((box_size_px,) * 3, dtype=np.float32)
        factors, peaks = shape.factors.float().numpy(), shape.peaks.float().numpy()
        numba_cpu.scatter(centres, factors, peaks, np.float32(cutoff_sigmas), volume)
        ctx.save_for_backward(log_scales, quaternions, amplitudes)
        ctx.shape, ctx.centres, ctx.factors, ctx.cutoff_sigmas = shape, centres, factors, cutoff_sigmas
        return torch.from_numpy(volume).to(centres_px.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        log_scales, quaternions, amplitudes = ctx.saved_tensors
        volume_gradient = np.ascontiguousarray(gradients[0].detach().numpy(), dtype=np.float32)
        moments = np.zeros((len(amplitudes), 10), dtype=np.float32)
        numba_cpu.gather(ctx.centres, ctx.factors, np.float32(ctx.cutoff_sigmas), volume_gradient, moments)
        return (
            *parameter_gradients(torch.from_numpy(moments), log_scales, quaternions, amplitudes, ctx.shape),
            None,
            None,
        )


class _VoxelizeCuda(torch.autograd.Function):
    """The same gradient by the kernels of cuda/voxelize.cu."""

    @staticmethod
    def forward(
        ctx: Any,
        centres_px: torch.Tensor,
        log_scales: torch.Tensor,
        quaternions: torch.Tensor,
        amplitudes: torch.Tensor,
        box_size_px: int,
        cutoff_sigmas: float,
    ) -> torch.Tensor:
        shape = footprint_shape(log_scales.detach(), quaternions.detach(), amplitudes.detach())
        precision = cuda_voxelize.kernel_precision(centres_px)
        gaussians = cuda_voxelize.footprints(centres_px.detach(), shape, box_size_px, precision)
        ctx.save_for_backward(log_scales, quaternions, amplitudes)
        ctx.shape, ctx.gaussians, ctx.cutoff_sigmas = shape, gaussians, cutoff_sigmas
        return cuda_voxelize.draw(gaussians, cutoff_sigmas, box_size_px).to(centres_px.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gaussians: cuda_voxelize.Footprints = ctx.gaussians
        volume_gradient = gradients[0].detach().to(gaussians.shapes.dtype).contiguous()
        moments = cuda_voxelize.gather(gaussians, ctx.cutoff_sigmas, volume_gradient)
        log_scales, quaternions, amplitudes = ctx.saved_tensors
        return (*parameter_gradients(moments, log_scales, quaternions, amplitudes, ctx.shape), None, None)
