"""What makes a curve doubtful: a mask that correlates by itself, and error bars that disagree."""

import numpy as np
from numpy.typing import NDArray

from gem_plugin.phase_randomisation import KEPT_SHELLS
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.statement import LARGEST_RATIO, THRESHOLD

SIGNIFICANCE = 3.0
LEAST_LEAK = 0.1  # a smaller correlation of the mask's own moves no resolution


def check_curve(curve: ResolutionCurve) -> list[str]:
    """Sentences about what a user should not trust."""
    return [*_check_mask(curve), *_check_error_bars(curve)]


def _check_mask(curve: ResolutionCurve) -> list[str]:
    from_shell = curve.postprocess.from_shell
    if from_shell is None:
        return []
    size = np.nan_to_num(np.abs(curve.c_full_randomised))
    chance = np.nan_to_num(curve.c_full_randomised_error)
    leaks = (size > np.maximum(SIGNIFICANCE * chance, LEAST_LEAK)) & (curve.first_shell >= from_shell + KEPT_SHELLS)
    if not leaks.any():
        return []
    band = int(np.argmax(np.where(leaks, size, 0)))
    return [
        f"the mask correlates by itself: with phases randomised beyond {_resolution(curve, from_shell)} the"
        f" cross-validated correlation is {curve.c_full_randomised[band]:.2f} at"
        f" {curve.band_resolution_in_angstroms[band]:.2f} Angstrom, where it should be 0 within {chance[band]:.2f}:"
        " give a wider or softer mask"
    ]


def _check_error_bars(curve: ResolutionCurve) -> list[str]:
    """Compare both error bars in the bands on either side of the crossing; the last measurable one where none is."""
    measurable = np.flatnonzero(curve.is_measurable)
    if not curve.is_claimed or not len(measurable):
        return []
    below = np.flatnonzero(curve.c_full[measurable] - curve.c_full_standard_error[measurable] < THRESHOLD)
    decides = measurable[max(below[0] - 1, 0) : below[0] + 1] if len(below) else measurable[-1:]
    theory, resampled = curve.c_full_standard_error[decides], curve.c_full_resampled_error[decides]
    if not np.isfinite(resampled).all():
        return []
    ratio = float(np.median(resampled) / max(float(np.median(theory)), 1e-12))
    if 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        return []
    return [
        f"the two error bars of the resolution's bands disagree: {_list(theory)} from theory, {_list(resampled)} from"
        " the quarter sets; the resolution is stated with the larger where that is the quarter sets'"
    ]


def _resolution(curve: ResolutionCurve, shell: int) -> str:
    return f"{curve.shell_resolution_in_angstroms[shell]:.2f} Angstrom"


def _list(values: NDArray[np.float64]) -> str:
    return " and ".join(f"{value:.3f}" for value in values)
