"""The CTF against its textbook formula, written out per particle; RELION judges it in tests/interop."""

import dataclasses

import numpy as np

from gem_plugin.aberrations import electron_wavelength_in_angstroms
from gem_plugin.conventions import half_plane
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.optics import contrast_transfer
from gem_plugin.phantom import random_particles

OPTICS = OpticsGroup("one", 1.7, 32, 300.0, 2.7, 0.08)


def test_wavelength_is_the_known_one() -> None:
    assert abs(electron_wavelength_in_angstroms(300.0) - 0.0196875) < 2e-6
    assert abs(electron_wavelength_in_angstroms(200.0) - 0.0250793) < 2e-6


def test_ctf_is_the_formula_with_astigmatism_phase_shift_bfactor_and_scale() -> None:
    particles = random_particles(5, OPTICS, seed=3)
    particles = dataclasses.replace(
        particles,
        phase_shift_deg=np.linspace(0, 90, 5),
        ctf_bfactor_in_angstroms2=np.linspace(0, 80, 5),
        ctf_scale=np.linspace(0.7, 1.2, 5),
        defocus_v_in_angstroms=particles.defocus_u_in_angstroms - 2000,
    )
    plane = half_plane(32, 15.5)
    found = contrast_transfer(particles, np.arange(5), plane)
    wavelength = electron_wavelength_in_angstroms(300.0)
    for i in range(5):
        kx, ky = plane.kx / (32 * 1.7), plane.ky / (32 * 1.7)
        k = np.hypot(kx, ky)
        angle = np.arctan2(ky, kx) - np.radians(particles.defocus_angle_deg[i])
        u, v = particles.defocus_u_in_angstroms[i], particles.defocus_v_in_angstroms[i]
        defocus = u * np.cos(angle) ** 2 + v * np.sin(angle) ** 2
        gamma = -np.pi * wavelength * defocus * k**2 + np.pi / 2 * 2.7e7 * wavelength**3 * k**4
        gamma -= np.radians(particles.phase_shift_deg[i]) + np.arcsin(0.08)
        expected = -np.sin(gamma) * particles.ctf_scale[i] * np.exp(-particles.ctf_bfactor_in_angstroms2[i] * k**2 / 4)
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


def test_a_ctf_that_is_ignored_to_its_first_peak_is_1_there_and_itself_beyond() -> None:
    """The peak of an astigmatic CTF with a B-factor, found on a ray as the first place where sin gamma is -1."""
    ignored = dataclasses.replace(OPTICS, ctf_is_intact_to_first_peak=True)
    particles = random_particles(4, ignored, seed=3)
    particles = dataclasses.replace(particles, ctf_bfactor_in_angstroms2=np.full(4, 50.0))
    plane = half_plane(32, 15.5)
    found = contrast_transfer(particles, np.arange(4), plane)
    whole = contrast_transfer(dataclasses.replace(particles, optics_groups=(OPTICS,)), np.arange(4), plane)
    envelope = np.exp(-50 * (np.hypot(plane.kx, plane.ky) / (32 * 1.7)) ** 2 / 4)
    on_axis = np.flatnonzero(plane.ky == 0)
    on_axis = on_axis[np.argsort(plane.kx[on_axis])]
    for i in range(4):
        peak = on_axis[np.argmax(np.diff(np.abs(whole[i, on_axis] / envelope[on_axis])) < 0)]
        inside = on_axis[(plane.kx[on_axis] < plane.kx[peak])]
        np.testing.assert_allclose(found[i, inside], envelope[inside])
        beyond = np.hypot(plane.kx, plane.ky) > 1.5 * plane.kx[peak]
        np.testing.assert_array_equal(found[i, beyond], whole[i, beyond])
        assert len(inside)
        assert not np.allclose(whole[i, inside], envelope[inside], atol=0.1)


def test_low_frequencies_are_white_on_black() -> None:
    """Near k = 0 the CTF is + amplitude contrast: dense is white, as in RELION."""
    particles = random_particles(3, dataclasses.replace(OPTICS, pixel_size_in_angstroms=50.0), seed=0)
    plane = half_plane(32, 1.0)
    assert np.all(contrast_transfer(particles, np.arange(3), plane) > 0.07)
