"""The sharpened map: amplitudes raised by a B-factor, fitted to a Guinier plot or given.

The logarithm of the mean amplitude of a shell falls along a line against 1 / d^2, of slope B / 4 in RELION's sign: the
sharpening B-factor is negative, and amplitudes are multiplied by exp(-B / (4 d^2)) (Rosenthal and Henderson 2003, J.
Mol. Biol. 333, 721). As in RELION's PostProcess the line is fitted to the map weighted by its correlation with the
truth, from 10 Angstrom to the stated resolution, and beyond that resolution nothing is kept. Unlike there, the map is
taken under the mask, so that the solvent has no say.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.fsc import Shells
from gem_plugin.reconstruction import GuinierPlot, ResolutionCurve, Sharpening

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

COARSEST_IN_ANGSTROMS = 10.0  # coarser shells tell the shape of the molecule, not the decay of its amplitudes
LEAST_SHELLS = 6  # a line through fewer is chance
NOT_SHARPENED = "Sharpened map: not sharpened, because"
EDGE_SHELLS = 2.0  # of the low-pass at the resolution, as wide as PostProcess makes it


def guinier_plot(volume: Map, pixel_size_in_angstroms: float, finest_in_angstroms: float | None) -> GuinierPlot:
    """Mean amplitudes of a map's shells and the line through those from 10 Angstrom to the finest.

    Parameters
    ----------
    volume : [n, n, n], filtered and masked
    finest_in_angstroms : resolution at which the line ends; None fits none

    Returns
    -------
    GuinierPlot
        Without a line (nan) where fewer than `LEAST_SHELLS` shells lie in between.
    """
    n = volume.shape[0]
    shell = conventions.shell_indices(n).ravel()
    amplitude = np.abs(fft.rfftn(np.asarray(volume, dtype=np.float64))).ravel()
    mean = np.bincount(shell, weights=amplitude)[: n // 2 + 1] / np.bincount(shell)[: n // 2 + 1]
    with np.errstate(divide="ignore"):
        log_amplitude = np.where(mean > 1e-12 * mean.max(initial=0), np.log(mean), np.nan)
    inverse_square = (np.arange(n // 2 + 1) / (n * pixel_size_in_angstroms)) ** 2
    fitted = np.isfinite(log_amplitude) & (inverse_square >= COARSEST_IN_ANGSTROMS**-2)
    fitted &= inverse_square <= (finest_in_angstroms**-2 if finest_in_angstroms else 0.0)
    if fitted.sum() < LEAST_SHELLS:
        nothing = float("nan")
        return GuinierPlot(inverse_square, log_amplitude, np.zeros_like(fitted), nothing, nothing, nothing)
    x, y = inverse_square[fitted], log_amplitude[fitted]
    slope, intercept = np.polyfit(x, y, 1)
    return GuinierPlot(
        inverse_square, log_amplitude, fitted, float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1])
    )


def sharpen(
    mean: Map, mask: Map, curve: ResolutionCurve, pixel_size_in_angstroms: float, adhoc_bfac: float
) -> tuple[Map, Sharpening]:
    """Sharpen the mean of both halves' Gaussian maps and filter it by the cross-validated curve.

    Parameters
    ----------
    mean, mask : [n, n, n]
    adhoc_bfac : B-factor in square Angstrom, negative to sharpen; 0 fits it

    Returns
    -------
    The map [n, n, n], only filtered where there is nothing to sharpen by, and what was done.
    """
    shells = Shells(mean.shape[0])
    filtered = shells.filter(mean, curve.filter_weight)
    resolution = finest_stated(curve)
    plot = guinier_plot(filtered * mask, pixel_size_in_angstroms, resolution)
    b_factor, statement = _choose(plot, resolution, adhoc_bfac)
    if b_factor is None or resolution is None:
        return filtered, Sharpening(None, plot, statement)
    gain = np.exp(-b_factor / 4 * plot.inverse_square_in_per_angstrom2)
    finest_shell = mean.shape[0] * pixel_size_in_angstroms / resolution
    weight = curve.filter_weight * gain * _low_pass(shells.last + 1, finest_shell)
    return shells.filter(mean, weight), Sharpening(b_factor, plot, statement)


def finest_stated(curve: ResolutionCurve) -> float | None:
    """The stated resolution in Angstrom, that of the last shell if the curve does not cross; None without a claim."""
    if not curve.is_claimed:
        return None
    return curve.resolution_in_angstroms or float(curve.shell_resolution_in_angstroms[curve.last_shell[-1]])


def _choose(plot: GuinierPlot, resolution: float | None, adhoc_bfac: float) -> tuple[float | None, str]:
    if resolution is None:
        return None, f"{NOT_SHARPENED} no resolution is claimed"
    if adhoc_bfac:
        return adhoc_bfac, f"Sharpened map: B-factor {adhoc_bfac:.1f} square Angstrom, as given (--adhoc_bfac)"
    between = f"from {COARSEST_IN_ANGSTROMS:.0f} to {resolution:.2f} Angstrom"
    if not np.isfinite(plot.slope):
        return None, (
            f"{NOT_SHARPENED} fewer than {LEAST_SHELLS} Fourier shells lie {between}, too few to fit a B-factor;"
            " --adhoc_bfac takes one"
        )
    b_factor = 4 * plot.slope
    if b_factor >= 0:
        return None, f"{NOT_SHARPENED} the amplitudes do not fall {between} (B-factor {b_factor:.1f})"
    return b_factor, f"Sharpened map: B-factor {b_factor:.1f} square Angstrom, fitted {between}"


def _low_pass(n_shells: int, last_shell: float) -> Floats:
    """1 up to the resolution, a raised cosine centred on it, 0 beyond, [shells]."""
    ramp = np.clip((np.arange(n_shells) - last_shell) / EDGE_SHELLS + 0.5, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * ramp))
