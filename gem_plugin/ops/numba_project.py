"""The CPU engine of project(): Numba kernels that walk each Gaussian's ellipse in each image, row by row.

In a view, a Gaussian with centre p and 2D covariance C has q = dy^2 / Cyy + (dx - dy Cxy / Cyy)^2 / V with
V = Cxx - Cxy^2 / Cyy, the variance of x in a row. Geometry is float64, pixels are float32.

Both kernels are deterministic whatever the number of threads: forward, each image has one writer; backward, each
Gaussian has one reader, which adds the images in their order, in float64.

`gem_plugin.ops.numba_rows` walks the rows; it may touch numbers behind an image's last pixel: images come as rows of
`padded_pixels` numbers.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from gem_plugin.ops.numba_rows import BITS, FAST, LANES, Walk, gather_ellipse, scatter_ellipse

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SEEN_TOGETHER = 256  # Gaussians of one image whose geometry is found before their pixels are touched

# columns of the table of ellipses that `_see` writes, float64
_PX, _PY = 0, 1  # centre, counted from pixel 0
_SLOPE = 2  # Cxy / Cyy: how far a row's maximum moves in x for a step in y
_QXX, _QYY = 3, 4  # 1 / V, 1 / Cyy
_UNIT_PEAK = 5  # value at the centre for amplitude 1
_FIRST_Y, _LAST_Y = 6, 7  # rows of the footprint on the image
_COLUMNS = 8


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _see(rotation, centres, covariances, cutoff_sigmas, n, ellipses):  # type: ignore[no-untyped-def]
    """Write the ellipses of some Gaussians in one view; one that is not on the image (or not finite) has no rows."""
    ax, ay, az = rotation[0, 0], rotation[0, 1], rotation[0, 2]
    bx, by, bz = rotation[1, 0], rotation[1, 1], rotation[1, 2]
    for j in range(centres.shape[0]):
        xx, xy, xz = covariances[j, 0], covariances[j, 1], covariances[j, 2]
        yy, yz, zz = covariances[j, 3], covariances[j, 4], covariances[j, 5]
        vx, vy, vz = xx * bx + xy * by + xz * bz, xy * bx + yy * by + yz * bz, xz * bx + yz * by + zz * bz
        cyy = bx * vx + by * vy + bz * vz
        cxy = ax * vx + ay * vy + az * vz
        cxx = ax * (xx * ax + 2 * (xy * ay + xz * az)) + ay * (yy * ay + 2 * yz * az) + az * zz * az
        variance = cxx - cxy * cxy / cyy
        px = ax * centres[j, 0] + ay * centres[j, 1] + az * centres[j, 2] + n // 2
        py = bx * centres[j, 0] + by * centres[j, 1] + bz * centres[j, 2] + n // 2
        reach_x, reach_y = cutoff_sigmas * math.sqrt(cxx), cutoff_sigmas * math.sqrt(cyy)
        in_x = px + reach_x >= 0 and px - reach_x <= n - 1
        seen = in_x and py + reach_y >= 0 and py - reach_y <= n - 1 and variance > 0  # false for what is not finite
        e = ellipses[j]
        e[_PX], e[_PY], e[_SLOPE], e[_QXX], e[_QYY] = px, py, cxy / cyy, 1 / variance, 1 / cyy
        e[_UNIT_PEAK] = 1 / (2 * math.pi * math.sqrt(cyy * variance))
        e[_FIRST_Y] = max(np.ceil(py - reach_y), 0.0) if seen else 0.0
        e[_LAST_Y] = min(np.floor(py + reach_y), n - 1.0) if seen else -1.0


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _walk(e, cutoff_sigmas, n):  # type: ignore[no-untyped-def]
    """Where a Gaussian's rows begin in the flat image, how many they are, dy of the first, and what all of them need.

    Pixels are counted from the whole column left of the centre, so that float32 keeps its digits in large boxes.
    """
    column = np.floor(e[_PX])
    sigma_x = math.sqrt(1 / e[_QXX])
    widest = min(2 * cutoff_sigmas * sigma_x, n - 1.0)
    walk = Walk(
        np.float32(e[_SLOPE]),
        np.float32(BITS * e[_QXX]),
        np.float32(BITS * e[_QYY]),
        np.float32(e[_PX] - column),
        np.float32(sigma_x / math.sqrt(BITS)),
        np.float32(BITS * cutoff_sigmas * cutoff_sigmas),
        np.float32(-column),
        np.float32(n - 1 - column),
        np.int64(widest) // LANES + 1,
    )
    start = np.int64(e[_FIRST_Y]) * n + np.int64(column)
    return start, np.int64(e[_LAST_Y] - e[_FIRST_Y]) + 1, np.float32(e[_FIRST_Y] - e[_PY]), walk


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=FAST)
def scatter_views(
    rotations: Doubles,  # [B, 3, 3] map to view
    centres: Doubles,  # [N, 3]
    covariances: Doubles,  # [N, 6] xx, xy, xz, yy, yz, zz
    amplitudes: Doubles,  # [N]
    cutoff_sigmas: float,
    box_size_px: int,
    images: Floats,  # [B, padded_pixels], added to
) -> None:
    """Add the line integrals of the Gaussians to the images."""
    for b in numba.prange(images.shape[0]):
        ellipses = np.empty((_SEEN_TOGETHER, _COLUMNS))
        for begin in range(0, centres.shape[0], _SEEN_TOGETHER):
            end = min(begin + _SEEN_TOGETHER, centres.shape[0])
            _see(rotations[b], centres[begin:end], covariances[begin:end], cutoff_sigmas, box_size_px, ellipses)
            for j in range(end - begin):
                start, rows, dy, walk = _walk(ellipses[j], cutoff_sigmas, box_size_px)
                peak = np.float32(amplitudes[begin + j] * ellipses[j, _UNIT_PEAK])
                lanes = np.int32(walk.groups * LANES)
                scatter_ellipse(images[b], lanes, box_size_px, start, rows, dy, walk, peak)


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _gather_image(image, ellipses, cutoff_sigmas, n, moments):  # type: ignore[no-untyped-def]
    """Moments of an image under unit peaks, with u = dx - slope dy: sums of 1, u, dy, u^2, u dy, dy^2."""
    weights = np.empty(n + LANES, dtype=np.float32)
    for j in range(moments.shape[0]):
        start, rows, dy, walk = _walk(ellipses[j], cutoff_sigmas, n)
        lanes = np.int32(walk.groups * LANES)
        m0, mu, my, muu, muy, myy = gather_ellipse(image, lanes, n, start, rows, dy, walk, weights)
        m = moments[j]
        m[0], m[1], m[2], m[3], m[4], m[5] = m0, mu, my, muu, muy, myy


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _add_gradients(rotation, ellipses, moments, amplitudes, sums):  # type: ignore[no-untyped-def]
    """Carry one image's moments to the ten numbers of each Gaussian and add them to `sums`.

    With a and b the first rows of the rotation and c = a - slope b, the precision matrix in the image is, carried
    back to the map, qxx c c^T + qyy b b^T: in the coordinates u and dy of the moments it is diagonal.
    """
    for j in range(moments.shape[0]):
        e, m, s = ellipses[j], moments[j], sums[j]
        bx, by, bz = rotation[1, 0], rotation[1, 1], rotation[1, 2]
        cx, cy, cz = rotation[0, 0] - e[_SLOPE] * bx, rotation[0, 1] - e[_SLOPE] * by, rotation[0, 2] - e[_SLOPE] * bz
        peak, qxx, qyy = amplitudes[j] * e[_UNIT_PEAK], e[_QXX], e[_QYY]
        gc, gb = peak * qxx * m[1], peak * qyy * m[2]
        hcc = 0.5 * peak * qxx * (qxx * m[3] - m[0])
        hcb = 0.5 * peak * qxx * qyy * m[4]
        hbb = 0.5 * peak * qyy * (qyy * m[5] - m[0])
        s[0] += gc * cx + gb * bx
        s[1] += gc * cy + gb * by
        s[2] += gc * cz + gb * bz
        s[3] += hcc * cx * cx + 2 * hcb * cx * bx + hbb * bx * bx
        s[4] += hcc * cx * cy + hcb * (cx * by + bx * cy) + hbb * bx * by
        s[5] += hcc * cx * cz + hcb * (cx * bz + bx * cz) + hbb * bx * bz
        s[6] += hcc * cy * cy + 2 * hcb * cy * by + hbb * by * by
        s[7] += hcc * cy * cz + hcb * (cy * bz + by * cz) + hbb * by * bz
        s[8] += hcc * cz * cz + 2 * hcb * cz * bz + hbb * bz * bz
        s[9] += e[_UNIT_PEAK] * m[0]


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=FAST)
def gather_views(
    rotations: Doubles,  # [B, 3, 3] map to view
    centres: Doubles,  # [N, 3]
    covariances: Doubles,  # [N, 6] xx, xy, xz, yy, yz, zz
    amplitudes: Doubles,  # [N]
    cutoff_sigmas: float,
    box_size_px: int,
    chunk: int,  # Gaussians that a thread takes through all images at a time; changes no result
    gradients: Floats,  # [B, padded_pixels] of the loss in the images; what lies behind the pixels is finite
    sums: Doubles,  # [N, 10], added to: dL/dcentre x, y, z; dL/dCovariance xx, xy, xz, yy, yz, zz; dL/damplitude
) -> None:
    """Sum the gradients over the images; dL/dCovariance is half of what a pair of off-diagonal elements does."""
    n = centres.shape[0]
    for index in numba.prange((n + chunk - 1) // chunk):
        part = slice(index * chunk, min((index + 1) * chunk, n))
        ellipses = np.empty((chunk, _COLUMNS))
        moments = np.empty((part.stop - part.start, 6), dtype=np.float32)
        for b in range(gradients.shape[0]):  # an image stays in the cache while the chunk reads it
            _see(rotations[b], centres[part], covariances[part], cutoff_sigmas, box_size_px, ellipses)
            _gather_image(gradients[b], ellipses, cutoff_sigmas, box_size_px, moments)
            _add_gradients(rotations[b], ellipses, moments, amplitudes[part], sums[part])
