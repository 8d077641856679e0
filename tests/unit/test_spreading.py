"""Slices spread onto fine grids against the direct sums, and finufft as a second judge."""

import finufft
import numba
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gem_plugin import conventions
from gem_plugin.normal_equations import axis_frequencies
from gem_plugin.spreading import UPSAMPLING, SliceSums, slice_grids
from tests.helpers import NUFFT, relative_error

N = 16
M = 5
PLANE = conventions.half_plane(N, N / 2 - 0.5)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    rotations = Rotation.random(M, rng).as_matrix()
    rotations[0] = np.eye(3)  # points on the plane z = 0, and on x = 0
    shape = (M, len(PLANE.kx))
    observed = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    ctf, weight = rng.uniform(-1, 1, shape), rng.uniform(0.5, 1.5, len(PLANE.kx))
    return rotations, observed, ctf.astype(np.float32), weight.astype(np.float32)


def summed(
    data: tuple[np.ndarray, ...], right_modes: int = N, kernel_modes: int = 2 * N, **options: float
) -> SliceSums:
    sums = SliceSums(float(PLANE.radius.max()), right_modes, kernel_modes, **options)
    rotations, observed, ctf, weight = data
    for part in (slice(0, 2), slice(2, None)):
        sums.add(PLANE, rotations[part], observed[part], (ctf[part], ctf[part]), weight)
    return sums


def direct(data: tuple[np.ndarray, ...], strengths: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Re sum strength exp(2 pi i k . r / N) for r on a cube of offsets."""
    points = conventions.slice_points(data[0], PLANE).astype(np.float64).reshape(3, -1)
    x, y, z = (np.exp(2j * np.pi * np.outer(axis, p) / N) for p in points)
    return np.einsum("zp,yp,xp,p->zyx", z, y, x, strengths.ravel(), optimize=True).real


def right_strengths(data: tuple[np.ndarray, ...]) -> np.ndarray:
    return data[3] * data[2] * data[1]


def test_the_right_side_is_the_direct_sum(data) -> None:  # type: ignore[no-untyped-def]
    expected = direct(data, right_strengths(data), np.arange(N) - N // 2)
    assert relative_error(summed(data).right_side(1), expected) < NUFFT


def test_more_upsampling_is_more_accurate(data) -> None:  # type: ignore[no-untyped-def]
    expected = direct(data, right_strengths(data), np.arange(N) - N // 2)
    coarse, fine = (relative_error(summed(data, upsampling=u).right_side(1), expected) for u in (UPSAMPLING, 2.0))
    assert fine < 2e-5
    assert fine < 0.3 * coarse


def test_the_kernel_is_the_direct_sum(data) -> None:  # type: ignore[no-untyped-def]
    """Its spectrum, at all frequencies of the doubled box, and at some of them."""
    kernel = direct(data, data[3] * data[2] ** 2, np.arange(2 * N) - N)
    kernel[0] = kernel[:, 0] = kernel[:, :, 0] = 0
    expected = np.fft.rfftn(np.fft.ifftshift(kernel)).real
    found = summed(data).kernel_spectrum(axis_frequencies(N, N), N)
    assert relative_error(found, expected) < NUFFT
    band = 11
    kept = axis_frequencies(N, band)
    part = summed(data).kernel_spectrum(kept, band)
    np.testing.assert_allclose(part, found[np.ix_(kept, kept, np.arange(band + 1))], atol=1e-5 * np.abs(found).max())


def test_voxels_finer_than_the_points_need_keep_fewer_cells(data) -> None:  # type: ignore[no-untyped-def]
    fine = 40
    sums = summed(data, right_modes=fine)
    assert sums.right.size < sums.right.full_size
    axis = (np.arange(fine) - fine // 2) * N / fine
    assert relative_error(sums.right_side(1), direct(data, right_strengths(data), axis)) < NUFFT


def test_finufft_finds_the_same_right_side() -> None:
    """In a box of a real particle's size, which the direct sum cannot reach."""
    n, m = 64, 40
    plane = conventions.half_plane(n, n / 2 - 0.5)
    rng = np.random.default_rng(2)
    rotations = Rotation.random(m, rng).as_matrix()
    observed = (rng.normal(size=(m, len(plane.kx))) + 1j * rng.normal(size=(m, len(plane.kx)))).astype(np.complex64)
    ones, weight = np.ones(observed.shape, dtype=np.float32), np.ones(len(plane.kx), dtype=np.float32)
    sums = SliceSums(float(plane.radius.max()), n, 2 * n)
    sums.add(plane, rotations, observed, (ones, ones), weight)
    points = conventions.slice_points(rotations, plane).astype(np.float64).reshape(3, -1) * 2 * np.pi / n
    expected = finufft.nufft3d1(*points[::-1].copy(), observed.ravel().astype(complex), (n,) * 3, isign=1, eps=1e-9)
    assert relative_error(sums.right_side(2), expected.real) < NUFFT


def test_threads_change_no_bit(data) -> None:  # type: ignore[no-untyped-def]
    before = numba.get_num_threads()
    results = []
    for n_threads in (1, 2):
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
        sums = summed(data)
        results.append((sums.right_side(n_threads), sums.kernel_spectrum(axis_frequencies(N, N), N)))
    numba.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_grids_that_do_not_belong_together_are_refused(data) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="too coarse"):
        summed(data, kernel_modes=2)


def test_transfer_and_adjoint_are_told_apart(data) -> None:  # type: ignore[no-untyped-def]
    """Premultiplied images: b takes them as they are, t the square of the CTF."""
    rotations, observed, ctf, weight = data
    ones = np.ones_like(ctf)
    sums = SliceSums(float(PLANE.radius.max()), N, 2 * N)
    sums.add(PLANE, rotations, observed * ctf, (ctf**2, ones), weight)
    plain = summed(data)
    assert relative_error(sums.right_side(1), plain.right_side(1)) < 1e-5
    kept = axis_frequencies(N, N)
    assert relative_error(sums.kernel_spectrum(kept, N), plain.kernel_spectrum(kept, N)) < 1e-5


def test_points_beyond_the_reach_are_refused(data) -> None:  # type: ignore[no-untyped-def]
    rotations, observed, ctf, weight = data
    sums = SliceSums(float(PLANE.radius.max()), N, 2 * N)
    with pytest.raises(ValueError, match="sums for 7"):
        sums.add(PLANE, 1.2 * rotations, observed, (ctf, ctf), weight)


def test_all_points_lie_within_the_grids() -> None:
    """The outermost point reaches the last cell but its rounding, and no row's vector passes the end."""
    for modes in (16, 18, 40):
        for grid in slice_grids(float(PLANE.radius.max()), modes, 2 * modes):
            reach = grid.size // 2 - 5
            assert reach >= grid.cells_per_cycle * 7
