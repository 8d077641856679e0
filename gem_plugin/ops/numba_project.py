"""The CPU engine of project(): Numba kernels that walk each Gaussian's ellipse in each image, row by row.

In a view, a Gaussian with centre p and 2D covariance C has q = dy^2 / Cyy + (dx - dy Cxy / Cyy)^2 / V with
V = Cxx - Cxy^2 / Cyy, the variance of x in a row: of each row the maximum, the exponent there and the half-width are
known, so thin and oblique Gaussians cost few pixels too many. Geometry is float64, pixels are float32.

Both kernels are deterministic whatever the number of threads: forward, each image has one writer; backward, each
Gaussian has one reader, which adds the images in their order, in float64.

There is no recurrence along a row as on a map: rows of 8 pixels are too short for it. Every pixel has an exponential
of its own (`_exp2_minus`), and the compiler does LANES of them at once. All rows of a Gaussian have as many groups of
LANES pixels as its widest; what lies outside the footprint gets 0. So a group may reach over a row's end, where
nothing is changed, and over the image's end: images come as rows of `padded_pixels` numbers.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LANES = 8
_FAST = {"contract", "nsz", "arcp", "reassoc"}  # reassoc: sums along a row are made in lanes
_SEEN_TOGETHER = 256  # Gaussians of one image whose geometry is found before their pixels are touched

# columns of the table of ellipses that `_see` writes, float64
_PX, _PY = 0, 1  # centre, counted from pixel 0
_SLOPE = 2  # Cxy / Cyy: how far a row's maximum moves in x for a step in y
_QXX, _QYY = 3, 4  # 1 / V, 1 / Cyy
_UNIT_PEAK = 5  # value at the centre for amplitude 1
_FIRST_Y, _LAST_Y = 6, 7  # rows of the footprint on the image
_COLUMNS = 8

_BITS = 0.5 / math.log(2)  # exp(-q / 2) = 2^-(_BITS q)
_LEAST_EXPONENT = np.float32(126)  # 2^-126 is the smallest normal float32
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_E0, _E1, _E2, _E3, _E4, _E5 = (  # 2^r for |r| <= 1/2 to 8e-8
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 5, [-0.5, 0.5]).convert(kind=np.polynomial.Polynomial).coef
)


class _Walk(NamedTuple):
    """An ellipse as its rows need it: pixels from `column`, exponents in bits, float32."""

    slope: np.float32
    qxx: np.float32
    qyy: np.float32
    centre_x: np.float32
    sigma_x: np.float32  # of a row, times sqrt(_BITS)^-1
    cut: np.float32  # largest exponent
    left_end: np.float32  # first pixel of the image
    right_end: np.float32  # last pixel of the image
    groups: np.int64  # of LANES pixels in a row


def padded_pixels(box_size_px: int) -> int:
    """How many numbers the kernels want of an n x n image: rows of pixels, then room for the last group of a row."""
    return box_size_px * (box_size_px + 1) + LANES


@intrinsic
def _float32_of_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """The float32 that has the bits of an int32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.types.float32(numba.types.int32), code


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _exp2_minus(t):  # type: ignore[no-untyped-def]
    """2^-t for t >= 0, to 2e-7 of its value; never below 2^-126."""
    t = t if t < _LEAST_EXPONENT else _LEAST_EXPONENT
    whole = np.int32(t + _HALF)
    r = np.float32(whole) - t
    power = _E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * (_E4 + r * _E5))))
    return power * _float32_of_bits((np.int32(127) - whole) << np.int32(23))  # type: ignore[call-arg]


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _walk(e, cutoff_sigmas, n):  # type: ignore[no-untyped-def]
    """Where a Gaussian's rows begin in the flat image, how many they are, dy of the first, and what all of them need.

    Pixels are counted from the whole column left of the centre, so that float32 keeps its digits in large boxes.
    """
    column = np.floor(e[_PX])
    sigma_x = math.sqrt(1 / e[_QXX])
    widest = min(2 * cutoff_sigmas * sigma_x, n - 1.0)
    walk = _Walk(
        np.float32(e[_SLOPE]),
        np.float32(_BITS * e[_QXX]),
        np.float32(_BITS * e[_QYY]),
        np.float32(e[_PX] - column),
        np.float32(sigma_x / math.sqrt(_BITS)),
        np.float32(_BITS * cutoff_sigmas * cutoff_sigmas),
        np.float32(-column),
        np.float32(n - 1 - column),
        np.int64(widest) // LANES + 1,
    )
    start = np.int64(e[_FIRST_Y]) * n + np.int64(column)
    return start, np.int64(e[_LAST_Y] - e[_FIRST_Y]) + 1, np.float32(e[_FIRST_Y] - e[_PY]), walk


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _row(walk, dy):  # type: ignore[no-untyped-def]
    """The footprint's part of one row: first pixel, its distance from the row's maximum and the largest, exponent.

    Where the row has nothing on the image, the distance of the first pixel is over the largest.
    """
    exponent = walk.qyy * dy * dy
    top = walk.centre_x + walk.slope * dy
    rest = walk.cut - exponent
    half = np.sqrt(rest if rest > _ZERO else _ZERO) * walk.sigma_x
    first = np.ceil(top - half)
    first = first if first > walk.left_end else walk.left_end
    to_end = walk.right_end + _HALF - top  # half a pixel more: no pixel lies there, and rounding cannot lose the last
    inside = np.int64(first if first < walk.right_end else walk.right_end)
    return inside, first - top, half if half < to_end else to_end, exponent


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _scatter_row(row, walk, u, largest, exponent, peak):  # type: ignore[no-untyped-def]
    """Add peak * 2^-(exponent + qxx x^2) to the pixels with x <= largest; x is u at row[0]."""
    for i in range(np.int32(walk.groups * LANES)):
        x = u + np.float32(i)
        value = peak * _exp2_minus(exponent + walk.qxx * x * x)
        row[i] += value if x <= largest else _ZERO


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _gather_row(row, walk, u, largest, exponent):  # type: ignore[no-untyped-def]
    """Sums of w, w x, w x^2 with w = row 2^-(exponent + qxx x^2) over the pixels with x <= largest."""
    s0 = s1 = s2 = _ZERO
    for i in range(np.int32(walk.groups * LANES)):
        x = u + np.float32(i)
        weighted = row[i] * _exp2_minus(exponent + walk.qxx * x * x)
        weighted = weighted if x <= largest else _ZERO
        s0 += weighted
        s1 += weighted * x
        s2 += weighted * x * x
    return s0, s1, s2


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=_FAST)
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
                for _ in range(rows):
                    first, u, largest, exponent = _row(walk, dy)
                    _scatter_row(images[b, start + first :], walk, u, largest, exponent, peak)
                    dy += _ONE
                    start += box_size_px


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _gather_image(image, ellipses, cutoff_sigmas, n, moments):  # type: ignore[no-untyped-def]
    """Moments of an image under unit peaks, with u = dx - slope dy: sums of 1, u, dy, u^2, u dy, dy^2."""
    for j in range(moments.shape[0]):
        start, rows, dy, walk = _walk(ellipses[j], cutoff_sigmas, n)
        m0 = mu = my = muu = muy = myy = _ZERO
        for _ in range(rows):
            first, u, largest, exponent = _row(walk, dy)
            s0, s1, s2 = _gather_row(image[start + first :], walk, u, largest, exponent)
            m0 += s0
            mu += s1
            my += s0 * dy
            muu += s2
            muy += s1 * dy
            myy += s0 * dy * dy
            dy += _ONE
            start += n
        m = moments[j]
        m[0], m[1], m[2], m[3], m[4], m[5] = m0, mu, my, muu, muy, myy


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=_FAST)
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
