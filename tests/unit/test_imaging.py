"""Which Fourier points of each optics group's images are used, whatever its box, pixel size and magnification."""

import dataclasses

import numpy as np
import pytest

from gem_plugin.conventions import half_plane, rotation_matrices
from gem_plugin.imaging import image_planes, slice_matrices
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.phantom import random_particles
from gem_plugin.spreading import SliceSums, largest_frequency

N = 32
PLANE = half_plane(N, N / 2 - 0.5)
MAP = OpticsGroup("map", 2.0, N, 300.0, 2.7, 0.1)
MATRICES = {
    "none": (1.0, 0.0, 0.0, 1.0),
    "little": (1.02, 0.01, 0.01, 0.99),
    "one axis by 5 %": (1.05, 0.0, 0.0, 1.0),
    "turned": (1.1, 0.05, -0.03, 0.95),
    "much": (1.3, 0.0, 0.1, 0.8),
    "smaller": (0.9, 0.0, 0.0, 0.95),
}


@pytest.mark.parametrize("box_and_pixel", [(N, 2.0), (40, 1.7), (24, 2.3)])
@pytest.mark.parametrize("name", MATRICES)
def test_all_points_that_the_map_has_room_for_and_no_others(name: str, box_and_pixel: tuple[int, float]) -> None:
    matrix = MATRICES[name]
    group = dataclasses.replace(
        MAP, box_size_px=box_and_pixel[0], pixel_size_in_angstroms=box_and_pixel[1], magnification=matrix
    )
    particles = random_particles(5, MAP, seed=1)
    particles = dataclasses.replace(particles, optics_groups=(MAP, group))
    plane = image_planes(particles, PLANE)[1]
    assert plane.box_size_px == group.box_size_px
    reached = plane.map_cycles * np.hypot(*(np.reshape(matrix, (2, 2)) @ np.stack([plane.kx, plane.ky])))
    assert reached.max() < PLANE.radius.max() + 1
    # the highest direction is used up to the map's end, or to the images' own
    assert reached.max() > PLANE.radius.max() - 1.5 or plane.radius.max() > group.box_size_px / 2 - 1.5
    rotations = rotation_matrices(particles.euler_angles_deg)
    slices = slice_matrices(rotations, matrix, plane.map_cycles)
    assert largest_frequency(plane, slices) == pytest.approx(reached.max(), rel=1e-9)
    sums = SliceSums(float(PLANE.radius.max()) + 1.0, N, 2 * N)
    shape = len(slices), len(plane.kx)
    ones = np.ones(shape, dtype=np.float32)
    sums.add(plane, slices, ones.astype(np.complex64), (ones, ones), ones[0])  # it has room for them


def test_slices_of_several_magnifications_are_bounded() -> None:
    rotations = rotation_matrices(np.zeros((2, 3)))
    slices = np.concatenate([slice_matrices(rotations[:1], MATRICES[name], 1.0) for name in ("none", "much")])
    assert largest_frequency(PLANE, slices) >= largest_frequency(PLANE, slices[1:])
