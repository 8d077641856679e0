"""The CPU engine of spreading: Fourier slices of particle images onto the fine grids of b and T in one pass.

A point of a slice reaches WIDTH cells on each axis of either grid; its weights are polynomials of where it lies between
cells. Points are dealt to pencils of cells along x. Pencils of one colour are far enough apart that no two share a
cell, so they are filled side by side, and each cell's sum has the same order whatever the number of threads.

Both sums are real in the end, so a point and its conjugate are one: each is taken at kx >= 0, and a grid holds the
cells from -MARGIN on x.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from gem_plugin.ops.numba_lanes import LANES, add_product, polynomials
from gem_plugin.ops.numba_rows import FAST

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

WIDTH = 6  # cells on each axis that a point reaches
DEGREE = 8  # of the polynomials
MARGIN = 4  # cells kept at negative x: half of WIDTH and one for rounding

_CHUNKS = 32  # of a batch's particles, counted side by side
_COLOURS = 4

PENCIL = 16  # t's cells on z and y; b's points of a pencil lie half as far apart, and further than they reach


@numba.njit(inline="always")
def _position(rotation, kx, ky):  # type: ignore[no-untyped-def]
    """A slice's point in the map's transform, S^T (kx, ky, 0), and the sign that brings it to x >= 0."""
    x = rotation[0, 0] * kx + rotation[1, 0] * ky
    y = rotation[0, 1] * kx + rotation[1, 1] * ky
    z = rotation[0, 2] * kx + rotation[1, 2] * ky
    sign = -1.0 if x < 0 else 1.0
    return sign * x, sign * y, sign * z, sign


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _deal(rotations, kx, ky, cells_per_cycle, centre, n_pencils):  # type: ignore[no-untyped-def]
    """The points of each pencil: where its list starts, [n_pencils^2 + 1], and all lists in a row, [m * points]."""
    m, points = len(rotations), len(kx)
    n_bins = n_pencils * n_pencils
    bin_of = np.empty(m * points, dtype=np.int32)
    counts = np.zeros((_CHUNKS, n_bins), dtype=np.int64)
    for chunk in numba.prange(_CHUNKS):
        for p in range(chunk * m // _CHUNKS, (chunk + 1) * m // _CHUNKS):
            for j in range(points):
                _, y, z, _ = _position(rotations[p], kx[j], ky[j])
                row = int(z * cells_per_cycle + centre) // PENCIL
                column = int(y * cells_per_cycle + centre) // PENCIL
                index = row * n_pencils + column
                bin_of[p * points + j] = index
                counts[chunk, index] += 1
    starts = np.zeros(n_bins + 1, dtype=np.int64)
    total = 0
    for index in range(n_bins):
        starts[index] = total
        for chunk in range(_CHUNKS):
            count = counts[chunk, index]
            counts[chunk, index] = total
            total += count
    starts[n_bins] = total
    members = np.empty(m * points, dtype=np.int32)
    for chunk in numba.prange(_CHUNKS):
        for k in range(chunk * m // _CHUNKS * points, (chunk + 1) * m // _CHUNKS * points):
            index = bin_of[k]
            members[counts[chunk, index]] = k
            counts[chunk, index] += 1
    return starts, members


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _weigh(coefficients, position, weights):  # type: ignore[no-untyped-def]
    """Write the weights of the cells from the first that a point reaches, and return that cell."""
    below = math.floor(position)
    u = np.float32(2 * (position - below) - 1)
    polynomials(weights, coefficients, DEGREE, u)
    return int(below) - (WIDTH // 2 - 1)


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _add_cells(grid, n, n_x, first_z, first_y, first_x, wz, wy, wx, value):  # type: ignore[no-untyped-def]
    """Add a value at the cells that a point reaches; `grid` [n * n * n_x]."""
    for iz in range(WIDTH):
        v = value * wz[iz]
        start = ((first_z + iz) * n + first_y) * n_x + first_x
        for iy in range(WIDTH):
            add_product(grid, start + iy * n_x, wx, v * wy[iy])


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=FAST)
def _fill(  # type: ignore[no-untyped-def]
    colour, starts, members, n_pencils, rotations, kx, ky, observed, transfer, adjoint, weight,
    b_coefficients, t_coefficients, b_cells, b_n, b_x, t_cells, t_n, t_x, b_real, b_imaginary, t_grid,
):  # fmt: skip
    """Add the points of every pencil of one colour."""
    points = len(kx)
    n_across = (n_pencils + 1) // 2
    b_centre, t_centre = float(b_n // 2), float(t_n // 2)
    for index in numba.prange(n_across * n_across):
        row, column = 2 * (index // n_across) + colour // 2, 2 * (index % n_across) + colour % 2
        if row >= n_pencils or column >= n_pencils:
            continue
        pencil = row * n_pencils + column
        wx = np.empty(LANES, dtype=np.float32)
        wy = np.empty(LANES, dtype=np.float32)
        wz = np.empty(LANES, dtype=np.float32)
        for entry in range(starts[pencil], starts[pencil + 1]):
            k = members[entry]
            p = k // points
            j = k - p * points
            x, y, z, sign = _position(rotations[p], kx[j], ky[j])
            strength = weight[j] * adjoint[p, j]
            real = strength * observed[p, j].real
            imaginary = np.float32(sign) * strength * observed[p, j].imag
            first_x = _weigh(t_coefficients, x * t_cells + MARGIN, wx)
            first_y = _weigh(t_coefficients, y * t_cells + t_centre, wy)
            first_z = _weigh(t_coefficients, z * t_cells + t_centre, wz)
            _add_cells(t_grid, t_n, t_x, first_z, first_y, first_x, wz, wy, wx, strength * transfer[p, j])
            first_x = _weigh(b_coefficients, x * b_cells + MARGIN, wx)
            first_y = _weigh(b_coefficients, y * b_cells + b_centre, wy)
            first_z = _weigh(b_coefficients, z * b_cells + b_centre, wz)
            _add_cells(b_real, b_n, b_x, first_z, first_y, first_x, wz, wy, wx, real)
            _add_cells(b_imaginary, b_n, b_x, first_z, first_y, first_x, wz, wy, wx, imaginary)


def spread_slices(
    rotations: Doubles,
    in_plane: tuple[Doubles, Doubles],
    data: tuple[NDArray[np.complex64], Floats, Floats, Floats],
    coefficients: tuple[Floats, Floats],
    cells_per_cycle: tuple[float, float],
    right: Floats,
    kernel: Floats,
) -> None:
    """Add the points of some slices to the fine grids of b and t.

    Parameters
    ----------
    rotations : [m, 3, 3] S, from the map to the image: a point lies at S^T (kx, ky, 0)
    in_plane : kx and ky, [points] each, cycles a box edge
    data : transforms of the images [m, points], what the map's slices are multiplied by in them [m, points], what they
        are multiplied by in b [m, points], and the points' weights [points]
    coefficients : of the spreading functions on b's and t's grid, [DEGREE + 1, LANES] each
    cells_per_cycle : of b's and t's grid, for cycles a box edge
    right : [2, z, y, x] real and imaginary part of the sums of weight * adjoint * transform
    kernel : [z, y, x] sums of weight * adjoint * transfer

    Raises
    ------
    ValueError
        If the grids do not belong together or there are too many points for one call.
    """
    observed, transfer, adjoint, weight = data
    b_cells, t_cells = cells_per_cycle
    b_n, t_n = right.shape[1], kernel.shape[0]
    if observed.size > np.iinfo(np.int32).max:
        raise ValueError(f"{observed.size} points are too many for one call")
    if PENCIL * b_cells < (WIDTH + 1) * t_cells:
        raise ValueError(f"{b_cells} cells a cycle on b's grid are too coarse beside {t_cells} on t's")
    kx, ky = (np.ascontiguousarray(k, dtype=np.float64) for k in in_plane)
    rotations = np.ascontiguousarray(rotations, dtype=np.float64)
    observed = np.ascontiguousarray(observed)
    transfer, adjoint = (np.ascontiguousarray(factor, dtype=np.float32) for factor in (transfer, adjoint))
    weight = np.ascontiguousarray(weight, dtype=np.float32)
    n_pencils = t_n // PENCIL + 1
    starts, members = _deal(rotations, kx, ky, t_cells, float(t_n // 2), n_pencils)
    for colour in range(_COLOURS):
        _fill(
            colour, starts, members, n_pencils, rotations, kx, ky, observed, transfer, adjoint, weight,
            coefficients[0].reshape(-1), coefficients[1].reshape(-1),
            b_cells, b_n, right.shape[3], t_cells, t_n, kernel.shape[2],
            right[0].reshape(-1), right[1].reshape(-1), kernel.reshape(-1),
        )  # fmt: skip
