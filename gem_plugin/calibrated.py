"""Half maps whose plain FSC is honest, made for RELION's tools. They are not independent half maps.

RELION computes the half-map FSC itself, and the pure Gaussian halves would give it a false one. The calibrated pair

    H1 = G1 + A[M N] + W V1 / sqrt 2,      N = (V1 - V2) / 2,
    H2 = G2 - A[M N] + W V2 / sqrt 2,

adds the data's own noise with opposite signs inside the mask M, so the mean there stays (G1 + G2) / 2, and well outside
it, by a weight W, each half's own model-free solvent, as ordinary half maps have it. The filter
A >= 0 is chosen so that FSC(H1, H2) under the mask is C^2 / (2 - C^2), the half-map FSC of an unbiased map
whose correlation with the truth is C; 0 where C is not measurable, and everywhere if no resolution is claimed. Its
strength differs from place to place: in each band and sliding window it is what brings the local FSC to that of the
local C (`gem_plugin.local_curve`), and one factor a shell then makes the FSC under the whole mask exact. Beyond
the last shell that holds data there is no noise of the data's own: random numbers of the same power stand in for it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.distance import distance_px
from gem_plugin.fsc import Shells, correlation
from gem_plugin.honest import masked_transform
from gem_plugin.local_curve import LocalCurve, stated_curve
from gem_plugin.local_filter import overlapping_bands
from gem_plugin.reconstruction import ResolutionCurve

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

ROUNDS = 4  # filtering and masking do not commute: measure, correct, again
BISECTIONS = 40
CLEARANCES_IN_ANGSTROMS = (20.0, 15.0, 10.0, 5.0)  # round the mask, without solvent
CLEARANCE_EDGE_IN_ANGSTROMS = 8.0
LEAST_SOLVENT = 0.5  # of the power of the solvent's noise
STRONGEST = 100.0  # times the model-free maps' noise

Triple = tuple[Floats, Floats, Floats]


def target_fsc(curve: ResolutionCurve, n_shells: int) -> Floats:
    """The half-map FSC that the stated curve means, [shells]: from C_full less its error, 0 where nothing is stated."""
    if not curve.is_claimed:
        return np.zeros(n_shells)
    lower = stated_curve(curve)
    centres = (curve.first_shell + curve.last_shell) / 2
    shells = np.arange(n_shells)
    correlation_with_truth = np.interp(shells, [0, *centres], [1.0, *lower])
    data_end = curve.last_shell[-1]
    if data_end < n_shells - 2:  # else the last shell is Nyquist, which is the band's own
        correlation_with_truth[shells > data_end] = 0
    return _half_map_fsc(correlation_with_truth)


def _half_map_fsc(correlation_with_truth: Floats) -> Floats:
    """Half-map FSC of an unbiased map of some correlation with the truth (Rosenthal and Henderson 2003)."""
    square = correlation_with_truth**2
    return np.asarray(square / (2 - square))


def calibrated_pair(
    gaussian_maps: tuple[Map, Map],
    model_free_maps: tuple[Map, Map],
    mask: Map,
    curve: ResolutionCurve,
    local: LocalCurve,
    n_threads: int = 1,
) -> tuple[Map, Map]:
    """Make the pair; see the module's text.

    Parameters
    ----------
    gaussian_maps, model_free_maps, mask : [n, n, n]
    curve, local : of the same maps under the same mask
    n_threads : of the FFTs
    """
    shells = Shells(mask.shape[0], n_threads)
    v1, v2 = _with_noise_beyond_the_data(shells, model_free_maps, int(curve.last_shell[-1]))
    pixel_size_in_angstroms = float(curve.shell_resolution_in_angstroms[1]) / mask.shape[0]
    outside = solvent_weight(mask, v1 - v2, pixel_size_in_angstroms) / np.float32(np.sqrt(2))
    base = (gaussian_maps[0] + outside * v1, gaussian_maps[1] + outside * v2)
    inside = _spread_locally(shells, mask * (v1 - v2) / 2, local, curve)
    target = target_fsc(curve, shells.last + 1)
    strength = np.ones(shells.last + 1)
    strength[0] = 0  # the level of a map is not measured (its mean outside the mask goes), so nothing bounds its noise
    added = shells.transform(inside)
    scale_to_target = _ScaleToTarget(shells, base, mask, target)
    for _ in range(ROUNDS):
        strength = strength * scale_to_target(shells.map_of(added, strength))
    noise = shells.map_of(added, strength)
    return (base[0] + noise).astype(np.float32), (base[1] - noise).astype(np.float32)


def solvent_weight(mask: Map, noise: Map, pixel_size_in_angstroms: float) -> Map:
    """How much of the model-free solvent each place gets, 0 to 1, [n, n, n]: none near the mask, all far from it.

    LocalRes' windows are wide and the solvent in them counts as error of the molecule, so it is kept away; as far as
    leaves half of it, because without it PostProcess finds that the unmasked maps correlate as well as the masked.

    Parameters
    ----------
    noise : [n, n, n] difference of the model-free maps
    """
    beyond_in_angstroms = distance_px(mask > 0) * np.float32(pixel_size_in_angstroms)
    plain = (((1 - mask) ** 2) ** 2) ** 2
    power = (plain * noise) ** 2
    least = LEAST_SOLVENT * power.sum(dtype=np.float64)
    for clearance in CLEARANCES_IN_ANGSTROMS:
        ramp = np.clip((beyond_in_angstroms - clearance) / CLEARANCE_EDGE_IN_ANGSTROMS, 0, 1)
        edge = 0.5 - 0.5 * np.cos(np.pi * ramp)
        if (edge**2 * power).sum(dtype=np.float64) >= least:
            return np.asarray(plain * edge, dtype=np.float32)
    return np.asarray(plain, dtype=np.float32)


def _spread_locally(shells: Shells, noise: Map, local: LocalCurve, curve: ResolutionCurve) -> Map:
    """Give a map of noise, band by band, the strength that the local curve asks for in each place."""
    powers = local.powers
    strength = _strength(
        _half_map_fsc(local.lower(curve)),
        (powers.g12, powers.g11, powers.g22),
        (powers.g2n - powers.g1n, powers.g1n, -powers.g2n),
        (-powers.nn, powers.nn, powers.nn),
    )
    transform = shells.transform(noise.astype(np.float32, copy=False))
    spread = np.zeros(noise.shape, dtype=np.float32)
    for triangle, samples in zip(
        overlapping_bands(local.bands, noise.shape[0] // 2 + 1), np.minimum(strength, STRONGEST), strict=True
    ):
        band = shells.map_of(transform, triangle)
        spread += np.multiply(local.windows.at_voxels(samples), band, out=band)
    return spread


def _with_noise_beyond_the_data(shells: Shells, maps: tuple[Map, Map], last_shell: int) -> tuple[Map, Map]:
    """Give two maps noise in the shells beyond the data, as strong as their difference at the data's end."""
    beyond = np.arange(shells.last + 1) > last_shell
    if last_shell >= shells.last - 1:
        return maps
    end = slice(max(last_shell - 3, 1), last_shell + 1)
    difference = shells.power(shells.transform(maps[0] - maps[1])) / 2
    level = float(difference[end].sum() / shells.n_coefficients[end].sum())
    generator = np.random.default_rng(0)
    weight = np.where(beyond, np.sqrt(level / maps[0].size), 0.0)
    first, second = (
        volume + shells.filter(generator.standard_normal(volume.shape).astype(np.float32), weight) for volume in maps
    )
    return first, second


