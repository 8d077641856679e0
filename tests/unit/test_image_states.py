"""Images that others have treated: their transfer, their noise, and the factors that images are multiplied by."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.conventions import half_plane
from gem_plugin.dataset import fourier_batch
from gem_plugin.io.mtf import DetectorResponse
from gem_plugin.io.optics_table import CtfState, OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.noise import measure_noise_of_groups
from gem_plugin.optics import contrast_transfer, image_factors, transfer_factors
from gem_plugin.phantom import random_particles

BOX, COUNT = 48, 200
GROUP = OpticsGroup("one", 1.7, BOX, 300.0, 2.7, 0.1)
PLANE = half_plane(BOX, BOX)


def particles_of(state: CtfState = "plain", **changes: object) -> Particles:
    particles = random_particles(COUNT, dataclasses.replace(GROUP, ctf_state=state), seed=1)
    return dataclasses.replace(particles, **changes)


class Reader:
    """Stands in for a reader: images in memory."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.images[indices]


def measured(particles: Particles, images: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    everyone, seed = np.arange(len(particles)), np.random.SeedSequence(0)
    noise = measure_noise_of_groups(particles, Reader(images), everyone, 0.3 * BOX, seed, SilentMonitor())
    return tuple(one.power for one in noise)


def white(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(COUNT, BOX, BOX)).astype(np.float32)


def filtered(images: NDArray[np.float32], factors: NDArray[np.float64]) -> NDArray[np.float32]:
    spectra = np.fft.rfft2(images)
    result = np.zeros_like(spectra)
    result[:, PLANE.ky, PLANE.kx] = spectra[:, PLANE.ky, PLANE.kx] * factors
    return np.fft.irfft2(result, s=(BOX, BOX), axes=(1, 2)).astype(np.float32)


def test_transfer_and_adjoint_of_each_state() -> None:
    indices = np.arange(5)
    ctf = contrast_transfer(particles_of(), indices, PLANE).astype(np.float32)
    expected = {
        "plain": (ctf, ctf),
        "phase-flipped": (np.abs(ctf), np.abs(ctf)),
        "corrected": (np.ones_like(ctf), np.ones_like(ctf)),
        "premultiplied": (ctf**2, np.ones_like(ctf)),
    }
    for state, (transfer, adjoint) in expected.items():
        found = transfer_factors(particles_of(state), indices, PLANE)
        np.testing.assert_allclose(found[0], transfer, atol=1e-7)
        np.testing.assert_allclose(found[1], adjoint, atol=1e-7)


@pytest.mark.parametrize("state", ["plain", "phase-flipped", "corrected", "premultiplied"])
def test_the_scale_of_a_group_is_in_transfer_and_adjoint(state: CtfState) -> None:
    indices = np.array([3, 7])
    scale = np.linspace(0.5, 2, COUNT)
    plain = transfer_factors(particles_of(state), indices, PLANE)
    scaled = transfer_factors(particles_of(state, group_scale=scale), indices, PLANE)
    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(other, one * scale[indices, None], rtol=1e-6)


def test_images_are_multiplied_by_their_norm_factor_alone() -> None:
    factor = np.linspace(0.5, 2, COUNT)
    indices = np.array([3, 7])
    plain = fourier_batch(particles_of(), white()[indices], indices, PLANE)
    scaled = fourier_batch(particles_of(norm_factor=factor), white()[indices], indices, PLANE)
    np.testing.assert_allclose(scaled.observed, plain.observed * factor[indices, None], rtol=1e-5)
    np.testing.assert_array_equal(scaled.ctf, plain.ctf)
    np.testing.assert_array_equal(scaled.digests, plain.digests)


def test_noise_is_measured_with_the_norm_factors() -> None:
    factor = np.full(COUNT, 3.0)
    (power,) = measured(particles_of(norm_factor=factor), white() / 3)
    np.testing.assert_allclose(power / BOX**2, 1, atol=0.05)


def test_plain_noise_is_found_in_premultiplied_images() -> None:
    """The window mixes shells where the CTF is steep, so the finest shells are the least certain."""
    particles = particles_of("premultiplied")
    ctf = contrast_transfer(particles, np.arange(COUNT), PLANE)
    (power,) = measured(particles, filtered(white(), ctf))
    assert np.all(np.abs(power[3:] / BOX**2 - 1) < 0.15)
    (naive,) = measured(particles_of(), filtered(white(), ctf))
    assert naive[10:].mean() < 0.7 * BOX**2


def test_plain_images_of_premultiplied_ones_have_plain_noise() -> None:
    particles = particles_of("premultiplied", group_scale=np.full(COUNT, 2.0))
    indices = np.arange(COUNT)
    ctf = contrast_transfer(particles, indices, PLANE)
    batch = fourier_batch(particles, filtered(white(), ctf), indices, PLANE)
    observed, transfer = batch.plain()
    strong = np.abs(ctf) > 0.3
    assert np.mean(np.abs(observed[strong]) ** 2) / BOX**2 == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(transfer[strong], 2 * np.abs(ctf[strong]), rtol=1e-4)


def detectors(*values_at_nyquist: float) -> tuple[DetectorResponse, ...]:
    frequencies = np.array([0, 0.5 / 1.7])
    return tuple(DetectorResponse(frequencies, np.array([1.0, value])) for value in values_at_nyquist)


def test_images_are_brought_to_the_mean_detector_with_their_noise() -> None:
    groups = (GROUP, dataclasses.replace(GROUP, name="two"))
    group_of = (np.arange(COUNT) % 2).astype(np.int32)
    particles = particles_of(optics_groups=groups, group_of_particle=group_of, detector_responses=detectors(0.8, 0.4))
    at_nyquist = np.argmin(np.hypot(PLANE.kx - BOX // 2 + 1, PLANE.ky))
    fraction = PLANE.kx[at_nyquist] / (BOX / 2)
    values = [1 - 0.2 * fraction, 1 - 0.6 * fraction]
    for group in range(2):
        factors = image_factors(particles, group, PLANE)
        assert factors is not None
        assert factors[at_nyquist] == pytest.approx(np.mean(values) / values[group], rel=1e-5)
    first, second = measured(particles, white())
    shell = PLANE.kx[at_nyquist]
    assert second[shell] / first[shell] == pytest.approx((values[0] / values[1]) ** 2, rel=0.15)


def test_one_detector_is_left_alone() -> None:
    assert image_factors(particles_of(), 0, PLANE) is None
