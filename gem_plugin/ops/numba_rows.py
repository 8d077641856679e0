"""What the CPU engine does along a row of voxels or pixels: the inner loops of every Numba kernel.

A Gaussian seen in a plane (of a map, or as an image) is an ellipse: of each of its rows the maximum, the exponent
there and the half-width are known, so thin and oblique Gaussians cost few pixels too many.

There is no recurrence along a row: rows of 8 to 15 pixels are too short for it. Every pixel has an exponential of its
own (`exp2_minus`), and the compiler does LANES of them at once. All rows of an ellipse have as many groups of LANES
pixels as its widest (a number of its own for each row is slower: it cannot be foretold); what lies outside the
footprint gets 0. So a group may reach over a row's end, where nothing is changed, and over the plane's end: a plane
needs room for `padded_pixels` numbers.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic, register_jitable

LANES = 8
# Nothing that leaves the compiler a choice of rounding: a freshly compiled kernel must agree with a cached one.
FAST = {"nsz"}

BITS = 0.5 / math.log(2)  # exp(-q / 2) = 2^-(BITS q)
_LEAST_EXPONENT = np.float32(126)  # 2^-126 is the smallest normal float32
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(i) for i in range(2, 8))
_C9, _C16, _C25, _C36, _C49 = (np.float32(i * i) for i in range(3, 8))
_E0, _E1, _E2, _E3, _E4, _E5 = (  # 2^r for |r| <= 1/2 to 8e-8
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 5, [-0.5, 0.5]).convert(kind=np.polynomial.Polynomial).coef
)


class Walk(NamedTuple):
    """An ellipse as its rows need it: pixels from `column`, exponents in bits, float32."""

    slope: np.float32
    qxx: np.float32
    qyy: np.float32
    centre_x: np.float32
    sigma_x: np.float32  # of a row, times sqrt(BITS)^-1
    cut: np.float32  # largest exponent
    left_end: np.float32  # first pixel of the plane
    right_end: np.float32  # last pixel of the plane
    groups: np.int64  # of LANES pixels in a row


@register_jitable
def padded_pixels(box_size_px: int) -> int:
    """How many numbers the kernels want of an n x n plane: rows of pixels, then room for the last group of a row."""
    return box_size_px * (box_size_px + 1) + LANES


@intrinsic
def _float32_of_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """The float32 that has the bits of an int32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.types.float32(numba.types.int32), code


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def exp2_minus(t):  # type: ignore[no-untyped-def]
    """2^-t for t >= 0, to 2e-7 of its value; never below 2^-126."""
    t = t if t < _LEAST_EXPONENT else _LEAST_EXPONENT
    whole = np.int32(t + _HALF)
    r = np.float32(whole) - t
    power = _E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * (_E4 + r * _E5))))
    return power * _float32_of_bits((np.int32(127) - whole) << np.int32(23))  # type: ignore[call-arg]


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def row_of(walk, dy):  # type: ignore[no-untyped-def]
    """The footprint's part of one row: first pixel, its distance from the row's maximum and the largest, exponent.

    Where the row has nothing on the plane, the distance of the first pixel is over the largest.
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


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def scatter_row(row, lanes, walk, u, largest, exponent, peak):  # type: ignore[no-untyped-def]
    """Add peak * 2^-(exponent + qxx x^2) to those of `lanes` pixels with x <= largest; x is u at row[0]."""
    for i in range(lanes):
        x = u + np.float32(i)
        value = peak * exp2_minus(exponent + walk.qxx * x * x)
        row[i] += value if x <= largest else _ZERO


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _weigh(weights, lanes, walk, u, largest, exponent):  # type: ignore[no-untyped-def]
    """2^-(exponent + qxx x^2) for those of `lanes` pixels with x <= largest, else 0; x is u at the first."""
    for i in range(lanes):
        x = u + np.float32(i)
        value = exp2_minus(exponent + walk.qxx * x * x)
        weights[i] = value if x <= largest else _ZERO


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def gather_row(row, lanes, walk, u, largest, exponent, weights):  # type: ignore[no-untyped-def]
    """Sums of w, w x, w x^2 with w = row 2^-(exponent + qxx x^2) over those of `lanes` with x <= largest.

    The order of the sums is written out: left to the compiler, it would differ from one compilation to the next.
    """
    _weigh(weights, lanes, walk, u, largest, exponent)
    s0 = s1 = s2 = _ZERO
    for i in range(0, lanes, LANES):
        w0, w1, w2, w3 = (
            weights[i] * row[i],
            weights[i + 1] * row[i + 1],
            weights[i + 2] * row[i + 2],
            weights[i + 3] * row[i + 3],
        )
        w4, w5, w6, w7 = (
            weights[i + 4] * row[i + 4],
            weights[i + 5] * row[i + 5],
            weights[i + 6] * row[i + 6],
            weights[i + 7] * row[i + 7],
        )
        m0 = ((w0 + w1) + (w2 + w3)) + ((w4 + w5) + (w6 + w7))
        m1 = (w1 + _C2 * w2) + (_C3 * w3 + _C4 * w4) + ((_C5 * w5 + _C6 * w6) + _C7 * w7)
        m2 = (w1 + _C4 * w2) + (_C9 * w3 + _C16 * w4) + ((_C25 * w5 + _C36 * w6) + _C49 * w7)
        x = u + np.float32(i)
        s0 += m0
        s1 += m1 + x * m0
        s2 += m2 + x * (m1 + m1 + x * m0)
    return s0, s1, s2


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def scatter_ellipse(pixels, lanes, n, start, rows, v, walk, peak):  # type: ignore[no-untyped-def]
    """Add the ellipse of a Gaussian with this value in its middle; `lanes` pixels a row."""
    for _ in range(rows):
        first, u, largest, exponent = row_of(walk, v)
        scatter_row(pixels[start + first :], lanes, walk, u, largest, exponent, peak)
        v += _ONE
        start += n


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def gather_ellipse(pixels, lanes, n, start, rows, v, walk, weights):  # type: ignore[no-untyped-def]
    """Sums of 1; u, v; uu, uv, vv under the ellipse of a Gaussian of peak 1 in its middle.

    Parameters
    ----------
    weights : [>= lanes] float32, to work in
    """
    s0 = su = sv = suu = suv = svv = _ZERO
    for _ in range(rows):
        first, u, largest, exponent = row_of(walk, v)
        r0, ru, ruu = gather_row(pixels[start + first :], lanes, walk, u, largest, exponent, weights)
        s0 += r0
        su += ru
        sv += r0 * v
        suu += ruu
        suv += ru * v
        svv += r0 * v * v
        v += _ONE
        start += n
    return s0, su, sv, suu, suv, svv
