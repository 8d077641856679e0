"""Loops over half transforms, the layout of ``rfftn``: sums over Fourier shells, and weights a shell.

Each walks once through its arrays, without copies of their size, and adds in one order, whatever the threads.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Transform = NDArray[np.complexfloating[Any, Any]]


@numba.njit(cache=True, nogil=True)
def sum_over_shells(
    shell: NDArray[np.int16], first: Transform, second: Transform, pairs: int, sums: NDArray[np.float64]
) -> None:
    """Add Re(first second*) of all elements of a half transform to the sums of their shells.

    Parameters
    ----------
    shell : [a, b, c] of each element; those beyond the sums are left out
    first, second : [a, b, c]
    pairs : how often an element counts that stands for a conjugate pair: all but the first and the last along x
    sums : [shells] to be added to
    """
    n_z, n_y, n_x = first.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                s = shell[z, y, x]
                if s < len(sums):
                    a, b = first[z, y, x], second[z, y, x]
                    value = np.float64(a.real) * np.float64(b.real) + np.float64(a.imag) * np.float64(b.imag)
                    sums[s] += value if x == 0 or x == n_x - 1 else pairs * value


@numba.njit(cache=True, nogil=True)
def weigh_shells(shell: NDArray[np.int16], transform: Transform, weight: NDArray[Any], weighted: Transform) -> None:
    """Multiply every element of a half transform by its shell's weight; those beyond the weights are 0.

    Parameters
    ----------
    shell, transform, weighted : [a, b, c]; `weighted` is written to
    weight : [shells]
    """
    n_z, n_y, n_x = transform.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                s = shell[z, y, x]
                weighted[z, y, x] = transform[z, y, x] * weight[s] if s < len(weight) else 0
