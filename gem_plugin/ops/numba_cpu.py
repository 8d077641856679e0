"""The CPU engine of voxelize(): Numba kernels that walk each Gaussian's ellipsoid, plane by plane, row by row.

In a plane a Gaussian is an ellipse, whose rows `gem_plugin.ops.numba_rows` walks. Both kernels are deterministic
whatever the number of threads: forward, each plane has one writer and adds the Gaussians in their order; backward,
each Gaussian has one reader.

``factors`` [N, 7] are Qxx, Qxy/Qxx, Qxz/Qxx, Syy, Syz/Syy, Rzz, sigma_z of `gem_plugin.ops.moments.footprint_shape`.
In u = dx + Qxy/Qxx dy + Qxz/Qxx dz and v = dy + Syz/Syy dz, q = Qxx u^2 + Syy v^2 + Rzz dz^2: u is counted from the
maximum of a row, v from the middle of an ellipse.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from gem_plugin.ops.numba_rows import (
    BITS,
    FAST,
    LANES,
    Walk,
    exp2_minus,
    gather_ellipse,
    padded_pixels,
    scatter_ellipse,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_INTERLEAVE = 16  # neighbouring planes go to different threads: the middle of a box is the busy part
_BLOCK = 8  # planes and rows whose Gaussians are read one after the other
_FAR = np.float32(2**20)  # voxels from the middle of a box: float32 has too few digits there for the rows' ends
_ZERO, _ONE = np.float32(0), np.float32(1)
_ROOT_OF_BITS = np.float32(math.sqrt(BITS))


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _planes(centre_z, reach, n):  # type: ignore[no-untyped-def]
    """First plane of a Gaussian and the one behind its last; the same where it has none or is not finite."""
    middle = np.float32(n // 2)
    if not (reach >= _ZERO and abs(centre_z) <= _FAR):
        return 0, 0
    first, last = np.ceil(centre_z - reach) + middle, np.floor(centre_z + reach) + middle
    begin = np.int64(max(first, _ZERO))
    return begin, max(np.int64(min(last, np.float32(n - 1))) + 1, begin)


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _ellipse(centre, factors, dz, cut2, n):  # type: ignore[no-untyped-def]
    """A Gaussian in the plane at dz: where its rows begin, how many, v of the first, exponent there, what rows need.

    Voxels are counted from the whole column left of the ellipse's middle, so that float32 keeps its digits.
    """
    middle = np.float32(n // 2)
    end = np.float32(n - 1) - middle
    fall = factors[5] * dz * dz
    left = cut2 - fall
    x = centre[0] + (factors[1] * factors[4] - factors[2]) * dz
    y = centre[1] - factors[4] * dz
    drawn = left >= _ZERO and abs(x) <= _FAR and abs(y) <= _FAR  # false for what is not finite
    column = np.floor(x)
    sigma_x = np.sqrt(_ONE / factors[0])
    root = np.sqrt(left if drawn else _ZERO)
    widest = np.float32(2) * root * sigma_x
    widest = widest if widest < np.float32(n - 1) else np.float32(n - 1)
    walk = Walk(
        -factors[1],
        np.float32(BITS) * factors[0],
        np.float32(BITS) * factors[3],
        x - column,
        sigma_x / _ROOT_OF_BITS,
        np.float32(BITS) * left,
        -middle - column,
        end - column,
        np.int64(widest) // LANES + 1,
    )
    reach = root / np.sqrt(factors[3])
    first, last = np.ceil(y - reach), np.floor(y + reach)
    first = first if first > -middle else -middle
    last = last if last < end else end
    rows = np.int64(last - first) + 1 if drawn else 0
    start = np.int64(first + middle) * n + np.int64(column + middle) if drawn else 0
    return start, rows, first - y, np.float32(BITS) * fall, walk


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _reached(centres, factors, cutoff_sigmas, n):  # type: ignore[no-untyped-def]
    """The Gaussians that reach each plane, in their order: those of plane z are members[begins[z] : begins[z + 1]]."""
    begins = np.zeros(n + 1, dtype=np.int64)
    for j in range(centres.shape[0]):
        first, behind = _planes(centres[j, 2], cutoff_sigmas * factors[j, 6], n)
        for z in range(first, behind):
            begins[z + 1] += 1
    begins = np.cumsum(begins)
    members = np.empty(begins[n], dtype=np.int32)
    free = begins.copy()
    for j in range(centres.shape[0]):
        first, behind = _planes(centres[j, 2], cutoff_sigmas * factors[j, 6], n)
        for z in range(first, behind):
            members[free[z]] = j
            free[z] += 1
    return begins, members


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=FAST)
def scatter(
    centres: Floats,  # [N, 3]
    factors: Floats,  # [N, 7]
    peaks: Floats,  # [N]
    cutoff_sigmas: np.float32,
    volume: Floats,  # [n, n, n], added to
) -> None:
    """Add the Gaussians to `volume`."""
    n = volume.shape[0]
    middle = np.float32(n // 2)
    cut2 = cutoff_sigmas * cutoff_sigmas
    begins, members = _reached(centres, factors, cutoff_sigmas, n)
    columns = (n + _INTERLEAVE - 1) // _INTERLEAVE
    for index in numba.prange(_INTERLEAVE * columns):
        z = (index % columns) * _INTERLEAVE + index // columns
        if z >= n:
            continue
        plane = np.zeros(padded_pixels(n), dtype=np.float32)  # rows reach over its end: not into another's
        for member in range(begins[z], begins[z + 1]):
            j = members[member]
            dz = np.float32(z) - middle - centres[j, 2]
            start, rows, v, fall, walk = _ellipse(centres[j], factors[j], dz, cut2, n)
            peak = peaks[j] * exp2_minus(fall)
            if walk.groups == 1:  # lengths that the compiler knows: it unrolls the rows
                scatter_ellipse(plane, np.int32(LANES), n, start, rows, v, walk, peak)
            elif walk.groups == 2:
                scatter_ellipse(plane, np.int32(2 * LANES), n, start, rows, v, walk, peak)
            else:
                scatter_ellipse(plane, np.int32(walk.groups * LANES), n, start, rows, v, walk, peak)
        volume[z] += plane[: n * n].reshape(n, n)


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _block(centre, n):  # type: ignore[no-untyped-def]
    """The block of planes, and of rows in them, that a centre lies in or nearest to."""
    end = np.float32(n - 1)
    y, z = centre[1] + np.float32(n // 2), centre[2] + np.float32(n // 2)
    y, z = y if y > _ZERO else _ZERO, z if z > _ZERO else _ZERO  # also what is not a number
    y, z = y if y < end else end, z if z < end else end
    return np.int64(z) // _BLOCK * (n // _BLOCK + 1) + np.int64(y) // _BLOCK


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _by_blocks(centres, n):  # type: ignore[no-untyped-def]
    """An order in which Gaussians that read the same voxels follow each other, so that these stay in the cache."""
    free = np.zeros((n // _BLOCK + 1) ** 2 + 1, dtype=np.int64)
    for j in range(centres.shape[0]):
        free[_block(centres[j], n) + 1] += 1
    free = np.cumsum(free)
    order = np.empty(centres.shape[0], dtype=np.int64)
    for j in range(centres.shape[0]):
        block = _block(centres[j], n)
        order[free[block]] = j
        free[block] += 1
    return order


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _to_moments(factors, s, m):  # type: ignore[no-untyped-def]
    """Moments 1; u, v, w; uu, uv, uw, vv, vw, ww with w = dz -> the same in dx, dy, dz."""
    a, b, c = factors[1], factors[1] * factors[4] - factors[2], factors[4]  # dx = u - a v + b w, dy = v - c w
    ux = s[4] - a * s[5] + b * s[6]  # sum of u dx, and so on
    vx, wx = s[5] - a * s[7] + b * s[8], s[6] - a * s[8] + b * s[9]
    m[0] = s[0]
    m[1] = s[1] - a * s[2] + b * s[3]
    m[2] = s[2] - c * s[3]
    m[3] = s[3]
    m[4] = ux - a * vx + b * wx
    m[5] = vx - c * wx
    m[6] = wx
    m[7] = s[7] - c * (s[8] + s[8] - c * s[9])
    m[8] = s[8] - c * s[9]
    m[9] = s[9]


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=FAST)
def gather(
    centres: Floats,  # [N, 3]
    factors: Floats,  # [N, 7]
    cutoff_sigmas: np.float32,
    gradient: Floats,  # [n, n, n]
    moments: Floats,  # [N, 10], written: M0; M1 x, y, z; M2 xx, xy, xz, yy, yz, zz
) -> None:
    """Moments of `gradient` under each Gaussian of unit peak, about its centre."""
    n = gradient.shape[0]
    middle = np.float32(n // 2)
    cut2 = cutoff_sigmas * cutoff_sigmas
    flat = gradient.reshape(n * n * n)
    tail_begin = max(n - 3, 0) * n * n  # the last planes, with room for the rows that reach over their end
    tail = np.zeros(n * n * n - tail_begin + padded_pixels(n) - n * n, dtype=np.float32)
    tail[: n * n * n - tail_begin] = flat[tail_begin:]
    order = _by_blocks(centres, n)
    for index in numba.prange(centres.shape[0]):
        j = order[index]
        s = np.zeros(10, dtype=np.float32)
        weights = np.empty(n + LANES, dtype=np.float32)
        first_z, behind_z = _planes(centres[j, 2], cutoff_sigmas * factors[j, 6], n)
        for z in range(first_z, behind_z):
            dz = np.float32(z) - middle - centres[j, 2]
            start, rows, v, fall, walk = _ellipse(centres[j], factors[j], dz, cut2, n)
            begin = z * n * n
            plane = tail[begin - tail_begin :] if begin >= tail_begin else flat[begin:]
            if walk.groups == 1:  # lengths that the compiler knows, as above
                sums = gather_ellipse(plane, np.int32(LANES), n, start, rows, v, walk, weights)
            elif walk.groups == 2:
                sums = gather_ellipse(plane, np.int32(2 * LANES), n, start, rows, v, walk, weights)
            else:
                sums = gather_ellipse(plane, np.int32(walk.groups * LANES), n, start, rows, v, walk, weights)
            s0, su, sv, suu, suv, svv = sums
            height = exp2_minus(fall)
            s[0] += height * s0
            s[1] += height * su
            s[2] += height * sv
            s[3] += height * s0 * dz
            s[4] += height * suu
            s[5] += height * suv
            s[6] += height * su * dz
            s[7] += height * svv
            s[8] += height * sv * dz
            s[9] += height * s0 * dz * dz
        _to_moments(factors[j], s, moments[j])
