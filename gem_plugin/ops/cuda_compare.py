"""Projections beside particle images on a GPU: likelihood, gradient, scales and residuals (cuda/transfer.cu).

A pass reads projections, CTF, images and noise together and writes sums and the gradient: no modelled image and no
residual is stored. CTFs are, once a batch: 4 bytes a point beside the 8 of the image's transform, for all that reads
them. Pixels are float32 and sums float64, in an order that does not change: results repeat bit for bit.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from gem_plugin.ops import cuda_transfer
from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.cuda_transfer import FLOAT, N_THREADS, PointPlaces, complex_of, grid_of, real_of
from gem_plugin.ops.launch import checked, launcher_for

SOURCES = cuda_transfer.SOURCES


def likelihood_of_spectra(
    spectra: torch.Tensor,
    points: PointPlaces,
    factors: torch.Tensor,
    strengths: torch.Tensor,
    ctf: torch.Tensor,
    observed: torch.Tensor,
) -> torch.Tensor:
    """Sum of strength (|CTF X|^2 - 2 Re CTF X conj(Y)), with its gradient in the spectra.

    Parameters
    ----------
    spectra : [m, n, n // 2 + 1] complex64 ``rfft2`` of projections, of which X is taken; differentiable
    factors : [points] float32 from there to X: the sign that moves the origin to the centre, and the greyscale
    strengths : [points] float32 weight over noise power
    ctf : [m, points] float32
    observed : [m, points] complex64 Y

    Returns
    -------
    the sum over all particles and points, float64
    """
    loss: torch.Tensor = _Likelihood.apply(  # type: ignore[no-untyped-call]
        spectra, points, factors, strengths, ctf, observed
    )
    return loss


class _Likelihood(torch.autograd.Function):
    """The gradient is made where the loss is, in the same pass over the data."""

    @staticmethod
    def forward(
        ctx: object,
        spectra: torch.Tensor,
        points: PointPlaces,
        factors: torch.Tensor,
        strengths: torch.Tensor,
        ctf: torch.Tensor,
        observed: torch.Tensor,
    ) -> torch.Tensor:
        losses, gradients = compare_spectra(spectra.detach(), points, factors, strengths, ctf, observed)
        ctx.save_for_backward(gradients)  # type: ignore[attr-defined]
        return losses.sum()

    @staticmethod
    def backward(ctx: object, *of_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients * of_loss[0].to(gradients.real.dtype), None, None, None, None, None


def compare_spectra(
    spectra: torch.Tensor,
    points: PointPlaces,
    factors: torch.Tensor,
    strengths: torch.Tensor,
    ctf: torch.Tensor,
    observed: torch.Tensor,
    *,
    source: KernelSource = FLOAT,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of `likelihood_of_spectra` for each particle, [m] float64, and their gradient in the spectra."""
    device, m, n_points = spectra.device, len(spectra), len(points.places)
    real, kind = real_of(source), complex_of(source)
    spectra, ctf, observed = spectra.contiguous(), ctf.contiguous(), observed.contiguous()
    grid = grid_of(n_points, m)
    gradients = torch.zeros_like(spectra)
    losses = torch.zeros((m, max(grid[0], 1)), dtype=torch.float64, device=device)
    launcher_for(device).launch(
        source,
        "compare_spectra",
        grid,
        N_THREADS,
        (
            checked(spectra, (m, *points.spectrum_shape), kind, device),
            checked(points.places, (n_points,), torch.int32, device),
            checked(factors, (n_points,), real, device),
            checked(strengths, (n_points,), real, device),
            checked(ctf, (m, n_points), real, device),
            checked(observed, (m, n_points), kind, device),
            np.int32(n_points),
            np.int32(m),
            np.int64(math.prod(points.spectrum_shape)),
            gradients,
            losses,
        ),
    )
    return losses.sum(1), gradients


@dataclass(frozen=True)
class ShellMembers:
    """The points of each Fourier shell."""

    by_shell: torch.Tensor  # [points] int32, shell after shell
    bounds: torch.Tensor  # [shells + 1] int32 where in `by_shell` each begins, and the last ends

    @staticmethod
    def of(shell: torch.Tensor, n_shells: int, device: torch.device) -> "ShellMembers":
        """For the shells [points] int64 in which points lie, all below `n_shells`."""
        counts = torch.bincount(shell, minlength=n_shells)
        bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return ShellMembers(torch.argsort(shell, stable=True).to(device, torch.int32), bounds.to(device, torch.int32))


def compare_by_shell(
    spectra: torch.Tensor,
    points: PointPlaces,
    factors: torch.Tensor,
    strengths: torch.Tensor,
    ctf: torch.Tensor,
    observed: torch.Tensor,
    members: ShellMembers,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factor that fits each projection to its image, and what is left of the image over the noise.

    As `gem_plugin.ops.compare.compare_transforms`; arguments as for `likelihood_of_spectra`, with strengths in float64.

    Returns
    -------
    [m] and [m, shells] float64
    """
    device, m, n_points, n_shells = spectra.device, len(spectra), len(points.places), len(members.bounds) - 1
    scales = torch.empty(m, dtype=torch.float64, device=device)
    residuals = torch.empty((m, n_shells), dtype=torch.float64, device=device)
    launcher_for(device).launch(
        FLOAT,
        "compare_by_shell",
        (m, 1, 1),
        N_THREADS,
        (
            checked(spectra.contiguous(), (m, *points.spectrum_shape), torch.complex64, device),
            checked(points.places, (n_points,), torch.int32, device),
            checked(factors, (n_points,), torch.float32, device),
            checked(strengths, (n_points,), torch.float64, device),
            checked(ctf.contiguous(), (m, n_points), torch.float32, device),
            checked(observed.contiguous(), (m, n_points), torch.complex64, device),
            checked(members.by_shell, (n_points,), torch.int32, device),
            checked(members.bounds, (n_shells + 1,), torch.int32, device),
            np.int32(n_points),
            np.int32(n_shells),
            np.int64(math.prod(points.spectrum_shape)),
            scales,
            residuals,
        ),
    )
    return scales, residuals
