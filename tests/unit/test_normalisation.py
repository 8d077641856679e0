"""Images whose background is off are found, told and repaired; good ones are left as they are, to the bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.image_repair import ImageRepair, background_statistics
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.noise import background_weight
from gem_plugin.normalisation import find_repair
from gem_plugin.phantom import random_particles
from tests.unit.small_project import write_mrc

BOXES = (32, 27)
COUNT = 60
RADIUS = 20.0  # Angstrom


def particle_set(root: Path, scale: tuple[float, float] = (1, 1), mean: tuple[float, float] = (0, 0)) -> Particles:
    """Two optics groups, in a stack each, of images with a bright disc in white noise."""
    particles = random_particles(2 * COUNT, OpticsGroup("first", 2.0, BOXES[0], 300.0, 2.7, 0.1), seed=0)
    rng = np.random.default_rng(1)
    paths = (root / "a.mrcs", root / "b.mrcs")
    for path, n, factor, level in zip(paths, BOXES, scale, mean, strict=True):
        axis = np.arange(n) - n // 2
        disc = 2 * (np.hypot(axis[:, None], axis) < 8)
        write_mrc(path, ((rng.normal(size=(COUNT, n, n)) + disc) * factor + level).astype(np.float32))
    group = np.repeat(np.arange(2), COUNT).astype(np.int32)
    return dataclasses.replace(
        particles,
        optics_groups=(particles.optics_groups[0], OpticsGroup("second", 2.0, BOXES[1], 300.0, 2.7, 0.1)),
        group_of_particle=group,
        stack_paths=paths,
        stack_of_particle=group,
        image_in_stack=np.tile(np.arange(COUNT), 2),
    )


def read(particles: Particles, rows: np.ndarray) -> np.ndarray:
    with ImageReader(particles) as reader:
        return reader.read(rows)


def repaired(particles: Particles, is_inverting: bool = False) -> tuple[Particles, list[str]]:
    monitor = SilentMonitor()
    repair = find_repair(particles, RADIUS, is_inverting, 0, monitor)
    return dataclasses.replace(particles, image_repair=repair), monitor.warnings


def test_normalised_images_are_left_alone(tmp_path: Path) -> None:
    particles = particle_set(tmp_path, scale=(1.1, 0.9), mean=(0.1, -0.1))
    found, warnings = repaired(particles)
    assert found.image_repair is None
    assert warnings == []


@pytest.mark.parametrize(("scale", "mean"), [(3.0, 0.0), (0.5, 0.0), (1.0, 0.5), (12.0, 900.0)])
def test_the_group_that_is_off_is_repaired_and_told_once(tmp_path: Path, scale: float, mean: float) -> None:
    particles = particle_set(tmp_path, (scale, 1), (mean, 0))
    found, warnings = repaired(particles)
    assert len(warnings) == 1
    assert "optics group first" in warnings[0]
    assert "second" not in warnings[0]
    rows = np.arange(COUNT)
    images = read(found, rows)
    level, deviation = background_statistics(images, background_weight(BOXES[0], RADIUS / 2))
    np.testing.assert_allclose(level, 0, atol=2e-3)
    np.testing.assert_allclose(deviation, 1, atol=2e-3)
    untouched = read(particles, rows)
    for before, after in zip(untouched, images, strict=True):  # a shift and a positive factor, nothing else
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9999
    np.testing.assert_array_equal(read(found, rows + COUNT), read(particles, rows + COUNT))


def test_each_image_has_its_own_factor(tmp_path: Path) -> None:
    """A third of the images too strong: the group's middle is right, and every image is brought to it."""
    particles = particle_set(tmp_path)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(COUNT, BOXES[0], BOXES[0])).astype(np.float32)
    images[::3] *= 10
    write_mrc(particles.stack_paths[0], images)
    found, warnings = repaired(particles)
    assert len(warnings) == 1
    deviation = read(found, np.arange(COUNT)).std(axis=(1, 2))
    np.testing.assert_allclose(deviation, 1, atol=0.1)


def test_the_particle_is_not_background(tmp_path: Path) -> None:
    """The disc is bright: counting it would make the mean too high by far."""
    found, _ = repaired(particle_set(tmp_path, (5, 1)))
    images = read(found, np.arange(COUNT))
    assert images[:, 16, 16].mean() == pytest.approx(2, abs=0.4)


def test_inverted_images_are_the_negative(tmp_path: Path) -> None:
    particles = particle_set(tmp_path)
    found, warnings = repaired(particles, is_inverting=True)
    assert warnings == []
    rows = np.arange(5)
    np.testing.assert_array_equal(read(found, rows), -read(particles, rows))
    off, warnings = repaired(particle_set(tmp_path, (4, 1), (9, 0)), is_inverting=True)
    assert len(warnings) == 1
    assert read(off, np.arange(COUNT))[:, 16, 16].mean() == pytest.approx(-2, abs=0.4)


def test_images_without_noise_are_shifted_only() -> None:
    images = np.full((2, 8, 8), 3, np.float32)
    images[:, 4, 4] = 7
    background = np.ones((8, 8), np.float32)
    background[4, 4] = 0
    ImageRepair((background,)).apply(images, np.zeros(2, np.int32))
    assert np.all(images[:, 4, 4] == 4)
    assert np.count_nonzero(images) == 2
