"""The phase errors of the objective lens that go beyond defocus and spherical aberration, as RELION describes them.

Symmetric terms belong into the phase gamma of the CTF; antisymmetric ones, and the beam tilt, shift the phases of the
images. Formulas: RELION, src/jaz/math/Zernike.cpp, src/jaz/single_particle/obs_model.cpp and
src/jaz/single_particle/ctf/tilt_helper.cpp.
"""

from math import factorial, isqrt

import numpy as np
from numpy.typing import NDArray

from gem_plugin.io.optics_table import OpticsGroup

Floats = NDArray[np.float64]


def electron_wavelength_in_angstroms(voltage_kv: float) -> float:
    """Relativistic electron wavelength with RELION's constants (src/ctf.cpp)."""
    volts = 1e3 * voltage_kv
    return float(12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))


def frequencies_at_the_specimen(optics: OpticsGroup, kx: NDArray[np.int64], ky: NDArray[np.int64]) -> Floats:
    """Spatial frequencies of the undistorted image, M k, where CTF and phases are taken.

    Parameters
    ----------
    kx, ky : [points] in cycles an edge of the group's box

    Returns
    -------
    [2, points] x and y in 1/Angstrom
    """
    frequencies = np.stack([kx, ky]) / optics.edge_in_angstroms
    return np.asarray(np.reshape(optics.magnification, (2, 2)) @ frequencies)


def symmetric_phase(optics: OpticsGroup, kx: Floats, ky: Floats) -> Floats:
    """Sum of the even Zernike terms, which is added to gamma, [points] radians.

    Parameters
    ----------
    kx, ky : [points] in 1/Angstrom, at the specimen
    """
    return _sum_of_terms([even_term(i) for i in range(len(optics.even_zernike))], optics.even_zernike, kx, ky)


def antisymmetric_phase(optics: OpticsGroup, kx: Floats, ky: Floats) -> Floats:
    """The phase by which images are ahead of the projections, from beam tilt and odd Zernike terms, [points] radians.

    A beam tilt t (radians) gives -2 pi Cs lambda^2 (t . k) |k|^2.

    Parameters
    ----------
    kx, ky : [points] in 1/Angstrom, at the specimen
    """
    phase = _sum_of_terms([odd_term(i) for i in range(len(optics.odd_zernike))], optics.odd_zernike, kx, ky)
    tilt_x, tilt_y = (1e-3 * tilt for tilt in optics.beam_tilt_mrad)
    if tilt_x or tilt_y:
        wavelength = electron_wavelength_in_angstroms(optics.voltage_kv)
        coma = -2 * np.pi * optics.spherical_aberration_mm * 1e7 * wavelength**2
        phase = phase + coma * (tilt_x * kx + tilt_y * ky) * (kx**2 + ky**2)
    return phase


def even_term(index: int) -> tuple[int, int]:
    """Degree n and order m of an entry of rlnEvenZernike, counted from 0."""
    row = isqrt(index)
    return 2 * row, 2 * (index - row * row - row)


def odd_term(index: int) -> tuple[int, int]:
    """Degree n and order m of an entry of rlnOddZernike, counted from 0."""
    row = (isqrt(1 + 4 * index) - 1) // 2
    degree = 2 * row + 1
    return degree, 2 * (index - row * row - row) - degree


def zernike(degree: int, order: int, kx: Floats, ky: Floats) -> Floats:
    """Zernike polynomial at (kx, ky), which is not scaled to a unit disc: cosines of m >= 0, sines of m < 0."""
    m = abs(order)
    radius2 = kx**2 + ky**2
    # the radial part over |k|^m is a polynomial in |k|^2, and |k|^m e^(i m p) one in kx + i ky
    radial = np.zeros_like(radius2)
    for k in range((degree - m) // 2 + 1):
        divisor = factorial(k) * factorial((degree + m) // 2 - k) * factorial((degree - m) // 2 - k)
        radial += (-1) ** k * factorial(degree - k) / divisor * radius2 ** ((degree - m) // 2 - k)
    angular = (kx + 1j * ky) ** m
    return np.asarray(radial * (angular.real if order >= 0 else angular.imag))


def _sum_of_terms(terms: list[tuple[int, int]], coefficients: tuple[float, ...], kx: Floats, ky: Floats) -> Floats:
    total = np.zeros(np.shape(kx))
    for (degree, order), coefficient in zip(terms, coefficients, strict=True):
        if coefficient:
            total += coefficient * zernike(degree, order, kx, ky)
    return total
