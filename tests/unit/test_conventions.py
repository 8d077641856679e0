"""Signs and origins against closed forms; RELION itself judges them in tests/interop."""

import numpy as np
import pytest

from gem_plugin import conventions

ANGLES = np.array([[37.0, 61.0, -114.0], [-12.0, 150.0, 80.0], [0.0, 0.0, 0.0]])


def _z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def test_rotation_is_passive_zyz_psi_tilt_rot() -> None:
    for (rot, tilt, psi), found in zip(ANGLES, conventions.rotation_matrices(ANGLES), strict=True):
        np.testing.assert_allclose(found, _z(psi) @ _y(tilt) @ _z(rot), atol=1e-12)


# an odd box of 13 px has its own corner points, |kx| = |ky| = 6, that an even one of 12 px leaves to Nyquist
@pytest.mark.parametrize(("box_size_px", "last"), [(12, 5), (13, 6)])
def test_half_plane_lists_each_conjugate_pair_once_in_weight(box_size_px: int, last: int) -> None:
    for k_max in (5.5, 100.0):
        plane = conventions.half_plane(box_size_px, k_max)
        points = {(int(x), int(y)): w for x, y, w in zip(plane.kx, plane.ky, plane.weight, strict=True)}
        for y in range(-7, 8):
            for x in range(-7, 8):
                inside = 0 < x * x + y * y <= k_max**2 and max(abs(x), abs(y)) <= last
                assert points.get((x, y), 0) + points.get((-x, -y), 0) == (1.0 if inside else 0.0)


@pytest.mark.parametrize("box_size_px", [12, 13, 15])
def test_transforms_are_the_direct_sum_about_the_pixel_n_over_2(box_size_px: int) -> None:
    image = np.random.default_rng(3).normal(size=(2, box_size_px, box_size_px)).astype(np.float32)
    plane = conventions.half_plane(box_size_px, 100.0)
    axis = np.arange(box_size_px) - box_size_px // 2
    along_x = np.exp(-2j * np.pi * np.outer(axis, plane.kx) / box_size_px)
    along_y = np.exp(-2j * np.pi * np.outer(axis, plane.ky) / box_size_px)
    expected = np.einsum("myx,xp,yp->mp", image, along_x, along_y)
    np.testing.assert_allclose(conventions.image_transforms(image, plane), expected, atol=1e-4)


@pytest.mark.parametrize("box_size_px", [16, 17])
def test_a_delta_at_the_centre_pixel_has_transform_one(box_size_px: int) -> None:
    image = np.zeros((1, box_size_px, box_size_px), dtype=np.float32)
    image[0, 8, 8] = 1
    transform = conventions.image_transforms(image, conventions.half_plane(box_size_px, 8.0))
    np.testing.assert_allclose(transform, 1, atol=1e-6)


@pytest.mark.parametrize("box_size_px", [16, 17])
def test_image_transform_has_a_negative_exponent(box_size_px: int) -> None:
    image = np.zeros((1, box_size_px, box_size_px), dtype=np.float32)
    image[0, 8 + 2, 8 + 3] = 1  # y = 2, x = 3
    plane = conventions.half_plane(box_size_px, 8.0)
    expected = np.exp(-2j * np.pi * (3 * plane.kx + 2 * plane.ky) / box_size_px)
    np.testing.assert_allclose(conventions.image_transforms(image, plane)[0], expected, atol=1e-5)


@pytest.mark.parametrize("box_size_px", [16, 17])
def test_origins_are_added_to_centre_the_particle(box_size_px: int) -> None:
    """A particle at -o from the centre is brought to the centre."""
    shift = np.array([[3.0, -2.0]])
    image = np.zeros((1, box_size_px, box_size_px), dtype=np.float32)
    image[0, 8 + 2, 8 - 3] = 1
    plane = conventions.half_plane(box_size_px, 8.0)
    centred = conventions.image_transforms(image, plane) * conventions.centring_phases(shift, plane)
    np.testing.assert_allclose(centred, 1, atol=1e-5)


def test_slice_points_are_the_transpose_of_the_rotation() -> None:
    plane = conventions.half_plane(16, 7.5)
    rotations = conventions.rotation_matrices(ANGLES)
    points = conventions.slice_points(rotations, plane)
    for i, a in enumerate(rotations):
        expected = a.T @ np.stack([plane.kx, plane.ky, np.zeros(len(plane.kx))])
        np.testing.assert_allclose(points[:, i], expected, atol=1e-5)


def test_slices_of_a_point_are_its_projection() -> None:
    """Central slice theorem with all signs: a point at r is seen at (A r)_xy."""
    plane = conventions.half_plane(16, 7.5)
    rotations = conventions.rotation_matrices(ANGLES)
    r = np.array([2.3, -1.1, 3.7])
    points = conventions.slice_points(rotations, plane).astype(np.float64)
    from_map = np.exp(-2j * np.pi * np.einsum("cmp,c->mp", points, r) / 16)
    seen = np.einsum("mic,c->mi", rotations[:, :2], r)
    from_image = np.exp(-2j * np.pi * (seen @ np.stack([plane.kx, plane.ky])) / 16)
    np.testing.assert_allclose(from_map, from_image, atol=1e-5)


@pytest.mark.parametrize("box_size_px", [8, 9])
def test_box_centre_is_voxel_n_over_2(box_size_px: int) -> None:
    radius = conventions.radius_from_centre_px(box_size_px)
    assert np.unravel_index(radius.argmin(), radius.shape) == (box_size_px // 2,) * 3
    shell = conventions.shell_indices(box_size_px)
    assert shell[0, 0, 0] == 0
    assert shell[1, 0, 0] == shell[-1, 0, 0] == 1
