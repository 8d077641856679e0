"""What a mask alone makes two maps agree on: half-map correlations with the phases randomised beyond a shell.

Multiplying by a mask mixes neighbouring Fourier coefficients of both maps alike, so two maps that agree at low
resolution agree a little beyond, and more so the tighter or sharper the mask. If the phases beyond a shell are made
random before the mask is applied, what agreement is left there is the mask's (Chen et al. 2013, Ultramicroscopy 135,
24). `postprocess_curves` gives the four curves of RELION's PostProcess in RELION's own sense.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.fsc import correlation
from gem_plugin.reconstruction import PostProcessCurves

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Transform = NDArray[np.complex128]

RANDOMISED_BELOW = 0.8  # of the unmasked half-map FSC, as RELION does
KEPT_SHELLS = 2  # from the randomised one on, in which the curve is left as it is: the step itself leaks there


def first_randomised_shell(unmasked_fsc: Floats) -> int | None:
    """The first shell but 0 in which an unmasked half-map FSC [shells] is below 0.8; None if there is none."""
    below = np.flatnonzero(unmasked_fsc[1:] < RANDOMISED_BELOW)
    return int(below[0]) + 1 if len(below) else None


def randomise_phases(volume: Map, from_shell: int, generator: np.random.Generator) -> Map:
    """A map [n, n, n] with the amplitudes of `volume` and, from a shell on, random phases.

    The phases are those of white noise, which are uniform, independent, and of a real map.
    """
    transform = fft.rfftn(volume)
    phases = fft.rfftn(generator.standard_normal(volume.shape, dtype=np.float32))
    beyond = conventions.shell_indices(volume.shape[0]) >= from_shell
    length = np.abs(phases[beyond])
    transform[beyond] = np.abs(transform[beyond]) * phases[beyond] / np.where(length > 0, length, 1)
    return np.asarray(fft.irfftn(transform, s=volume.shape))


def relion_fsc(first: Map, second: Map) -> Floats:
    """Half-map FSC as RELION sums it, [shells]: each element of the half transform once.

    Conjugate pairs at x frequency 0 so count twice as much as all others; `gem_plugin.fsc` gives every coefficient the
    same weight. The two differ by some thousandths.
    """
    shell = conventions.shell_indices(first.shape[0]).ravel()
    inside = shell <= first.shape[0] // 2
    a, b = (fft.rfftn(volume).ravel()[inside] for volume in (first, second))
    cross, power_a, power_b = (
        np.bincount(shell[inside], weights=values).astype(np.float64)
        for values in (a.real * b.real + a.imag * b.imag, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    return correlation(cross, power_a, power_b)


def randomised_pair(
    unmasked_fsc: Floats, maps: tuple[Map, Map], generator: np.random.Generator
) -> tuple[int | None, tuple[Map, Map]]:
    """The shell from which on phases are randomised, and both maps so; the maps themselves where there is no shell."""
    from_shell = first_randomised_shell(unmasked_fsc)
    if from_shell is None:
        return None, maps
    first, second = (randomise_phases(volume, from_shell, generator) for volume in maps)
    return from_shell, (first, second)


def corrected_fsc(masked: Floats, randomised: Floats, from_shell: int | None) -> Floats:
    """(FSC_t - FSC_n) / (1 - FSC_n) two shells beyond the randomised one and further; 0 where FSC_n is above FSC_t."""
    corrected = masked.copy()
    if from_shell is None:
        return corrected
    beyond = np.arange(len(masked)) >= from_shell + KEPT_SHELLS
    more = np.maximum(masked - randomised, 0)
    true = np.divide(more, 1 - randomised, out=np.zeros_like(masked), where=randomised < 1)
    corrected[beyond] = true[beyond]
    return corrected


def postprocess_curves(
    maps: tuple[Map, Map], mask: Map, generator: np.random.Generator
) -> tuple[PostProcessCurves, tuple[Map, Map]]:
    """The half-map FSCs of RELION's PostProcess, and the two maps with randomised phases.

    Parameters
    ----------
    maps : [n, n, n] two half maps
    mask : [n, n, n] by which both are multiplied as they are, as RELION does
    """
    unmasked = relion_fsc(*maps)
    from_shell, (r1, r2) = randomised_pair(unmasked, maps, generator)
    masked = relion_fsc(maps[0] * mask, maps[1] * mask)
    randomised = relion_fsc(r1 * mask, r2 * mask)
    return PostProcessCurves(
        unmasked=unmasked,
        masked=masked,
        randomised=randomised,
        corrected=corrected_fsc(masked, randomised, from_shell),
        from_shell=from_shell,
    ), (r1, r2)
