"""Signs and origins against closed forms; RELION itself judges them in tests/interop."""

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.errors import InputError

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


def test_half_plane_lists_each_conjugate_pair_once_in_weight() -> None:
    plane = conventions.half_plane(12, 5.5)
    points = {(int(x), int(y)): w for x, y, w in zip(plane.kx, plane.ky, plane.weight, strict=True)}
    for y in range(-5, 6):
        for x in range(-5, 6):
            inside = 0 < x * x + y * y <= 5.5**2
            assert points.get((x, y), 0) + points.get((-x, -y), 0) == (1.0 if inside else 0.0)


def test_odd_boxes_are_refused_in_words() -> None:
    with pytest.raises(InputError, match="even"):
        conventions.half_plane(13, 5)


def test_a_delta_at_the_centre_pixel_has_transform_one() -> None:
    image = np.zeros((1, 16, 16), dtype=np.float32)
    image[0, 8, 8] = 1
    transform = conventions.image_transforms(image, conventions.half_plane(16, 7.5))
    np.testing.assert_allclose(transform, 1, atol=1e-6)


def test_image_transform_has_a_negative_exponent() -> None:
    image = np.zeros((1, 16, 16), dtype=np.float32)
    image[0, 8 + 2, 8 + 3] = 1  # y = 2, x = 3
    plane = conventions.half_plane(16, 7.5)
    expected = np.exp(-2j * np.pi * (3 * plane.kx + 2 * plane.ky) / 16)
    np.testing.assert_allclose(conventions.image_transforms(image, plane)[0], expected, atol=1e-5)


def test_origins_are_added_to_centre_the_particle() -> None:
    """A particle at -o from the centre is brought to the centre."""
    shift = np.array([[3.0, -2.0]])
    image = np.zeros((1, 16, 16), dtype=np.float32)
    image[0, 8 + 2, 8 - 3] = 1
    plane = conventions.half_plane(16, 7.5)
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