class _ScaleToTarget:
    """Per shell, the factor on noise that brings a pair's masked FSC down to a target; 0 if it is below.

    The noise is added to the first map and taken from the second.
    """

    def __init__(self, shells: Shells, pair: tuple[Map, Map], mask: Map, target: Floats) -> None:
        self._shells, self._mask, self._target = shells, mask, target
        g1, g2 = (masked_transform(shells, volume, mask) for volume in pair)
        self._pair = g1, g2
        self._powers = shells.cross_power(g1, g2), shells.power(g1), shells.power(g2)

    def __call__(self, noise: Map) -> Floats:
        shells = self._shells
        u = masked_transform(shells, noise, self._mask)
        g1u, g2u = (shells.cross_power(g, u) for g in self._pair)
        power = shells.power(u)
        return _strength(self._target, self._powers, (g2u - g1u, g1u, -g2u), (-power, power, power))


def _strength(target: Floats, maps: Triple, mixed: Triple, noises: Triple) -> Floats:
    """Factor a on the noises u of g + a u that brings the correlation down to a target; 0 where it is below.

    Parameters
    ----------
    target : any shape
    maps : g1 g2, g1 g1, g2 g2, each of that shape
    mixed : g1 u2 + u1 g2, g1 u1, g2 u2
    noises : u1 u2, u1 u1, u2 u2
    """

    def fsc(a: Floats) -> Floats:
        return correlation(
            maps[0] + a * mixed[0] + a**2 * noises[0],
            np.maximum(maps[1] + 2 * a * mixed[1] + a**2 * noises[1], 0),
            np.maximum(maps[2] + 2 * a * mixed[2] + a**2 * noises[2], 0),
        )

    low, high = np.full(target.shape, 1e-4), np.full(target.shape, 1e4)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        too_high = fsc(middle) > target
        low, high = np.where(too_high, middle, low), np.where(too_high, high, middle)
    return np.where(fsc(np.zeros(target.shape)) > target, np.sqrt(low * high), 0.0)
