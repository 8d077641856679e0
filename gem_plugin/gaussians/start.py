"""Where the Gaussians of a half start: on the density of that half's own low-passed model-free map."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.fsc import Shells, correlation
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.spreading import fast_even_size

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

ATOM_SCALE_IN_ANGSTROMS = 1.2  # a width: that of an atom's density with a B-factor of a hundred square Angstrom
SMALLEST_START_SCALE_PX, START_SCALE_PX = 0.7, 0.9
PLAIN_FSC = 0.143  # shells of the quarter maps below it do not shape the start
SOLVENT_SIGMAS = 2.0  # density below this many standard deviations of the negative voxels is solvent
GAUSSIANS_PER_BIT = 2.25
MOST_PER_ATOM = 2.0
CUBIC_ANGSTROMS_PER_ATOM = 17.0  # protein: 1.21 cubic Angstrom a dalton, 14.1 dalton a heavy atom with its hydrogens
WINDOW_SHARE = 0.998  # of the density
WINDOW_MARGIN_PX = 6
FEWEST, MOST = 300, 200_000


@dataclass(frozen=True)
class Start:
    """A half's low-passed map and what it says of the particle."""

    density: Map  # [n, n, n] >= 0, solvent taken off
    quarter_fsc: Floats  # [shells] of the half's two quarter maps, smoothed
    last_shell: int  # last shell in which the quarter maps agree
    occupied_voxels: float  # effective number: (sum w)^2 / sum w^2 of the density
    window_px: int  # the central box that holds the density and a margin: Gaussians are fitted inside it


def start_density(quarter_maps: tuple[Map, Map], radius_px: float) -> Start:
    """Filter the mean of a half's two quarter maps by what their correlation says is signal, and drop the solvent.

    The filter is 2 FSC / (1 + FSC), the Wiener weight of the mean map, up to the first shell without signal.
    """
    shells = Shells(quarter_maps[0].shape[0])
    a, b = (shells.transform(volume) for volume in quarter_maps)
    fsc = correlation(shells.cross_power(a, b), shells.power(a), shells.power(b))
    smooth = np.clip(np.convolve(np.pad(fsc, 1, mode="edge"), np.full(3, 1 / 3), "valid"), 0, 1)
    absent = np.flatnonzero(smooth[1:] < PLAIN_FSC)
    weight = 2 * smooth / (1 + smooth)
    last = max(int(absent[0]), 3) if len(absent) else shells.last
    weight[last + 1 :] = 0
    weight[:2] = max(weight[1], weight[2])
    filtered = shells.filter((quarter_maps[0] + quarter_maps[1]) / 2, weight)
    inside = conventions.radius_from_centre_px(shells.box_size_px) <= radius_px
    negative = filtered[inside & (filtered < 0)]
    solvent = SOLVENT_SIGMAS * float(np.sqrt(np.mean(negative.astype(np.float64) ** 2))) if len(negative) else 0.0
    density = np.where(inside, np.maximum(filtered - solvent, 0), 0).astype(np.float32)
    if not density.any():  # noise can look like that: start from whatever is positive
        density = np.where(inside, np.maximum(filtered, 0), 0).astype(np.float32)
    if not density.any():
        density = inside.astype(np.float32)
    total, square = float(density.sum(dtype=np.float64)), float((density.astype(np.float64) ** 2).sum())
    window = _window(density)
    if window < shells.box_size_px:  # drop the stray specks outside it
        kept = conventions.chebyshev_from_centre_px(shells.box_size_px) < window // 2 - WINDOW_MARGIN_PX
        density = np.where(kept, density, 0).astype(np.float32)
    return Start(density, smooth, last, total**2 / square, window)


def _window(density: Map) -> int:
    """The smallest fast central box that holds all but stray specks of the density, and a margin."""
    distance = conventions.chebyshev_from_centre_px(density.shape[0]).ravel()
    held = np.cumsum(np.bincount(distance, weights=density.ravel()))
    extent = int(np.searchsorted(held, WINDOW_SHARE * held[-1]))
    return int(min(fast_even_size(2 * (extent + 1 + WINDOW_MARGIN_PX)), density.shape[0]))


def choose_n_gaussians(start: Start, pixel_size_in_angstroms: float) -> int:
    """As many Gaussians as the half's data can tell apart: a few for every bit of information on the particle.

    Never more than two for every atom, hydrogen apart, that protein of the density's volume holds.

    A Fourier coefficient of signal-to-noise ratio s carries log2(1 + s) bits (Shannon 1948); the half map's s is
    2 FSC / (1 - FSC) of its quarter maps. Summed over the box and scaled to the share of it that the particle occupies.
    """
    fsc = np.clip(start.quarter_fsc, 0, 0.999)
    n_coefficients = Shells(start.density.shape[0]).n_coefficients / 2
    bits = float((n_coefficients * np.log2(1 + 2 * fsc / (1 - fsc)))[1:].sum())
    share = start.occupied_voxels / start.density.size
    atoms = np.count_nonzero(start.density) * pixel_size_in_angstroms**3 / CUBIC_ANGSTROMS_PER_ATOM
    n_gaussians = min(GAUSSIANS_PER_BIT * 2 * bits * share, MOST_PER_ATOM * atoms)
    return int(np.clip(round(n_gaussians), FEWEST, MOST))


def start_scale_px(pixel_size_in_angstroms: float) -> float:
    """The width that Gaussians start with: an atom's, as far as pixels of that size can show it."""
    return float(np.clip(ATOM_SCALE_IN_ANGSTROMS / pixel_size_in_angstroms, SMALLEST_START_SCALE_PX, START_SCALE_PX))


def choose_coarse_box(start: Start, window: int, box: int) -> int:
    """Voxels on an axis for a fit's first steps: just fine enough for what the start map shows.

    Parameters
    ----------
    window, box : voxels on an axis of the central box in which the fit is done, and of the whole box
    """
    return int(min(fast_even_size(2.2 * (start.last_shell + 1) * window / box), window))


def place_gaussians(
    density: Map,
    n_gaussians: int,
    generator: np.random.Generator,
    symmetry: str = "C1",
    order: int = 1,
    *,
    scale_px: float = START_SCALE_PX,
) -> Gaussians:
    """Round Gaussians of equal amplitude, as dense as the density; a stratified random draw.

    Parameters
    ----------
    density : [n, n, n] >= 0, not all 0
    n_gaussians : >= 1, of one asymmetric unit
    generator : the half's own
    symmetry, order : the point group of the density and its order; Gaussians may lie in any asymmetric unit
    scale_px : their width
    """
    n = density.shape[0]
    cumulative = np.cumsum(density.ravel(), dtype=np.float64)
    draws = (np.arange(n_gaussians) + generator.random(n_gaussians)) / n_gaussians * cumulative[-1]
    voxels = np.minimum(np.searchsorted(cumulative, draws), density.size - 1)
    z, y, x = np.unravel_index(voxels, density.shape)
    centres = np.stack([x, y, z], axis=1) - n // 2 + generator.uniform(-0.5, 0.5, (n_gaussians, 3))
    quaternions = generator.normal(size=(n_gaussians, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return Gaussians(
        centres.astype(np.float32),
        np.full((n_gaussians, 3), math.log(scale_px), dtype=np.float32),
        quaternions.astype(np.float32),
        np.full(n_gaussians, cumulative[-1] / n_gaussians / order, dtype=np.float32),
        symmetry,
    )
