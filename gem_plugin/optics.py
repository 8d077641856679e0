"""The contrast transfer function of a batch of particles, as RELION computes it."""

import numpy as np
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.io.particles import Particles

Floats = NDArray[np.float64]


def electron_wavelength_in_angstroms(voltage_kv: float) -> float:
    """Relativistic electron wavelength with RELION's constants (src/ctf.cpp)."""
    volts = 1e3 * voltage_kv
    return float(12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))


def contrast_transfer(particles: Particles, indices: NDArray[np.int64], plane: HalfPlane) -> Floats:
    """CTF of the particles `indices`, of one optics group, at the Fourier points of `plane`.

    With k in 1/Angstrom, gamma = -pi lambda Df(k) |k|^2 + pi/2 Cs lambda^3 |k|^4 - phase shift - asin(Q0),
    CTF = scale exp(-B |k|^2 / 4) (-sin gamma); underfocus positive, +Q0 at k = 0 (RELION, src/ctf.cpp and src/ctf.h).
    The astigmatic defocus Df |k|^2 = (U+V)/2 |k|^2 + (U-V)/2 ((kx^2-ky^2) cos 2a + 2 kx ky sin 2a), so gamma is
    linear in a few numbers a particle and one matrix product gives it for all.

    Returns
    -------
    [m, points], within +-scale
    """
    optics = particles.optics_groups[particles.group_of_particle[indices[0]]]
    edge = plane.box_size_px * optics.pixel_size_in_angstroms
    kx, ky = np.reshape(optics.magnification, (2, 2)) @ np.stack([plane.kx / edge, plane.ky / edge])
    k2 = kx**2 + ky**2
    wavelength = electron_wavelength_in_angstroms(optics.voltage_kv)
    u, v = particles.defocus_u_in_angstroms[indices], particles.defocus_v_in_angstroms[indices]
    twice_angle = 2 * np.radians(particles.defocus_angle_deg[indices])
    amplitude_contrast = optics.amplitude_contrast
    constant = np.radians(particles.phase_shift_deg[indices]) + np.arctan2(
        amplitude_contrast, np.sqrt(1 - amplitude_contrast**2)
    )
    per_particle = np.stack(
        [
            -np.pi * wavelength * (u + v) / 2,
            -np.pi * wavelength * (u - v) / 2 * np.cos(twice_angle),
            -np.pi * wavelength * (u - v) / 2 * np.sin(twice_angle),
            -constant,
        ],
        axis=1,
    )
    gamma = per_particle @ np.stack([k2, kx**2 - ky**2, 2 * kx * ky, np.ones_like(k2)])
    gamma += np.pi / 2 * optics.spherical_aberration_mm * 1e7 * wavelength**3 * k2**2
    ctf = -np.sin(gamma)
    scale, bfactor = particles.ctf_scale[indices], particles.ctf_bfactor_in_angstroms2[indices]
    if np.any(bfactor != 0):
        ctf *= np.exp(-np.outer(bfactor, k2) / 4)
    if np.any(scale != 1):
        ctf *= scale[:, None]
    return np.asarray(ctf, dtype=np.float64)
