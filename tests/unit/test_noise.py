"""The noise spectrum against noise whose spectrum is known."""

from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.noise import Noise, measure_noise
from gem_plugin.phantom import random_particles

BOX, RADIUS, COUNT = 48, 12.0, 600
SHELL = np.rint(np.hypot(np.fft.fftfreq(BOX, 1 / BOX)[:, None], np.fft.fftfreq(BOX, 1 / BOX))).astype(int)
MEASURED = slice(3, BOX // 2)  # below, the background's own mean is missing


class Images:
    """Stands in for a reader: images in memory."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.images[indices]


def white(seed: int = 0, deviation: float = 1.0) -> NDArray[np.float32]:
    return (deviation * np.random.default_rng(seed).normal(size=(COUNT, BOX, BOX))).astype(np.float32)


def disc() -> NDArray[np.bool_]:
    axis = np.arange(BOX) - BOX // 2
    return np.hypot(axis[:, None], axis) < RADIUS - 1


def particles() -> Particles:
    return random_particles(COUNT, OpticsGroup("one", 1.5, BOX, 300.0, 2.7, 0.1), seed=0)


def measured(images: NDArray[np.float32], monitor: SilentMonitor | None = None) -> Noise:
    reader, monitor = cast(ImageReader, Images(images)), monitor or SilentMonitor()
    return measure_noise(particles(), reader, np.arange(COUNT), RADIUS, np.random.SeedSequence(1), monitor)


def test_white_noise_has_the_variance_of_an_unnormalised_transform_in_every_shell() -> None:
    noise = measured(white(deviation=1.1))
    np.testing.assert_allclose(noise.power[MEASURED], 1.1**2 * BOX**2, rtol=0.03)
    assert noise.background_standard_deviation == pytest.approx(1.1, rel=0.01)
    assert noise.background_mean == pytest.approx(0, abs=0.01)


def test_coloured_noise_keeps_its_colour() -> None:
    amplitude = 1 / (1 + (SHELL / 12.0) ** 2)
    images = np.fft.ifft2(np.fft.fft2(white()) * amplitude).real.astype(np.float32)
    expected = np.array([BOX**2 * np.mean(amplitude[shell == SHELL] ** 2) for shell in range(BOX // 2 + 1)])
    found = measured(images).power
    np.testing.assert_allclose(found[4 : BOX // 2], expected[4 : BOX // 2], rtol=0.15)


def test_the_particle_does_not_count_as_noise() -> None:
    images = white()
    with_particle = images + np.float32(5) * disc()
    np.testing.assert_allclose(measured(with_particle).power[MEASURED], measured(images).power[MEASURED], rtol=1e-3)


def test_a_background_that_was_not_normalised_is_told() -> None:
    monitor = SilentMonitor()
    measured(white(), monitor)
    assert monitor.warnings == []
    measured(white(deviation=1.5), monitor)
    measured(white() + np.float32(0.4), monitor)
    assert ["standard deviation 1.50" in w for w in monitor.warnings] == [True, False]
    assert ["mean 0.40" in w for w in monitor.warnings] == [False, True]


def test_images_without_background_are_refused() -> None:
    with pytest.raises(InputError, match="no noise outside the particle"):
        measured(white() * disc())
