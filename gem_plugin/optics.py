"""From a projection to the image of a particle, and back: the CTF and what else the microscope does, as in RELION."""

import numpy as np
from numpy.typing import NDArray

from gem_plugin.aberrations import (
    antisymmetric_phase,
    electron_wavelength_in_angstroms,
    frequencies_at_the_specimen,
    symmetric_phase,
)
from gem_plugin.conventions import HalfPlane
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles

Floats = NDArray[np.float64]
Factors = NDArray[np.float32]


def contrast_transfer(particles: Particles, indices: NDArray[np.int64], plane: HalfPlane) -> Floats:
    """CTF of the particles `indices`, of one optics group, at the Fourier points of `plane`.

    With k in 1/Angstrom, gamma = -pi lambda Df(k) |k|^2 + pi/2 Cs lambda^3 |k|^4 - phase shift - asin(Q0) + even
    Zernike terms, CTF = scale exp(-B |k|^2 / 4) (-sin gamma); underfocus positive, +Q0 at k = 0 (RELION, src/ctf.cpp
    and src/ctf.h), or 1 instead of -sin gamma up to the first peak, where |gamma| < pi/2, if the refinement ignored it
    there. The astigmatic defocus Df |k|^2 = (U+V)/2 |k|^2 + (U-V)/2 ((kx^2-ky^2) cos 2a + 2 kx ky sin 2a), so
    gamma is linear in a few numbers a particle and one matrix product gives it for all.

    Returns
    -------
    [m, points], within +-scale
    """
    optics = particles.optics_groups[particles.group_of_particle[indices[0]]]
    waves, of_group = phase_planes(optics, plane)
    k2 = waves[0]
    gamma = phase_coefficients(particles, indices) @ waves
    gamma += of_group
    ctf = -np.sin(gamma)
    if optics.ctf_is_intact_to_first_peak:
        ctf[np.abs(gamma) < np.pi / 2] = 1
    scale, bfactor = particles.ctf_scale[indices], particles.ctf_bfactor_in_angstroms2[indices]
    if np.any(bfactor != 0):
        ctf *= np.exp(-np.outer(bfactor, k2) / 4)
    if np.any(scale != 1):
        ctf *= scale[:, None]
    return np.asarray(ctf, dtype=np.float64)


def phase_coefficients(particles: Particles, indices: NDArray[np.int64]) -> Floats:
    """What each particle's gamma is made of, [m, 4]: factors of the `phase_planes`, particles of one optics group."""
    optics = particles.optics_groups[particles.group_of_particle[indices[0]]]
    wavelength = electron_wavelength_in_angstroms(optics.voltage_kv)
    u, v = particles.defocus_u_in_angstroms[indices], particles.defocus_v_in_angstroms[indices]
    twice_angle = 2 * np.radians(particles.defocus_angle_deg[indices])
    amplitude_contrast = optics.amplitude_contrast
    constant = np.radians(particles.phase_shift_deg[indices]) + np.arctan2(
        amplitude_contrast, np.sqrt(1 - amplitude_contrast**2)
    )
    return np.stack(
        [
            -np.pi * wavelength * (u + v) / 2,
            -np.pi * wavelength * (u - v) / 2 * np.cos(twice_angle),
            -np.pi * wavelength * (u - v) / 2 * np.sin(twice_angle),
            -constant,
        ],
        axis=1,
    )


def phase_planes(optics: OpticsGroup, plane: HalfPlane) -> tuple[Floats, Floats]:
    """Functions of frequency that gamma is made of: gamma = `phase_coefficients` @ waves + of_group.

    Returns
    -------
    waves : [4, points] k^2, kx^2 - ky^2, 2 kx ky in 1/Angstrom^2, and 1
    of_group : [points] radians, the same for all particles of the group
    """
    kx, ky = frequencies_at_the_specimen(optics, plane.kx, plane.ky)
    k2 = kx**2 + ky**2
    wavelength = electron_wavelength_in_angstroms(optics.voltage_kv)
    of_lens = np.pi / 2 * optics.spherical_aberration_mm * 1e7 * wavelength**3 * k2**2
    return np.stack([k2, kx**2 - ky**2, 2 * kx * ky, np.ones_like(k2)]), of_lens + symmetric_phase(optics, kx, ky)


def transfer_factors(particles: Particles, indices: NDArray[np.int64], plane: HalfPlane) -> tuple[Factors, Factors]:
    """What the map's slices are multiplied by in the images, and what the images are multiplied by in b.

    Of plain images both are the CTF and the same array; of phase-flipped ones its modulus; of CTF-corrected ones 1.
    Images that were multiplied by their CTF show CTF^2 times the slice and hold CTF times the noise, so that in b,
    which is weighted by plain noise, they are taken as they are. The scale of the particle's group, where known, is in
    both. RELION also keeps |CTF| above 1e-8, since it divides by it; nothing does so here.

    Returns
    -------
    transfer, adjoint : [m, points] each
    """
    state = particles.optics_groups[particles.group_of_particle[indices[0]]].ctf_state
    if state == "corrected":
        ctf = np.ones((len(indices), len(plane.kx)), dtype=np.float32)
    else:
        ctf = contrast_transfer(particles, indices, plane).astype(np.float32)
    if state == "phase-flipped":
        np.abs(ctf, out=ctf)
    adjoint = ctf
    if state == "premultiplied":
        ctf, adjoint = ctf * ctf, np.ones_like(ctf)
    if particles.group_scale is None:
        return ctf, adjoint
    scale = particles.group_scale[indices, None].astype(np.float32)
    scaled = ctf * scale
    return scaled, scaled if adjoint is ctf else adjoint * scale


def image_factors(particles: Particles, group: int, plane: HalfPlane) -> NDArray[np.complex64] | None:
    """What the transforms of an optics group's images are multiplied by to take out what is not in the CTF, [points].

    exp(-i phi) for the antisymmetric phase phi; and, where detectors differ, the mean of the groups' MTFs over the
    group's own (RELION, src/jaz/single_particle/obs_model.cpp). None where there is nothing to do.

    Parameters
    ----------
    group : index into the particles' optics groups
    plane : of the group's images
    """
    optics = particles.optics_groups[group]
    factors = np.ones(len(plane.kx), dtype=np.complex128)
    if any(optics.odd_zernike) or any(optics.beam_tilt_mrad):
        kx, ky = frequencies_at_the_specimen(optics, plane.kx, plane.ky)
        factors *= np.exp(-1j * antisymmetric_phase(optics, kx, ky))
    elif not particles.detector_responses:
        return None
    if particles.detector_responses:
        frequencies = plane.radius / optics.edge_in_angstroms
        of_groups = [response.at(frequencies) for response in particles.detector_responses]
        factors *= np.mean(of_groups, axis=0) / of_groups[group]
    return factors.astype(np.complex64)


def noise_transfer(particles: Particles, indices: NDArray[np.int64], plane: HalfPlane) -> Floats:
    """Mean power of the noise of the images of some particles of one group, over that of plain images, [points].

    Images that were multiplied by their CTF hold CTF^2 times the power.
    """
    if particles.optics_groups[particles.group_of_particle[indices[0]]].ctf_state != "premultiplied":
        return np.ones(len(plane.kx))
    return np.asarray(np.mean(contrast_transfer(particles, indices, plane) ** 2, axis=0))
