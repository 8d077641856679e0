"""Which Fourier points carry data, and the shell of each."""

import numpy as np

from gem_plugin import conventions
from gem_plugin.fsc import Shells


def test_the_origin_and_the_nyquist_row_and_column_carry_no_data() -> None:
    plane = conventions.half_plane(12, 100.0)  # no limit but the grid's own
    points = set(zip(plane.kx.tolist(), plane.ky.tolist(), strict=True))
    assert (0, 0) not in points
    assert points == {(x, y) for x in range(6) for y in range(-5, 6)} - {(0, 0)}


def test_a_point_belongs_to_the_shell_of_its_rounded_radius() -> None:
    n = 8
    full = [0, 1, 2, 3, -4, -3, -2, -1]  # the order of an FFT
    expected = [[[round((z * z + y * y + x * x) ** 0.5) for x in range(n // 2 + 1)] for y in full] for z in full]
    np.testing.assert_array_equal(conventions.shell_indices(n), expected)
    plane = conventions.half_plane(n, 3.5)
    np.testing.assert_array_equal(plane.shell, np.round(np.hypot(plane.kx, plane.ky)))


def test_a_filter_weighs_each_shell_and_drops_the_corners() -> None:
    n = 12
    z, y, x = np.mgrid[:n, :n, :n]
    waves = {2: np.cos(2 * np.pi * (2 * x) / n), 3: np.cos(2 * np.pi * (2 * y - 2 * z) / n), 6: np.cos(np.pi * z)}
    weight = np.array([1.0, 1.0, 0.5, 0.25, 0.0, 1.0, 0.0])
    filtered = Shells(n).filter(sum(waves.values()).astype(np.float32), weight)
    np.testing.assert_allclose(filtered, 0.5 * waves[2] + 0.25 * waves[3], atol=1e-5)
    corner = ((-1.0) ** (x + y + z)).astype(np.float32)  # beyond the last shell
    assert np.abs(Shells(n).filter(corner, np.ones(n // 2 + 1))).max() < 1e-5
