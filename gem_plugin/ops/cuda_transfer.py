"""CTFs, centring, digests and likelihoods at the Fourier points of images on a GPU (cuda/transfer.cu).

Everything is float32; phases are summed in float64 and reduced to a fraction of a turn before they are rounded, so
that CTFs and transforms agree with the CPU's to 1e-6 of the largest, whatever the defocus and the shift. Sums have a
fixed order, so results repeat bit for bit.

A CTF is written once a batch and read where it is used: 4 bytes a point beside the 8 of the image's transform, a sixth
of what a step moves. The comparison of projections with images does read CTF, image and noise together: no modelled
image, residual or weighted residual is ever stored.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import checked, launcher_for

N_THREADS = 256
MOST_PARTICLES = 65535  # of a call
STATES = {"plain": 0, "phase-flipped": 1, "premultiplied": 2, "corrected": 3}  # as cuda/transfer.cu numbers them


def transfer_source(real: str) -> KernelSource:
    """The kernels for "float" or "double"."""
    return KernelSource(("common.cu", "transfer.cu"), (("REAL", real), ("THREADS", str(N_THREADS))))


FLOAT = transfer_source("float")
DOUBLE = transfer_source("double")  # for tests
SOURCES = (FLOAT, DOUBLE)


@dataclass(frozen=True)
class PointPlaces:
    """Where a half plane's points lie in the ``rfft2`` of images [n, n]."""

    box_size_px: int
    places: torch.Tensor  # [points] int32, row by row
    frequencies: torch.Tensor  # [2, points] int32 kx, ky

    @staticmethod
    def of(kx: torch.Tensor, ky: torch.Tensor, box_size_px: int, device: torch.device) -> "PointPlaces":
        """For points kx, ky [points] int64 with 0 <= kx <= n // 2 and 2 |ky| < n, each once."""
        highest_x, highest_y = int(kx.max()) if len(kx) else 0, int(ky.abs().max()) if len(ky) else 0
        if (kx < 0).any() or highest_x > box_size_px // 2 or 2 * highest_y >= box_size_px:
            raise ValueError(f"points lie outside the transform of a box of {box_size_px} px")
        places = (ky % box_size_px) * (box_size_px // 2 + 1) + kx
        return PointPlaces(
            box_size_px, places.to(device, torch.int32), torch.stack([kx, ky]).to(device, torch.int32).contiguous()
        )

    @property
    def spectrum_shape(self) -> tuple[int, int]:
        """Of one image's ``rfft2``."""
        return self.box_size_px, self.box_size_px // 2 + 1


def ctf_of_points(
    of_points: torch.Tensor,
    of_particles: torch.Tensor,
    group_scales: torch.Tensor,
    state: str,
    is_intact_to_first_peak: bool,
    *,
    source: KernelSource = FLOAT,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What slices are multiplied by in images, and what images are multiplied by in b.

    Parameters
    ----------
    of_points : [4, points] float64 k^2, kx^2 - ky^2, 2 kx ky in 1/Angstrom^2, and turns that all particles have
    of_particles : [m, 6] float64 turns for a unit of each of those three, turns, B log2(e) / 4, scale of the CTF
    group_scales : [m] of the signal in each image
    state : of the images' CTF, one of STATES
    is_intact_to_first_peak : whether the CTF is taken to be 1 up to its first peak

    Returns
    -------
    transfer, adjoint : [m, points] each; the same tensor unless premultiplied
    """
    device, m, n_points = of_points.device, len(of_particles), of_points.shape[1]
    real = _real(source)
    transfer = torch.empty((m, n_points), dtype=real, device=device)
    adjoint = torch.empty_like(transfer) if state == "premultiplied" else transfer
    launcher_for(device).launch(
        source,
        "ctf_of_points",
        _grid(n_points, m),
        N_THREADS,
        (
            checked(of_points, (4, n_points), torch.float64, device),
            checked(of_particles, (m, 6), torch.float64, device),
            checked(group_scales, (m,), real, device),
            np.int32(n_points),
            np.int32(m),
            np.int32(STATES[state]),
            np.int32(is_intact_to_first_peak),
            transfer,
            adjoint,
        ),
    )
    return transfer, adjoint


def centre_images(
    spectra: torch.Tensor,
    points: PointPlaces,
    of_points: torch.Tensor,
    of_particles: torch.Tensor,
    *,
    source: KernelSource = FLOAT,
) -> torch.Tensor:
    """Transforms of centred images at the points of a half plane.

    Parameters
    ----------
    spectra : [m, n, n // 2 + 1] ``rfft2`` of the images
    of_points : [points] complex factors for all particles
    of_particles : [m, 3] float64 turns for a cycle on x and on y, and a factor

    Returns
    -------
    [m, points]
    """
    device, m, n_points = spectra.device, len(spectra), len(points.places)
    complex_of = _complex(source)
    observed = torch.empty((m, n_points), dtype=complex_of, device=device)
    launcher_for(device).launch(
        source,
        "centre_images",
        _grid(n_points, m),
        N_THREADS,
        (
            checked(spectra, (m, *points.spectrum_shape), complex_of, device),
            checked(points.places, (n_points,), torch.int32, device),
            checked(points.frequencies, (2, n_points), torch.int32, device),
            checked(of_points, (n_points,), complex_of, device),
            checked(of_particles, (m, 3), torch.float64, device),
            np.int32(n_points),
            np.int32(m),
            np.int64(math.prod(points.spectrum_shape)),
            observed,
        ),
    )
    return observed


def digests_of(images: torch.Tensor) -> torch.Tensor:
    """A number for each image: equal for equal images, and else, for all practical purposes, not; [m] int64.

    Parameters
    ----------
    images : [m, n, n] float32
    """
    m, device = len(images), images.device
    digests = torch.zeros(m, dtype=torch.int64, device=device)
    bits = checked(images, tuple(images.shape), torch.float32, device).view(torch.int32)
    n_pixels = math.prod(images.shape[1:])
    arguments = bits, np.int64(n_pixels), digests
    launcher_for(device).launch(FLOAT, "digest_images", _grid(n_pixels, m), N_THREADS, arguments)
    return digests


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
    real, complex_of = _real(source), _complex(source)
    spectra, ctf, observed = spectra.contiguous(), ctf.contiguous(), observed.contiguous()
    grid = _grid(n_points, m)
    gradients = torch.zeros_like(spectra)
    losses = torch.zeros((m, max(grid[0], 1)), dtype=torch.float64, device=device)
    launcher_for(device).launch(
        source,
        "compare_spectra",
        grid,
        N_THREADS,
        (
            checked(spectra, (m, *points.spectrum_shape), complex_of, device),
            checked(points.places, (n_points,), torch.int32, device),
            checked(factors, (n_points,), real, device),
            checked(strengths, (n_points,), real, device),
            checked(ctf, (m, n_points), real, device),
            checked(observed, (m, n_points), complex_of, device),
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


def _grid(n_points: int, n_particles: int) -> tuple[int, int, int]:
    if n_particles > MOST_PARTICLES:
        raise ValueError(f"{n_particles} particles in one call: at most {MOST_PARTICLES} are possible")
    return math.ceil(n_points / N_THREADS), n_particles, 1


def _real(source: KernelSource) -> torch.dtype:
    return torch.float64 if ("REAL", "double") in source.defines else torch.float32


def _complex(source: KernelSource) -> torch.dtype:
    return torch.complex128 if ("REAL", "double") in source.defines else torch.complex64
