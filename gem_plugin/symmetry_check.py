"""Do the particles have the symmetry that was given? Asked of two maps that no symmetry shaped."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import masks
from gem_plugin.fsc import Shells, correlation
from gem_plugin.honest import SIGNIFICANCE, lay_out_bands, masked_transform

Map = NDArray[np.floating[Any]]

LEAST_AGREEMENT = 0.8
SIGNIFICANT_ERRORS = 3.0


def symmetry_sentence(name: str, plain: tuple[Map, Map], averaged: tuple[Map, Map], sphere: Map) -> str | None:
    """What there is to say of the point group `name`, None if it fits; the maps are those of `symmetry_agreement`."""
    found = symmetry_agreement(plain, averaged, sphere)
    if found is None:
        return f"the particles are too few or too noisy to tell whether they have symmetry {name}: it is taken on trust"
    share, error = found
    if share >= LEAST_AGREEMENT or 1 - share < SIGNIFICANT_ERRORS * error:
        return None
    return (
        f"the particles do not show symmetry {name}: averaging over it keeps {share:.0%} of the signal (the right group"
        " in RELION's orientation keeps all of it); give another --sym, or C1"
    )


def symmetry_agreement(plain: tuple[Map, Map], averaged: tuple[Map, Map], sphere: Map) -> tuple[float, float] | None:
    """Share of the signal that averaging over the group keeps: 1 for the right group, less for a wrong one.

    The signal's power in a band is the cross power of two independent maps, before and after averaging. The lowest
    band says little (every particle is a blob there), so the share is the weighted mean over the other bands that
    hold signal.

    Parameters
    ----------
    plain, averaged : two independent model-free maps before and after averaging, [n, n, n]
    sphere : [n, n, n] the particle sphere

    Returns
    -------
    the share and its standard error; None where the plain maps do not agree beyond chance above the lowest band
    """
    shells = Shells(sphere.shape[0])
    n_shell = shells.n_coefficients / 2 * masks.independent_fraction(sphere)
    bands = lay_out_bands(n_shell, shells.last - 1)

    def cross(pair: tuple[Map, Map]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b = (masked_transform(shells, volume, sphere) for volume in pair)
        power = bands.sum(shells.cross_power(a, b))
        return power, correlation(power, bands.sum(shells.power(a)), bands.sum(shells.power(b)))

    before, fsc = cross(plain)
    after, _ = cross(averaged)
    n_band = bands.sum(n_shell)
    chosen = np.flatnonzero(np.logical_and.accumulate(fsc > SIGNIFICANCE / np.sqrt(n_band)))[1:]
    if len(chosen) == 0:
        return None
    # a band's share has a variance of about 1 / (n fsc^2): weigh by its inverse
    weights = (n_band * fsc**2)[chosen]
    return float(np.average(after[chosen] / before[chosen], weights=weights)), float(1 / np.sqrt(weights.sum()))
