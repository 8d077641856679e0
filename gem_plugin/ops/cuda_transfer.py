"""CTFs, centring and digests of images on a GPU, at the points of a half plane (cuda/transfer.cu).

Everything is float32; phases are summed in float64 and reduced to a fraction of a turn before they are rounded, so
that CTFs and transforms agree with the CPU's to 1e-6 of the largest, whatever the defocus and the shift. Sums have a
fixed order, so results repeat bit for bit.
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
    real = real_of(source)
    transfer = torch.empty((m, n_points), dtype=real, device=device)
    adjoint = torch.empty_like(transfer) if state == "premultiplied" else transfer
    launcher_for(device).launch(
        source,
        "ctf_of_points",
        grid_of(n_points, m),
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
    kind = complex_of(source)
    observed = torch.empty((m, n_points), dtype=kind, device=device)
    launcher_for(device).launch(
        source,
        "centre_images",
        grid_of(n_points, m),
        N_THREADS,
        (
            checked(spectra, (m, *points.spectrum_shape), kind, device),
            checked(points.places, (n_points,), torch.int32, device),
            checked(points.frequencies, (2, n_points), torch.int32, device),
            checked(of_points, (n_points,), kind, device),
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
    launcher_for(device).launch(FLOAT, "digest_images", grid_of(n_pixels, m), N_THREADS, arguments)
    return digests


def grid_of(n_points: int, n_particles: int) -> tuple[int, int, int]:
    """Blocks for a thread to each point of each particle."""
    if n_particles > MOST_PARTICLES:
        raise ValueError(f"{n_particles} particles in one call: at most {MOST_PARTICLES} are possible")
    return math.ceil(n_points / N_THREADS), n_particles, 1


def real_of(source: KernelSource) -> torch.dtype:
    """The kernels' REAL."""
    return torch.float64 if ("REAL", "double") in source.defines else torch.float32


def complex_of(source: KernelSource) -> torch.dtype:
    """Two of the kernels' REAL."""
    return torch.complex128 if ("REAL", "double") in source.defines else torch.complex64
