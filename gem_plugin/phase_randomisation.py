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
from gem_plugin.shell_sums import Transform, sum_over_shells

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

RANDOMISED_BELOW = 0.8  # of the unmasked half-map FSC, as RELION does
KEPT_SHELLS = 2  # from the randomised one on, in which the curve is left as it is: the step itself leaks there


def first_randomised_shell(unmasked_fsc: Floats) -> int | None:
    """The first shell but 0 in which an unmasked half-map FSC [shells] is below 0.8; None if there is none."""
    below = np.flatnonzero(unmasked_fsc[1:] < RANDOMISED_BELOW)
    return int(below[0]) + 1 if len(below) else None


def randomise_phases(volume: Map, from_shell: int, generator: np.random.Generator, n_threads: int = 1) -> Map:
    """A map [n, n, n] with the amplitudes of `volume` and, from a shell on, random phases.

    The phases are those of white noise, which are uniform, independent, and of a real map.
    """
    shell = conventions.shell_indices(volume.shape[0])
    return _randomised(fft.rfftn(volume, workers=n_threads), shell >= from_shell, generator, n_threads)


def _randomised(transform: Transform, beyond: NDArray[np.bool_], generator: np.random.Generator, n_threads: int) -> Map:
    n = transform.shape[0]
    phases = fft.rfftn(generator.standard_normal((n, n, n), dtype=np.float32), workers=n_threads)
    length = np.abs(phases)
    amplitude = np.abs(transform)
    gain = np.divide(amplitude, length, out=np.zeros_like(amplitude), where=length > 0)
    np.multiply(phases, gain, out=phases)
    np.copyto(phases, transform, where=~beyond)
    return np.asarray(fft.irfftn(phases, s=(n, n, n), workers=n_threads))


def relion_fsc(first: Map, second: Map) -> Floats:
    """Half-map FSC as RELION sums it, [shells]: each element of the half transform once.

    Conjugate pairs at x frequency 0 so count twice as much as all others; `gem_plugin.fsc` gives every coefficient the
    same weight. The two differ by some thousandths.
    """
    shell = conventions.shell_indices(first.shape[0]).astype(np.int16)
    return _relion_fsc(shell, fft.rfftn(first), fft.rfftn(second))


def _relion_fsc(shell: NDArray[np.int16], first: Transform, second: Transform) -> Floats:
    cross, power_a, power_b = (np.zeros(shell.shape[0] // 2 + 1) for _ in range(3))
    for sums, a, b in ((cross, first, second), (power_a, first, first), (power_b, second, second)):
        sum_over_shells(shell, a, b, 1, sums)
    return correlation(cross, power_a, power_b)


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
    maps: tuple[Map, Map], mask: Map, generator: np.random.Generator, n_threads: int = 1
) -> tuple[PostProcessCurves, tuple[Map, Map]]:
    """The half-map FSCs of RELION's PostProcess, and the two maps with randomised phases.

    The maps themselves come back where there is no shell from which to randomise.

    Parameters
    ----------
    maps : [n, n, n] two half maps
    mask : [n, n, n] by which both are multiplied as they are, as RELION does
    n_threads : of the FFTs
    """
    shell = conventions.shell_indices(mask.shape[0]).astype(np.int16)
    first, second = (fft.rfftn(volume, workers=n_threads) for volume in maps)
    unmasked = _relion_fsc(shell, first, second)
    from_shell = first_randomised_shell(unmasked)
    r1, r2 = maps
    if from_shell is not None:
        beyond = shell >= from_shell
        r1, r2 = (_randomised(transform, beyond, generator, n_threads) for transform in (first, second))

    def masked_fsc(a: Map, b: Map) -> Floats:
        return _relion_fsc(shell, *(fft.rfftn(volume * mask, workers=n_threads) for volume in (a, b)))

    masked = masked_fsc(*maps)
    randomised = masked_fsc(r1, r2)
    return PostProcessCurves(
        unmasked=unmasked,
        masked=masked,
        randomised=randomised,
        corrected=corrected_fsc(masked, randomised, from_shell),
        from_shell=from_shell,
    ), (r1, r2)
