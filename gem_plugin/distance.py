"""Distances to a set of voxels: exact, in time that grows with the number of voxels alone.

Squared distances are minimised along one axis after the other; along an axis they are the lower envelope of parabolas
(Felzenszwalb and Huttenlocher 2012, Theory of Computing 8, 415).
"""

import numba
import numpy as np
from numpy.typing import NDArray


def distance_px(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of every voxel to the nearest that is inside, in voxels, [n, n, n]; infinite where none is."""
    squares = np.where(inside, np.float32(0), np.float32(np.inf))
    for axis in range(squares.ndim):
        _spread_along_middle(squares.reshape(int(np.prod(squares.shape[:axis])), squares.shape[axis], -1))
    return np.asarray(np.sqrt(squares, out=squares))


@numba.njit(cache=True, nogil=True)
def _spread_along_middle(squares: NDArray[np.float32]) -> None:
    """Replace f(q) by the smallest (q - p)^2 + f(p) of all p, along the middle axis of [a, n, b]."""
    n = squares.shape[1]
    height, place, ends = np.empty(n), np.empty(n), np.empty(n + 1)
    for a in range(squares.shape[0]):
        for b in range(squares.shape[2]):
            count = 0  # of the parabolas that make the envelope: their heights, places, and where each begins
            for q in range(n):
                f = np.float64(squares[a, q, b])
                if f == np.inf:
                    continue
                begin = -np.inf
                while count > 0:
                    p = place[count - 1]
                    begin = ((f + q * q) - (height[count - 1] + p * p)) / (2 * (q - p))
                    if begin > ends[count - 1]:
                        break
                    count -= 1
                    begin = -np.inf
                height[count], place[count], ends[count] = f, q, begin
                count += 1
            ends[count] = np.inf
            parabola = 0
            for q in range(n if count else 0):
                while ends[parabola + 1] < q:
                    parabola += 1
                squares[a, q, b] = (q - place[parabola]) ** 2 + height[parabola]
