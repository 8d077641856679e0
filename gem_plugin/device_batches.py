"""Particle images on a GPU at their Fourier points, with slices and CTFs: what `dataset` makes, made there.

The host reads pixels and finds angles; the device transforms, centres, and evaluates CTFs from a particle's numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.dataset import LEAST_DIVISOR
from gem_plugin.imaging import slice_matrices
from gem_plugin.io.particles import Particles
from gem_plugin.ops.cuda_transfer import PointPlaces, centre_images, ctf_of_points, digests_of
from gem_plugin.optics import image_factors, phase_coefficients, phase_planes

Images = NDArray[np.float16] | NDArray[np.float32] | torch.Tensor

TURN = 2 * np.pi


@dataclass(frozen=True)
class DeviceBatch:
    """A few particles of one optics group at the Fourier points of their images' half plane, on a device.

    The fields are those of `gem_plugin.dataset.FourierBatch`.
    """

    indices: NDArray[np.int64]  # [m] rows of the particle table
    plane: conventions.HalfPlane
    group: int  # of Particles.optics_groups
    slices: NDArray[np.float64]  # [m, 3, 3] S, from the map to the image: k3 = S^T (kx, ky, 0), on the host
    observed: torch.Tensor  # [m, points] complex64 transforms, particle at the centre
    ctf: torch.Tensor  # [m, points] float32 what the map's slice is multiplied by in the image
    adjoint: torch.Tensor  # [m, points] float32 what the image is multiplied by in b: `ctf` itself, mostly
    digest_numbers: torch.Tensor  # [m] int64: equal images have equal numbers; not those of the CPU's digests

    @property
    def digests(self) -> NDArray[np.uint64]:
        """The digests on the host, [m]; waits for the device."""
        return np.asarray(self.digest_numbers.cpu().numpy().view(np.uint64))

    def plain(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and CTFs as if the images had not been multiplied by their CTF: see `FourierBatch.plain`."""
        if self.adjoint is self.ctf:
            return self.observed, self.ctf
        divisor = (self.ctf / self.adjoint).abs().sqrt().clamp(min=float(LEAST_DIVISOR))
        return self.observed / divisor, self.ctf / divisor


@dataclass(frozen=True)
class _GroupOnDevice:
    """What all images of one optics group share."""

    points: PointPlaces
    waves: torch.Tensor  # [4, points] float64, of `ctf_of_points`
    factors: (
        torch.Tensor
    )  # [points] complex64: from the images' transforms about pixel 0 to those about the centre, etc.


class DeviceBatches:
    """Makes batches on a device; what an optics group's images share is sent there once.

    Parameters
    ----------
    planes : of each optics group's images (`gem_plugin.imaging.image_planes`)
    """

    def __init__(self, particles: Particles, planes: Sequence[conventions.HalfPlane], device: torch.device) -> None:
        self._particles = particles
        self._planes = planes
        self._device = device
        self._groups: dict[int, _GroupOnDevice] = {}

    def batch(
        self, images: NDArray[np.float16] | NDArray[np.float32] | torch.Tensor, indices: NDArray[np.int64]
    ) -> DeviceBatch:
        """Transform and centre images of particles, and give each its slice and CTF: see `dataset.fourier_batch`.

        Parameters
        ----------
        images : [m, n, n] float16 or float32, as they were read; from pinned memory the copy is not waited for
        indices : [m], of one optics group
        """
        particles, device = self._particles, self._device
        group = int(particles.group_of_particle[indices[0]])
        plane, optics = self._planes[group], particles.optics_groups[group]
        shared = self._shared(group)
        pixels = torch.as_tensor(images).to(device, non_blocking=True).float()
        observed = centre_images(
            torch.fft.rfft2(pixels).contiguous(), shared.points, shared.factors, self._sent(self._moves(indices))
        )
        if particles.noise_substitution is not None:
            phases = particles.noise_substitution.factors(indices, particles.half_set[indices], plane)
            observed *= torch.from_numpy(phases).to(device)
        scales = np.ones(len(indices)) if particles.group_scale is None else particles.group_scale[indices]
        ctf, adjoint = ctf_of_points(
            shared.waves,
            self._sent(self._waves_of_particles(indices)),
            self._sent(scales.astype(np.float32)),
            optics.ctf_state,
            optics.ctf_is_intact_to_first_peak,
        )
        rotations = conventions.rotation_matrices(particles.euler_angles_deg[indices])
        slices = slice_matrices(rotations, optics.magnification, plane.map_cycles)
        return DeviceBatch(indices, plane, group, slices, observed, ctf, adjoint, digests_of(pixels))

    def _moves(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Turns for a cycle on x and on y that move each particle to the centre, and each image's factor, [m, 3]."""
        particles = self._particles
        group = int(particles.group_of_particle[indices[0]])
        optics = particles.optics_groups[group]
        shifts_px = particles.shifts_in_angstroms[indices] / optics.pixel_size_in_angstroms
        norms = np.ones(len(indices)) if particles.norm_factor is None else particles.norm_factor[indices]
        return np.column_stack([-shifts_px / self._planes[group].box_size_px, norms])

    def _waves_of_particles(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of `ctf_of_points`, [m, 6]."""
        particles = self._particles
        bits = particles.ctf_bfactor_in_angstroms2[indices] * np.log2(np.e) / 4
        turns = phase_coefficients(particles, indices) / TURN
        return np.column_stack([turns, bits, particles.ctf_scale[indices]])

    def _shared(self, group: int) -> _GroupOnDevice:
        if group not in self._groups:
            plane = self._planes[group]
            waves, of_group = phase_planes(self._particles.optics_groups[group], plane)
            turns = of_group / TURN
            factors = conventions.centring_factors(plane).astype(np.complex128)
            of_images = image_factors(self._particles, group, plane)
            if of_images is not None:
                factors = factors * of_images
            kx, ky = torch.from_numpy(plane.kx), torch.from_numpy(plane.ky)
            self._groups[group] = _GroupOnDevice(
                PointPlaces.of(kx, ky, plane.box_size_px, self._device),
                self._sent(np.concatenate([waves[:3], turns[None]])),
                self._sent(factors.astype(np.complex64)),
            )
        return self._groups[group]

    def _sent(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def host_tensor(images: NDArray[np.float16] | NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """Images as a tensor from which a copy to a GPU need not be waited for."""
    tensor = torch.from_numpy(images)
    return tensor.pin_memory() if device.type == "cuda" else tensor
