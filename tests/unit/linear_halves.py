"""Halves with a known truth: model-free maps that are linear in it, and 'Gaussian' ones that keep some of the noise."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gem_plugin.fsc import Shells
from gem_plugin.honest import masked_transform
from gem_plugin.masks import soft_mask
from gem_plugin.model_free import support_sphere
from gem_plugin.phantom import density, make_phantom
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.resolution import resolution_curve

N = 48
PIXEL = 2.0
SPHERE = support_sphere(N, 0.4 * N)
NOISE = 4.0  # standard deviation of a half's model-free map, in those of the truth
Map = NDArray[np.floating]
Pair = tuple[Map, Map]


def coloured(noise: Map, weight: NDArray[np.float64]) -> Map:
    return Shells(N).filter(noise.astype(np.float32), weight)


@functools.cache
def unit_truth() -> Map:
    """A molecule of standard deviation 1."""
    volume = density(make_phantom(N, 3))
    return volume / volume.std()


@functools.cache
def mask_of_truth() -> Map:
    return soft_mask(unit_truth(), 0.4 * N)


@dataclass(frozen=True)
class Halves:
    truth: Map
    gaussian: Pair
    model_free: Pair
    quarters: tuple[Pair, Pair]

    @property
    def mask(self) -> Map:
        """Made from the truth, whatever the noise: the same for all."""
        return mask_of_truth()


def simulated(
    seed: int, *, signal: float = 1.0, own_noise: float = 0.3, shared_bias: float = 0.0, steepness: float = 0.0
) -> Halves:
    """Quarter maps with independent noise, their means, and blurred truths with a part of that noise and a bias.

    `own_noise` is the share of a half's noise that its Gaussians keep, before the blur; `steepness` makes the noise
    rise with the frequency.
    """
    truth = signal * unit_truth()
    rng = np.random.default_rng(seed)
    shells = np.arange(N // 2 + 1)
    rise = 1 + steepness * shells / (N // 2)
    quarter_noise = [
        [np.sqrt(2) * NOISE * coloured(rng.normal(size=truth.shape), rise) * SPHERE for _ in range(2)] for _ in range(2)
    ]
    noise = [(a + b) / 2 for a, b in quarter_noise]
    blur = np.exp(-0.5 * (shells / 14) ** 2)
    high = 1 - np.exp(-0.5 * (shells / 10) ** 2)
    bias = shared_bias * coloured(rng.normal(size=truth.shape) * SPHERE, high)
    g1, g2 = ((coloured(truth, blur) + own_noise * coloured(n, blur) + bias).astype(np.float32) for n in noise)
    v1, v2 = ((truth + n).astype(np.float32) for n in noise)
    first, second = (((truth + a).astype(np.float32), (truth + b).astype(np.float32)) for a, b in quarter_noise)
    return Halves(truth, (g1, g2), (v1, v2), (first, second))


def curve_of(
    halves: Halves, mask: Map | None = None, *, refined: bool = True, last_shell: int = N // 2 - 1, order: int = 1
) -> ResolutionCurve:
    return resolution_curve(
        halves.gaussian,
        halves.model_free,
        halves.mask if mask is None else mask,
        SPHERE,
        PIXEL,
        last_shell=last_shell,
        half_sets_are_refined=refined,
        symmetry_order=order,
        quarter_maps=halves.quarters,
    )


def band_truth(halves: Halves, mask: Map, curve: ResolutionCurve) -> NDArray[np.float64]:
    """Correlation of the combined map with the truth in the curve's bands, by other sums than the curve's."""
    shells = Shells(N)
    f, t = (masked_transform(shells, v, mask) for v in ((halves.gaussian[0] + halves.gaussian[1]) / 2, halves.truth))
    sums = [shells.cross_power(f, t), shells.power(f), shells.power(t)]
    band = [
        np.array([s[a : b + 1].sum() for a, b in zip(curve.first_shell, curve.last_shell, strict=True)]) for s in sums
    ]
    return band[0] / np.sqrt(band[1] * band[2])
