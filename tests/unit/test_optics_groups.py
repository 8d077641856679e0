"""Images of several pixel and box sizes, on one map."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.config import ReconstructionConfig
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.half_data import QuarterSets, accumulate_quarters
from gem_plugin.imaging import image_kinds, image_planes, slice_matrices
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.noise import noise_power_at
from gem_plugin.particle_results import particle_results
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images
from gem_plugin.prediction import Imaging
from gem_plugin.render import choose_render_box
from gem_plugin.run import Run
from gem_plugin.symmetry import NO_SYMMETRY

COUNT = 400  # of each kind
FIRST = OpticsGroup("first", 3.0, 32, 300.0, 2.7, 0.1)
OTHERS = {
    "finer pixels": OpticsGroup("second", 2.5, 40, 200.0, 1.4, 0.07),
    "wider box": OpticsGroup("second", 3.0, 40, 300.0, 2.7, 0.1),
    "odd box": OpticsGroup("second", 2.8, 35, 300.0, 2.7, 0.1),
}
GREYSCALE = 1.6  # of the second kind's images beside the first's
SIGNAL = 1.0  # standard deviation of the first kind's, without the CTF


class Reader:
    """Stands in for a reader: images in memory, of one box at a call."""

    images: tuple[NDArray[np.float32], NDArray[np.float32]]

    def __init__(self, particles: Particles) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        kinds = np.unique(indices // COUNT)
        assert len(kinds) == 1
        return self.images[int(kinds[0])][indices % COUNT]


def in_pixels_of(phantom: Phantom, group: OpticsGroup) -> Phantom:
    ratio = FIRST.pixel_size_in_angstroms / group.pixel_size_in_angstroms
    return Phantom(group.box_size_px, phantom.sigma_px * ratio, phantom.centres_px * ratio, phantom.amplitudes)


@pytest.fixture(params=list(OTHERS))
def second(request: pytest.FixtureRequest) -> OpticsGroup:
    return OTHERS[request.param]


@pytest.fixture
def data(second: OpticsGroup, monkeypatch: pytest.MonkeyPatch) -> tuple[Particles, Phantom]:
    """All in half set 1; half the images of each kind, CTF, shifts and white noise of standard deviation 1."""
    phantom = make_phantom(FIRST.box_size_px, 0)
    sets, images = [], []
    rng = np.random.default_rng(3)
    for group, signal in ((FIRST, SIGNAL), (second, SIGNAL * GREYSCALE)):
        particles = random_particles(COUNT, group, seed=len(sets))
        clean = simulate_images(in_pixels_of(phantom, group), particles, snr=None).images
        scale = signal / simulate_images(phantom, random_particles(50, FIRST, 0), snr=None).images.std()
        images.append((clean * scale + rng.normal(size=clean.shape)).astype(np.float32))
        sets.append(particles)
    joined = {
        field.name: np.concatenate([getattr(one, field.name) for one in sets])
        for field in dataclasses.fields(Particles)
        if isinstance(getattr(sets[0], field.name), np.ndarray)
    }
    joined["group_of_particle"] = np.repeat(np.arange(2, dtype=np.int32), COUNT)
    joined["half_set"] = np.ones(2 * COUNT, dtype=np.int8)
    together = dataclasses.replace(sets[0], optics_groups=(FIRST, second), **joined)
    monkeypatch.setattr(Reader, "images", tuple(images), raising=False)
    monkeypatch.setattr("gem_plugin.io.images.ImageReader", Reader)
    return together, phantom


@pytest.fixture
def run() -> Run:
    plane = conventions.half_plane(FIRST.box_size_px, FIRST.box_size_px / 2 - 0.5)
    box = choose_render_box(plane)
    return Run(ReconstructionConfig(), "cpu", 2, plane, box, 12.0, NO_SYMMETRY, SilentMonitor())


@pytest.fixture
def quarters(data: tuple[Particles, Phantom], run: Run) -> QuarterSets:
    seeds = np.random.SeedSequence(0).spawn(2)
    return accumulate_quarters(data[0], 1, run, "Half 1", seeds[0], seeds[1])


def test_the_second_kinds_greyscale_is_found(quarters: QuarterSets) -> None:
    assert quarters.greyscale[0] == 1
    assert quarters.greyscale[1] == pytest.approx(GREYSCALE, rel=0.02)


def test_both_kinds_make_one_map(quarters: QuarterSets, data: tuple[Particles, Phantom], run: Run) -> None:
    """Better than the first kind alone, which is half the data."""
    truth = density(data[1])
    both = fourier_shell_correlation(quarters.half_map, truth)
    particles = data[0]
    alone = dataclasses.replace(particles, half_set=(1 + particles.group_of_particle).astype(np.int8))
    seeds = np.random.SeedSequence(0).spawn(2)
    first = fourier_shell_correlation(accumulate_quarters(alone, 1, run, "", seeds[0], seeds[1]).half_map, truth)
    second = fourier_shell_correlation(accumulate_quarters(alone, 2, run, "", seeds[0], seeds[1]).half_map, truth)
    assert both[1:11].min() > 0.97
    assert both[8:13].mean() > max(first[8:13].mean(), second[8:13].mean())
    # the second kind alone lies at the same place, on the same map
    assert second[1:11].min() > 0.95


def test_every_particle_fits_its_projection(
    quarters: QuarterSets, data: tuple[Particles, Phantom], run: Run, second: OpticsGroup
) -> None:
    """Scales are one and residuals the noise, for the truth's own blobs as Gaussians."""
    particles, phantom = data
    planes = image_planes(particles, run.plane)
    imaging = Imaging(
        run.plane,
        planes,
        tuple(noise_power_at(noise, plane) for noise, plane in zip(quarters.noise, planes, strict=True)),
        quarters.greyscale,
        tuple(choose_render_box(plane) for plane in planes),
    )
    n = len(phantom.amplitudes)
    scale = SIGNAL / simulate_images(phantom, random_particles(50, FIRST, 0), snr=None).images.std()
    truth = Gaussians(
        phantom.centres_px.astype(np.float32),
        np.full((n, 3), np.log(phantom.sigma_px), dtype=np.float32),
        np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (n, 1)),
        (phantom.amplitudes * scale).astype(np.float32),
    )
    found = particle_results(
        truth, particles, np.arange(2 * COUNT), imaging, engine="cpu", n_threads=2, monitor=SilentMonitor()
    )
    for kind in (slice(0, COUNT), slice(COUNT, None)):
        assert np.median(found.scale[kind]) == pytest.approx(1, abs=0.03)
        assert np.median(found.normalised_residual[kind]) == pytest.approx(1, abs=0.15)


