"""The CPU engine: Numba kernels that walk each Gaussian's ellipsoid, plane by plane, row by row.

Along a row the exponential is advanced by two multiplications a voxel (its ratio changes by a constant factor),
outwards from the voxel nearest the row's maximum, so it can only shrink: thin and oblique Gaussians are safe.
Both kernels are deterministic whatever the number of threads: forward, each plane has one writer and adds the
Gaussians in their order; backward, each Gaussian has one reader.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@numba.njit(cache=True, inline="always", error_model="numpy")
def _row_range(centre, halfwidth, n):  # type: ignore[no-untyped-def]
    """First and last voxel index within `halfwidth` of `centre`, clipped to the box."""
    first = max(int(math.ceil(centre - halfwidth)), 0)
    last = min(int(math.floor(centre + halfwidth)), n - 1)
    return first, last


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def scatter(
    centres: Floats,  # [N, 3]
    factors: Floats,  # [N, 7]
    peaks: Floats,  # [N]
    cutoff_sigmas: np.float32,
    volume: Floats,  # [n, n, n], written
) -> None:
    """Add the Gaussians to `volume`."""
    n = volume.shape[0]
    half = n // 2
    middle = np.float32(half)
    cut2 = cutoff_sigmas * cutoff_sigmas
    stride = 16  # neighbouring planes go to different threads: the middle of a box is the busy part
    columns = (n + stride - 1) // stride
    for index in numba.prange(stride * columns):
        z = (index % columns) * stride + index // columns
        if z >= n:
            continue
        plane = volume[z]
        for j in range(centres.shape[0]):
            dz = np.float32(z - half) - centres[j, 2]
            left = cut2 - factors[j, 5] * dz * dz
            if left < 0:
                continue
            qxx, lxy, lxz, syy, lyz = factors[j, 0], factors[j, 1], factors[j, 2], factors[j, 3], factors[j, 4]
            middle_y = centres[j, 1] - lyz * dz
            first_y, last_y = _row_range(middle_y + middle, math.sqrt(left / syy), n)
            step, half_step = math.exp(-qxx), math.exp(-np.float32(0.5) * qxx)
            for y in range(first_y, last_y + 1):
                off_y = np.float32(y - half) - middle_y
                left_x = left - syy * off_y * off_y
                if left_x < 0:
                    continue
                dy = np.float32(y - half) - centres[j, 1]
                middle_x = centres[j, 0] - lxy * dy - lxz * dz + middle
                first_x, last_x = _row_range(middle_x, math.sqrt(left_x / qxx), n)
                if first_x > last_x:
                    continue
                start = min(max(int(math.floor(middle_x + np.float32(0.5))), first_x), last_x)
                u = np.float32(start) - middle_x
                top = peaks[j] * math.exp(np.float32(-0.5) * (cut2 - left_x + qxx * u * u))
                tilt = math.exp(-qxx * u)
                value, ratio = top, half_step * tilt
                for x in range(start, last_x + 1):
                    plane[y, x] += value
                    value *= ratio
                    ratio *= step
                ratio = half_step / tilt
                value = top * ratio
                ratio *= step
                for x in range(start - 1, first_x - 1, -1):
                    plane[y, x] += value
                    value *= ratio
                    ratio *= step


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def gather(
    centres: Floats,  # [N, 3]
    factors: Floats,  # [N, 7]
    cutoff_sigmas: np.float32,
    gradient: Floats,  # [n, n, n]
    moments: Floats,  # [N, 10], written: M0; M1 x, y, z; M2 xx, xy, xz, yy, yz, zz
) -> None:
    """Moments of `gradient` under each Gaussian of unit peak, about its centre."""
    n = gradient.shape[0]
    half = n // 2
    middle = np.float32(half)
    cut2 = cutoff_sigmas * cutoff_sigmas
    for j in numba.prange(centres.shape[0]):
        qxx, lxy, lxz, syy, lyz, rzz = (
            factors[j, 0], factors[j, 1], factors[j, 2], factors[j, 3], factors[j, 4], factors[j, 5],
        )  # fmt: skip
        step, half_step = math.exp(-qxx), math.exp(-np.float32(0.5) * qxx)
        m0 = mx = my = mz = mxx = mxy = mxz = myy = myz = mzz = np.float32(0)
        first_z, last_z = _row_range(centres[j, 2] + middle, cutoff_sigmas * factors[j, 6], n)
        for z in range(first_z, last_z + 1):
            dz = np.float32(z - half) - centres[j, 2]
            left = cut2 - rzz * dz * dz
            if left < 0:
                continue
            middle_y = centres[j, 1] - lyz * dz
            first_y, last_y = _row_range(middle_y + middle, math.sqrt(left / syy), n)
            for y in range(first_y, last_y + 1):
                off_y = np.float32(y - half) - middle_y
                left_x = left - syy * off_y * off_y
                if left_x < 0:
                    continue
                dy = np.float32(y - half) - centres[j, 1]
                middle_x = centres[j, 0] - lxy * dy - lxz * dz + middle
                first_x, last_x = _row_range(middle_x, math.sqrt(left_x / qxx), n)
                if first_x > last_x:
                    continue
                start = min(max(int(math.floor(middle_x + np.float32(0.5))), first_x), last_x)
                u = np.float32(start) - middle_x
                top = math.exp(np.float32(-0.5) * (cut2 - left_x + qxx * u * u))
                tilt = math.exp(-qxx * u)
                r0 = r1 = r2 = np.float32(0)
                value, ratio = top, half_step * tilt
                dx = np.float32(start - half) - centres[j, 0]
                for x in range(start, last_x + 1):
                    weighted = value * gradient[z, y, x]
                    r0 += weighted
                    r1 += weighted * dx
                    r2 += weighted * dx * dx
                    dx += np.float32(1)
                    value *= ratio
                    ratio *= step
                ratio = half_step / tilt
                value = top * ratio
                ratio *= step
                dx = np.float32(start - half) - centres[j, 0] - np.float32(1)
                for x in range(start - 1, first_x - 1, -1):
                    weighted = value * gradient[z, y, x]
                    r0 += weighted
                    r1 += weighted * dx
                    r2 += weighted * dx * dx
                    dx -= np.float32(1)
                    value *= ratio
                    ratio *= step
                m0 += r0
                mx += r1
                my += r0 * dy
                mz += r0 * dz
                mxx += r2
                mxy += r1 * dy
                mxz += r1 * dz
                myy += r0 * dy * dy
                myz += r0 * dy * dz
                mzz += r0 * dz * dz
        moments[j, 0], moments[j, 1], moments[j, 2], moments[j, 3] = m0, mx, my, mz
        moments[j, 4], moments[j, 5], moments[j, 6] = mxx, mxy, mxz
        moments[j, 7], moments[j, 8], moments[j, 9] = myy, myz, mzz
