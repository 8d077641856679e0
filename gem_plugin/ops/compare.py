"""Projections against images: the sums over Fourier points that a particle's scale and residuals are made of."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, parallel=True, error_model="numpy")
def compare_transforms(
    spectra: NDArray[np.complexfloating[Any, Any]],  # [m, n, n // 2 + 1] ``rfft2`` of the projections
    rows: NDArray[np.int64],  # [points] of a spectrum
    columns: NDArray[np.int64],  # [points]
    signs: NDArray[np.float32],  # [points] factors that move the origin to the centre pixel
    ctf: NDArray[np.float32],  # [m, points]
    observed: NDArray[np.complex64],  # [m, points]
    strengths: NDArray[np.float64],  # [points] weight over noise power
    shell: NDArray[np.int64],  # [points]
    scales: NDArray[np.float64],  # [m], written
    residuals: NDArray[np.float64],  # [m, shells], added to
) -> None:
    """Fit each projection X (times the CTF) to its image Y by a factor, and sum what is left of Y, shell by shell.

    The factor is <X, Y> / <X, X>, 0 where the projection is empty. Each particle is one thread's, and its sums are in
    float64 in the points' order, so no result depends on the number of threads.
    """
    for b in numba.prange(len(observed)):
        modelled = np.empty(len(rows), dtype=spectra.dtype)
        cross = power = 0.0
        for i in range(len(rows)):
            x = spectra[b, rows[i], columns[i]] * (signs[i] * ctf[b, i])
            modelled[i] = x
            y = observed[b, i]
            real, imaginary = np.float64(x.real), np.float64(x.imag)
            cross += strengths[i] * (real * y.real + imaginary * y.imag)
            power += strengths[i] * (real * real + imaginary * imaginary)
        scale = cross / power if power > 0 else 0.0
        scales[b] = scale
        for i in range(len(rows)):
            real = scale * modelled[i].real - observed[b, i].real
            imaginary = scale * modelled[i].imag - observed[b, i].imag
            residuals[b, shell[i]] += strengths[i] * (real * real + imaginary * imaginary)
