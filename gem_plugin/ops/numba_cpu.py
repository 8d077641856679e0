"""The CPU engine: Numba kernels that walk each Gaussian's ellipsoid, plane by plane, row by row.

Along a row the exponential is advanced by two multiplications a voxel (its ratio changes by a constant factor),
outwards from the voxel nearest the row's maximum, so it can only shrink: thin and oblique Gaussians are safe.
Both kernels are deterministic whatever the number of threads: forward, each plane has one writer and adds the
Gaussians in their order; backward, each Gaussian has one reader.

``factors`` [N, 7] are Qxx, Qxy/Qxx, Qxz/Qxx, Syy, Syz/Syy, Rzz, sigma_z of `gem_plugin.ops.moments.footprint_shape`.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_FAST = {"contract", "nsz", "arcp"}
_INTERLEAVE = 16  # neighbouring planes go to different threads: the middle of a box is the busy part


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _span(centre, halfwidth, n):  # type: ignore[no-untyped-def]
    """First and last index within `halfwidth` of `centre`, clipped to the box."""
    return max(np.int64(math.ceil(centre - halfwidth)), 0), min(np.int64(math.floor(centre + halfwidth)), n - 1)


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _rows(factors, centre_y, dz, cut2, middle, n):  # type: ignore[no-untyped-def]
    """The rows of one plane: y of the ellipse's middle, what is left of cutoff^2, first and last row."""
    left = cut2 - factors[5] * dz * dz
    if left < 0:
        return centre_y, left, 0, -1
    middle_y = centre_y - factors[4] * dz
    first, last = _span(middle_y + middle, math.sqrt(left / factors[3]), n)
    return middle_y, left, first, last


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _row(factors, centre_x, off_y, dy, dz, left, middle, n):  # type: ignore[no-untyped-def]
    """The voxels of one row: x of its maximum, exponent there, first, last, and nearest voxel."""
    exponent = factors[3] * off_y * off_y
    rest = max(left - exponent, np.float32(0))
    top = centre_x - factors[1] * dy - factors[2] * dz + middle
    first, last = _span(top, math.sqrt(rest / factors[0]), n)
    nearest = min(max(np.int64(math.floor(top + np.float32(0.5))), first), last)
    return top, exponent, first, last, nearest


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _scatter_row(row, qxx, step, half_step, top, first, last, nearest, peak):  # type: ignore[no-untyped-def]
    """Add peak * exp(-qxx (x - top)^2 / 2) to row[first ... last]; step = exp(-qxx), half_step its root."""
    u = np.float32(nearest) - top
    tilt = math.exp(-qxx * u)
    start = peak * math.exp(np.float32(-0.5) * qxx * u * u)
    value, ratio = start, half_step * tilt
    for x in range(nearest, last + 1):
        row[x] += value
        value *= ratio
        ratio *= step
    ratio = half_step / tilt
    value = start * ratio
    for x in range(nearest - 1, first - 1, -1):
        row[x] += value
        ratio *= step
        value *= ratio


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _gather_row(row, qxx, step, half_step, top, first, last, nearest, origin):  # type: ignore[no-untyped-def]
    """Sums of w, w dx, w dx^2 with w = row[x] exp(-qxx (x - top)^2 / 2) and dx = x - origin."""
    u = np.float32(nearest) - top
    tilt = math.exp(-qxx * u)
    start = math.exp(np.float32(-0.5) * qxx * u * u)
    s0 = s1 = s2 = np.float32(0)
    value, ratio = start, half_step * tilt
    dx = np.float32(nearest) - origin
    for x in range(nearest, last + 1):
        weighted = value * row[x]
        s0 += weighted
        s1 += weighted * dx
        s2 += weighted * dx * dx
        dx += np.float32(1)
        value *= ratio
        ratio *= step
    ratio = half_step / tilt
    value = start * ratio
    dx = np.float32(nearest) - origin - np.float32(1)
    for x in range(nearest - 1, first - 1, -1):
        weighted = value * row[x]
        s0 += weighted
        s1 += weighted * dx
        s2 += weighted * dx * dx
        dx -= np.float32(1)
        ratio *= step
        value *= ratio
    return s0, s1, s2


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=_FAST)
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
    columns = (n + _INTERLEAVE - 1) // _INTERLEAVE
    for index in numba.prange(_INTERLEAVE * columns):
        z = (index % columns) * _INTERLEAVE + index // columns
        if z >= n:
            continue
        for j in range(centres.shape[0]):
            dz = np.float32(z) - middle - centres[j, 2]
            if abs(dz) > cutoff_sigmas * factors[j, 6]:
                continue
            f = factors[j]
            step, half_step = math.exp(-f[0]), math.exp(np.float32(-0.5) * f[0])
            middle_y, left, first_y, last_y = _rows(f, centres[j, 1], dz, cut2, middle, n)
            outside_plane = peaks[j] * math.exp(np.float32(-0.5) * (cut2 - left))
            for y in range(first_y, last_y + 1):
                dy = np.float32(y) - middle - centres[j, 1]
                off_y = np.float32(y) - middle - middle_y
                top, exponent, first, last, nearest = _row(f, centres[j, 0], off_y, dy, dz, left, middle, n)
                if first <= last:
                    peak = outside_plane * math.exp(np.float32(-0.5) * exponent)
                    _scatter_row(volume[z, y], f[0], step, half_step, top, first, last, nearest, peak)


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=_FAST)
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
    for j in numba.prange(centres.shape[0]):
        f = factors[j]
        step, half_step = math.exp(-f[0]), math.exp(np.float32(-0.5) * f[0])
        m = np.zeros(10, dtype=np.float32)
        first_z, last_z = _span(centres[j, 2] + middle, cutoff_sigmas * f[6], n)
        for z in range(first_z, last_z + 1):
            dz = np.float32(z) - middle - centres[j, 2]
            middle_y, left, first_y, last_y = _rows(f, centres[j, 1], dz, cut2, middle, n)
            outside_plane = math.exp(np.float32(-0.5) * (cut2 - left))
            for y in range(first_y, last_y + 1):
                dy = np.float32(y) - middle - centres[j, 1]
                off_y = np.float32(y) - middle - middle_y
                top, exponent, first, last, nearest = _row(f, centres[j, 0], off_y, dy, dz, left, middle, n)
                if first > last:
                    continue
                s0, s1, s2 = _gather_row(
                    gradient[z, y], f[0], step, half_step, top, first, last, nearest, centres[j, 0] + middle
                )
                height = outside_plane * math.exp(np.float32(-0.5) * exponent)
                s0 *= height
                s1 *= height
                s2 *= height
                m[0] += s0
                m[1] += s1
                m[2] += s0 * dy
                m[3] += s0 * dz
                m[4] += s2
                m[5] += s1 * dy
                m[6] += s1 * dz
                m[7] += s0 * dy * dy
                m[8] += s0 * dy * dz
                m[9] += s0 * dz * dz
        moments[j] = m