def test_kinds_are_box_and_pixel_size(data: tuple[Particles, Phantom]) -> None:
    particles = data[0]
    third = dataclasses.replace(FIRST, name="third", beam_tilt_mrad=(0.1, 0.0))
    three = dataclasses.replace(particles, optics_groups=(*particles.optics_groups, third))
    np.testing.assert_array_equal(image_kinds(three), [0, 1, 0])
    treated = dataclasses.replace(FIRST, ctf_state="premultiplied")
    four = dataclasses.replace(particles, optics_groups=(*three.optics_groups, treated))
    np.testing.assert_array_equal(image_kinds(four), [0, 1, 0, 2])


def test_no_point_lies_beyond_the_maps_last(data: tuple[Particles, Phantom], run: Run) -> None:
    for group, plane in zip(data[0].optics_groups, image_planes(data[0], run.plane), strict=True):
        assert plane.box_size_px == group.box_size_px
        assert plane.radius.max() * plane.map_cycles <= run.plane.radius.max() + 1e-3
        assert plane.radius.max() <= group.box_size_px / 2 - 0.5


def test_the_map_has_the_pixels_of_most_particles(data: tuple[Particles, Phantom], second: OpticsGroup) -> None:
    particles = data[0]
    assert particles.optics.pixel_size_in_angstroms == FIRST.pixel_size_in_angstroms
    kept = np.arange(2 * COUNT) >= COUNT - 1
    fewer = dataclasses.replace(particles, group_of_particle=particles.group_of_particle[kept])
    assert fewer.optics.pixel_size_in_angstroms == second.pixel_size_in_angstroms
    assert fewer.optics.box_size_px % 2 == 0


def test_a_magnification_matrix_moves_the_slices_points() -> None:
    """k3 = A^T (M k, 0): frequencies of the image seen through M."""
    matrix = (1.03, 0.01, -0.02, 0.98)
    rotation = conventions.rotation_matrices(np.array([[20.0, 40.0, 60.0]]))
    found = slice_matrices(rotation, matrix, 1.25)[0]
    k = np.array([3.0, -5.0])
    seen = np.reshape(matrix, (2, 2)) @ k
    np.testing.assert_allclose(found[:2].T @ k, 1.25 * rotation[0].T @ np.array([*seen, 0.0]), rtol=1e-12)
