"""White and black particles told apart by their maps, at low signal and in awkward shapes; no white one is refused."""

from pathlib import Path

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.contrast import Contrast, judge_contrast, measure_contrast
from gem_plugin.dataset import batches, fourier_batch
from gem_plugin.errors import InputError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles, read_particles
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import Accumulator
from gem_plugin.phantom import Phantom, make_phantom, random_particles, simulate_images

N, RADIUS = 32, 14.4
Map = np.ndarray
SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def model_free(particles: Particles, images: np.ndarray, indices: np.ndarray, radius_px: float) -> Map:
    n = images.shape[1]
    plane = conventions.half_plane(n, n / 2 - 0.5)
    accumulator = Accumulator(plane, np.full(len(plane.kx), n * n, np.float32), 1)
    for chunk in batches(indices, 200):
        accumulator.add(fourier_batch(particles, images[chunk], chunk, plane))
    return solve_model_free(accumulator.finish(), radius_px, 1)


def quarters(particles: Particles, images: np.ndarray, radius_px: float = RADIUS) -> tuple[Map, Map]:
    rows = np.arange(len(images))
    return model_free(particles, images, rows[0::2], radius_px), model_free(particles, images, rows[1::2], radius_px)


def hollow_phantom() -> Phantom:
    rng = np.random.default_rng(5)
    direction = rng.normal(size=(500, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    radius = rng.uniform(8.0**3, 11.0**3, 500) ** (1 / 3)
    return Phantom(N, 0.7, direction * radius[:, None], np.full(500, 7.0))


def phantom_quarters(phantom: Phantom, snr: float, count: int, sign: int) -> tuple[Map, Map]:
    particles = random_particles(count, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=3)
    return quarters(particles, sign * simulate_images(phantom, particles, snr=snr, seed=4).images)


@pytest.mark.parametrize(
    ("shape", "snr", "count"), [("compact", 0.02, 300), ("compact", 0.005, 600), ("hollow", 0.05, 500)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_particles_of_both_contrasts_are_told_apart(shape: str, snr: float, count: int, sign: int) -> None:
    phantom = make_phantom(N, 0) if shape == "compact" else hollow_phantom()
    contrast = measure_contrast(phantom_quarters(phantom, snr, count, sign), RADIUS)
    assert contrast.is_inverted is (sign < 0), contrast
    assert not contrast.is_doubtful, contrast
    if sign > 0:
        assert judge_contrast(contrast, None) == ""
    else:
        with pytest.raises(InputError, match="give --invert_contrast, or extract"):
            judge_contrast(contrast, None)


@pytest.mark.parametrize("sign", [1, -1])
def test_noise_has_no_contrast(sign: int) -> None:
    particles = random_particles(300, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=3)
    for seed in range(3):
        images = sign * np.random.default_rng(seed).normal(size=(300, N, N)).astype(np.float32)
        contrast = measure_contrast(quarters(particles, images), RADIUS)
        assert not contrast.is_inverted
        assert not contrast.is_doubtful


def test_noise_that_is_skewed_does_not_decide() -> None:
    """Each map's own noise has a dark tail that is stronger than the signal's bright one: the product has neither."""
    white = phantom_quarters(make_phantom(N, 0), 0.02, 300, 1)
    rng = np.random.default_rng(0)
    tail = [rng.exponential(size=(N, N, N)) * 1.5 * white[0].std() for _ in range(2)]
    contrast = measure_contrast((white[0] - tail[0], white[1] - tail[1]), RADIUS)
    assert contrast.skewness > 1, contrast


def test_a_sphere_that_cuts_a_white_particle_is_not_called_black() -> None:
    phantom = hollow_phantom()
    particles = random_particles(300, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=3)
    images = simulate_images(phantom, particles, snr=0.02, seed=4).images
    assert not measure_contrast(quarters(particles, images, 9.0), 9.0).is_inverted


def test_the_option_decides_what_is_said() -> None:
    black, white = Contrast(-1.5, -0.6), Contrast(1.5, 0.6)
    assert all(judge_contrast(white, option) == "" for option in (None, True, False))
    with pytest.raises(InputError, match=r"leave --invert_contrast out: the particles are white without it$"):
        judge_contrast(black, True)
    assert "--invert_contrast no" in judge_contrast(black, False)
    assert "may be black" in judge_contrast(Contrast(-1.5, 0.3), None)
    assert judge_contrast(Contrast(-0.2, -0.5), None) == ""


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not there")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("diameter", [0.9, 0.7])
def test_real_particles_of_both_contrasts_are_told_apart(sign: int, diameter: float) -> None:
    root = SHARED_DATA / "betagal_10204"
    particles = read_particles(root / "Refine3D/job029/run_data.star", project_directory=root)
    rows = np.flatnonzero(particles.half_set == 1)[:100]
    images = np.zeros((len(particles), 64, 64), np.float32)
    with ImageReader(particles) as reader:
        images[rows] = sign * reader.read(rows)
    radius = diameter * 32
    maps = (model_free(particles, images, rows[0::2], radius), model_free(particles, images, rows[1::2], radius))
    contrast = measure_contrast(maps, radius)
    assert contrast.is_inverted is (sign < 0), contrast
