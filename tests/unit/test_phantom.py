"""The phantom against sums written out by hand: closed forms, not another transform library."""

import dataclasses

import numpy as np
import pytest

from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images

OPTICS = OpticsGroup("opticsGroup1", 2.0, 32, 300.0, 2.7, 0.1)


def gaussian_projection(phantom, rotation, shift_px):
    """Image [y, x] of the blobs, summed in real space."""
    axis = np.arange(phantom.box_size_px) - phantom.box_size_px // 2
    image = np.zeros((phantom.box_size_px,) * 2)
    for centre, amplitude in zip(phantom.centres_px, phantom.amplitudes, strict=True):
        x, y = (rotation @ centre)[:2] - shift_px
        row, column = (np.exp(-0.5 * ((axis - c) / phantom.sigma_px) ** 2) for c in (y, x))
        image += amplitude * np.outer(row, column) / (2 * np.pi * phantom.sigma_px**2)
    return image


def euler_matrix(rot, tilt, psi):
    """Passive ZYZ rotation from three elementary matrices."""

    def about_z(t):
        return np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    return about_z(psi) @ about_y @ about_z(rot)


def test_a_blob_of_the_map_lies_where_its_centre_says():
    phantom = Phantom(24, 1.3, np.array([[3.0, -2.0, 5.0]]), np.array([7.0]))
    found = density(phantom)
    axis = np.arange(24) - 12
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    squared = (x - 3) ** 2 + (y + 2) ** 2 + (z - 5) ** 2
    expected = 7.0 * np.exp(-squared / (2 * 1.3**2)) / (2 * np.pi * 1.3**2) ** 1.5
    assert np.abs(found - expected).max() < 1e-3 * expected.max()


@pytest.mark.parametrize("seed", [0, 1])
def test_images_are_projections_of_the_blobs_in_relions_geometry(seed):
    phantom = make_phantom(32, seed, sigma_px=1.3)  # wide enough for sampling in real space
    particles = random_particles(4, OPTICS, seed)
    images = simulate_images(phantom, particles, snr=None, with_ctf=False).images
    for i, image in enumerate(images):
        rotation = euler_matrix(*np.radians(particles.euler_angles_deg[i]))
        expected = gaussian_projection(phantom, rotation, particles.shifts_in_angstroms[i] / 2.0)
        expected -= expected.mean()  # k = 0 is left out
        assert np.linalg.norm(image - expected) < 0.01 * np.linalg.norm(expected)


def test_projection_along_z_is_the_sum_of_the_maps_voxels():
    phantom = make_phantom(32, 3)
    particles = random_particles(1, OPTICS)
    particles = dataclasses.replace(particles, euler_angles_deg=np.zeros((1, 3)), shifts_in_angstroms=np.zeros((1, 2)))
    simulated = simulate_images(phantom, particles, snr=None, with_ctf=False)
    summed = simulated.truth.sum(axis=0)
    assert np.abs(simulated.images[0] - (summed - summed.mean())).max() < 1e-4 * summed.max()


def test_the_ctf_multiplies_the_transform_of_the_image():
    phantom = make_phantom(32, 0)
    particles = random_particles(1, OPTICS, 5)
    plain = simulate_images(phantom, particles, snr=None, with_ctf=False).images[0]
    imaged = simulate_images(phantom, particles, snr=None).images[0]
    ky, kx = 3, 7
    edge = 32 * 2.0
    volts = 300e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    squared = (kx**2 + ky**2) / edge**2
    azimuth = np.arctan2(ky, kx) - np.radians(particles.defocus_angle_deg[0])
    u, v = particles.defocus_u_in_angstroms[0], particles.defocus_v_in_angstroms[0]
    defocus = u * np.cos(azimuth) ** 2 + v * np.sin(azimuth) ** 2
    gamma = -np.pi * wavelength * defocus * squared + np.pi / 2 * 2.7e7 * wavelength**3 * squared**2 - np.arcsin(0.1)
    ratio = np.fft.fft2(imaged)[ky, kx] / np.fft.fft2(plain)[ky, kx]
    assert ratio.real == pytest.approx(-np.sin(gamma), abs=1e-3)
    assert abs(ratio.imag) < 1e-3


def test_noise_and_signal_have_the_stated_variances():
    phantom = make_phantom(32, 0)
    particles = random_particles(300, OPTICS, 1)
    noisy = simulate_images(phantom, particles, snr=0.5, seed=1).images
    other = simulate_images(phantom, particles, snr=0.5, seed=2).images
    shared = np.mean(noisy * other) / np.mean(noisy**2)
    assert noisy.var() == pytest.approx(1.5, rel=0.02)
    assert shared == pytest.approx(0.5 / 1.5, rel=0.02)


def test_the_truth_is_on_the_greyscale_of_the_images():
    phantom = make_phantom(32, 0)
    particles = random_particles(200, OPTICS, 1)
    clean = simulate_images(phantom, particles, snr=None)
    noisy = simulate_images(phantom, particles, snr=2.0)
    scale = np.vdot(clean.truth, noisy.truth) / np.vdot(clean.truth, clean.truth)
    slope = np.vdot(clean.images, noisy.images) / np.vdot(clean.images, clean.images)
    assert slope == pytest.approx(scale, rel=0.01)


def test_pure_noise_holds_no_signal():
    phantom = make_phantom(32, 0)
    particles = random_particles(200, OPTICS, 1)
    signal = simulate_images(phantom, particles, snr=None).images
    noise = simulate_images(phantom, particles, snr=0.0).images
    correlation = np.vdot(signal, noise) / np.linalg.norm(signal) / np.linalg.norm(noise)
    assert abs(correlation) < 5 / np.sqrt(signal.size)
    assert noise.std() == pytest.approx(1.0, rel=0.01)


def test_seeds_decide_everything():
    assert np.array_equal(make_phantom(32, 4).centres_px, make_phantom(32, 4).centres_px)
    assert not np.array_equal(make_phantom(32, 4).centres_px, make_phantom(32, 5).centres_px)
    first, again, other = (random_particles(9, OPTICS, seed).euler_angles_deg for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_molecule_is_asymmetric_compact_and_within_half_the_box():
    phantom = make_phantom(64, 0)
    assert np.linalg.norm(phantom.centres_px, axis=1).max() < 16
    assert 700 < len(phantom.amplitudes) < 1500
    found = density(phantom)
    norm = np.vdot(found, found)
    for axes in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        turned = np.roll(np.flip(found, axes), 1, axes)  # about voxel n // 2
        assert np.vdot(found, turned) / norm < 0.95


def test_poses_cover_the_sphere_evenly():
    particles = random_particles(4000, OPTICS, 0)
    tilt = np.radians(particles.euler_angles_deg[:, 1])
    assert np.cos(tilt).mean() == pytest.approx(0.0, abs=0.03)
    assert np.cos(tilt).var() == pytest.approx(1 / 3, abs=0.02)
    assert np.bincount(particles.half_set)[1:].tolist() == [2000, 2000]
