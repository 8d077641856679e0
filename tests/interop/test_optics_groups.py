"""relion_reconstruct as the judge of images of several pixel and box sizes on one map."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.dataset import stream
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.imaging import image_planes
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles, read_particles
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import Accumulator
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images
from tests.interop import simulated
from tests.job.project import pose_columns, star_loop, write_mrc

pytestmark = pytest.mark.relion

N, COUNT = 48, 500  # the map's box; noise-free particles of each group
FIRST = OpticsGroup("first", 3.0, N, 300.0, 2.7, 0.1)


@pytest.fixture(params=[N, 60])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, NDArray[np.float32]]:
    """Half of the images have pixels of 2.5 A, in the same box or in one of nearly the same extent; and the truth."""
    second = OpticsGroup("second", 2.5, request.param, 200.0, 1.4, 0.07)
    phantom = make_phantom(N, 0)
    columns: dict[str, list[str]] = {}
    for number, group in enumerate((FIRST, second), start=1):
        ratio = FIRST.pixel_size_in_angstroms / group.pixel_size_in_angstroms
        own = Phantom(group.box_size_px, phantom.sigma_px * ratio, phantom.centres_px * ratio, phantom.amplitudes)
        particles = random_particles(COUNT, group, seed=number)
        write_mrc(
            tmp_path / f"group{number}.mrcs",
            simulate_images(own, particles, snr=None).images,
            group.pixel_size_in_angstroms,
        )
        values = {
            "rlnImageName": [f"{i + 1:06d}@group{number}.mrcs" for i in range(COUNT)],
            "rlnOpticsGroup": [str(number)] * COUNT,
            **pose_columns(particles),
        }
        for name, column in values.items():
            columns.setdefault(name, []).extend(column)
    optics = {
        "rlnOpticsGroupName": ["first", "second"],
        "rlnOpticsGroup": ["1", "2"],
        "rlnVoltage": ["300", "200"],
        "rlnSphericalAberration": ["2.7", "1.4"],
        "rlnAmplitudeContrast": ["0.1", "0.07"],
        "rlnImagePixelSize": ["3.0", "2.5"],
        "rlnImageSize": [str(N), str(request.param)],
        "rlnImageDimensionality": ["2", "2"],
    }
    (tmp_path / "particles.star").write_text(star_loop("optics", optics) + star_loop("particles", columns))
    return tmp_path, density(phantom)


def map_of(particles: Particles, directory: Path) -> NDArray[np.float32]:
    plane = conventions.half_plane(N, N / 2 - 0.5)
    planes = image_planes(particles, plane)
    accumulator = Accumulator(plane, [np.full(len(one.kx), N**2, dtype=np.float32) for one in planes], 1)
    with ImageReader(particles) as reader:
        for batch in stream(particles, reader, np.arange(len(particles)), planes, 200):
            accumulator.add(batch)
    return solve_model_free(accumulator.finish(), 0.45 * N, 1)


def test_two_pixel_sizes_make_relions_map(project: tuple[Path, NDArray[np.float32]]) -> None:
    directory, truth = project
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "relion.mrc", "--ctf", "--pad", "2"]
    simulated.run(directory, *command, "--angpix", "3.0", "--skip_gridding")
    theirs = fourier_shell_correlation(simulated.read_volume(directory / "relion.mrc"), truth)
    particles = read_particles(directory / "particles.star", project_directory=directory)
    ours = fourier_shell_correlation(map_of(particles, directory), truth)
    assert theirs[1:22].min() > 0.99
    assert (ours - theirs)[1:22].min() > -0.003
    assert ours[1:22].min() > 0.998
    # without the second group's pixel size, box and optics its images are another particle's
    same_box = [dataclasses.replace(FIRST, box_size_px=group.box_size_px) for group in particles.optics_groups]
    wrong = dataclasses.replace(particles, optics_groups=tuple(same_box))
    assert fourier_shell_correlation(map_of(wrong, directory), truth)[8:16].mean() < 0.95
