"""The oracle: Gaussians on a grid in plain torch, dense, differentiated by torch itself.

Written for reading, not for speed. Every other engine is judged by it.
"""

import math

import torch


def rotations_from_quaternions(quaternions: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (w, x, y, z) of any length but 0."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def voxelize_reference(
    centres_px: torch.Tensor,  # [N, 3]
    log_scales: torch.Tensor,  # [N, 3]
    quaternions: torch.Tensor,  # [N, 4]
    amplitudes: torch.Tensor,  # [N]
    box_size_px: int,
    cutoff_sigmas: float,
    chunk: int = 64,
) -> torch.Tensor:
    """Sum of the Gaussians at the voxels of a box, [n, n, n] z, y, x, in the arguments' precision."""
    axis = torch.arange(box_size_px, dtype=centres_px.dtype) - box_size_px // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    voxels = torch.stack([x, y, z], dim=-1).reshape(-1, 3)  # [V, 3]
    volume = torch.zeros(len(voxels), dtype=centres_px.dtype)
    for start in range(0, len(amplitudes), chunk):
        part = slice(start, start + chunk)
        to_axes = rotations_from_quaternions(quaternions[part]) * torch.exp(-log_scales[part])[:, None, :]  # Q S^-1
        whitened = torch.einsum("nvc,nck->nvk", voxels[None] - centres_px[part, None], to_axes)
        exponent = (whitened**2).sum(-1)  # [N, V] squared distance in sigmas
        peak = amplitudes[part] * torch.exp(-log_scales[part].sum(1)) / (2 * math.pi) ** 1.5
        values = torch.where(exponent <= cutoff_sigmas**2, torch.exp(-0.5 * exponent), torch.zeros_like(exponent))
        volume = volume + (peak[:, None] * values).sum(0)
    return volume.reshape(box_size_px, box_size_px, box_size_px)


def project_reference(
    centres_px: torch.Tensor,  # [N, 3]
    log_scales: torch.Tensor,  # [N, 3]
    quaternions: torch.Tensor,  # [N, 4]
    amplitudes: torch.Tensor,  # [N]
    rotations: torch.Tensor,  # [B, 3, 3] map to view, in the arguments' precision
    box_size_px: int,
    cutoff_sigmas: float,
    chunk: int = 64,
) -> torch.Tensor:
    """Line integrals along the view's z of the Gaussians at the pixels of images, [B, n, n] y, x."""
    axis = torch.arange(box_size_px, dtype=centres_px.dtype) - box_size_px // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    images = torch.zeros(len(rotations), len(pixels), dtype=centres_px.dtype)
    in_plane = rotations[:, :2]
    for start in range(0, len(amplitudes), chunk):
        part = slice(start, start + chunk)
        from_axes = rotations_from_quaternions(quaternions[part]) * torch.exp(log_scales[part])[:, None, :]  # Q S
        seen_from_axes = torch.einsum("bic,nck->bnik", in_plane, from_axes)
        covariances = seen_from_axes @ seen_from_axes.transpose(2, 3)  # [B, N, 2, 2]
        offsets = pixels - torch.einsum("bic,nc->bni", in_plane, centres_px[part])[:, :, None]  # [B, N, P, 2]
        exponent = (offsets * torch.linalg.solve(covariances, offsets.transpose(2, 3)).transpose(2, 3)).sum(-1)
        peak = amplitudes[part] / (2 * math.pi * torch.sqrt(torch.linalg.det(covariances)))
        values = torch.where(exponent <= cutoff_sigmas**2, torch.exp(-0.5 * exponent), torch.zeros_like(exponent))
        images = images + torch.einsum("bn,bnp->bp", peak, values)
    return images.reshape(-1, box_size_px, box_size_px)
