"""The one sentence about resolution, made here and nowhere else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THRESHOLD = 0.5
LARGEST_RATIO = 2.5  # of two error bars that agree
NO_CLAIM = "no resolution is claimed"
MEASURE = "the cross-validated correlation with the truth, less one standard error"


@dataclass(frozen=True)
class Claim:
    """What is stated of the resolution."""

    sentence: str
    resolution_in_angstroms: float | None  # None: nothing is claimed, or the curve does not cross
    is_claimed: bool
    crosses: bool  # the curve falls from above the threshold to below


@dataclass(frozen=True)
class Evidence:
    """What a claim rests on; arrays have one entry a band of Fourier shells."""

    lower: Floats  # the curve less one standard error; 0 where it cannot be measured
    centre: Floats  # shell at the band's middle
    is_measurable: NDArray[np.bool_]
    last_shell: int  # that holds data
    box_size_px: int
    pixel_size_in_angstroms: float
    half_sets_are_refined: bool
    is_coarse: bool  # the first band holds most of the shells
    shares_noise: bool  # the half maps agree better than independent noise lets them

    @property
    def data_end(self) -> str:
        """Where the data end, in words."""
        if self.last_shell >= self.box_size_px // 2 - 1:  # the Nyquist row and column are never used
            return f"Nyquist ({2 * self.pixel_size_in_angstroms:.2f} Angstrom)"
        edge = self.box_size_px * self.pixel_size_in_angstroms
        return f"the data end at {edge / self.last_shell:.2f} Angstrom"


def make_claim(evidence: Evidence) -> Claim:
    """State the resolution, that it is beyond the data, or that none is claimed."""
    crossing, stays_above = crossing_shell(evidence.lower, evidence.centre)
    crosses = crossing is not None
    if not evidence.half_sets_are_refined:
        reason = "the poses were not refined in separate halves (no rlnRandomSubset)"
        return Claim(f"{NO_CLAIM}: {reason}", None, False, crosses)
    if evidence.shares_noise:
        reason = (
            "the half sets share noise: their model-free maps agree far better than the quarter sets of each half let"
            " one expect, as if the same particles, shifted or picked twice, were in both"
        )
        return Claim(f"{NO_CLAIM}: {reason}", None, False, crosses)
    if evidence.is_coarse:
        reason = (
            "under this mask and symmetry there are too few independent Fourier coefficients to tell one resolution"
            " from another"
        )
        return Claim(f"{NO_CLAIM}: {reason}", None, False, crosses)
    if stays_above:
        return Claim(
            f"Resolution: not crossed before {evidence.data_end}: {MEASURE}, stays above {THRESHOLD}", None, True, False
        )
    if crossing is None:
        reason = "the half sets' model-free maps do not agree beyond chance, or the map not with them"
        return Claim(f"{NO_CLAIM}: {reason}", None, False, False)
    if not evidence.is_measurable[1:2].any():  # one band's strong low shells must not speak for its far edge
        crossing = min(crossing, float(evidence.centre[0]))
    resolution = evidence.box_size_px * evidence.pixel_size_in_angstroms / crossing
    if evidence.is_measurable[int(np.argmax(evidence.lower < THRESHOLD))]:
        return Claim(f"Resolution: {resolution:.2f} Angstrom ({MEASURE}, crosses {THRESHOLD})", resolution, True, True)
    sentence = (
        f"Resolution: {resolution:.2f} Angstrom ({MEASURE}, is above {THRESHOLD} up to there; beyond, the half sets'"
        " model-free maps agree too little to measure it)"
    )
    return Claim(sentence, resolution, True, True)


def trusted_error(theory: Floats, resampled: Floats) -> Floats:
    """The error that a claim takes off, [bands]: theory's, but the quarter sets' where that is far larger.

    Parameters
    ----------
    resampled : nan where there is none
    """
    return np.where(resampled > LARGEST_RATIO * theory, resampled, theory)


def crossing_shell(lower: Floats, centre: Floats) -> tuple[float | None, bool]:
    """Where a curve [bands] falls below the threshold, between two centres, and whether it stays above to its end.

    (None, False) where it is below from the first band on.
    """
    below = np.flatnonzero(lower < THRESHOLD)
    if len(below) == 0:
        return None, True
    band = int(below[0])
    if band == 0:
        return None, False
    left, right = centre[band - 1], centre[band]
    drop = lower[band - 1] - lower[band]
    return float(left + (right - left) * (lower[band - 1] - THRESHOLD) / drop), False
