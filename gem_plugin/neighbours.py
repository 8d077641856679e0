"""Particles of one micrograph that overlap but lie in different half sets: their images share noise."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gem_plugin.io.particles import Particles

Floats = NDArray[np.float64]

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
MICROGRAPH = "rlnMicrographName"
# first wins; coordinates count pixels of the micrograph, which are the original ones unless the movie was binned
PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
SAME_PARTICLE = 0.1  # of the diameter: nearer ones are one particle picked twice


@dataclass(frozen=True)
class Neighbours:
    """How many particles have a neighbour of the other half set."""

    n_near: int  # nearer than the particle's diameter
    n_same: int  # so near that it is the same particle


def count_neighbours(
    micrograph: NDArray[np.int64], position_in_angstroms: Floats, half_set: NDArray[np.int8], diameter: float
) -> Neighbours:
    """Count the particles with a neighbour of the other half set on their micrograph.

    Parameters
    ----------
    micrograph : [n] a number for each micrograph; negative: not known
    position_in_angstroms : [n, 2] of the particles on it
    half_set : [n] 1 or 2
    diameter : Angstrom
    """
    near, same = np.zeros(len(micrograph), bool), np.zeros(len(micrograph), bool)
    order = np.argsort(micrograph, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(micrograph[order])) + 1):
        if len(rows) < 2 or micrograph[rows[0]] < 0:
            continue
        halves = rows[half_set[rows] == 1], rows[half_set[rows] == 2]
        if not (len(halves[0]) and len(halves[1])):
            continue
        for own, others in (halves, halves[::-1]):
            distance, _ = cKDTree(position_in_angstroms[others]).query(
                position_in_angstroms[own], distance_upper_bound=diameter
            )
            near[own] = distance < diameter
            same[own] = distance < SAME_PARTICLE * diameter
    return Neighbours(int(near.sum()), int(same.sum()))


def neighbours_of(particles: Particles, diameter_in_angstroms: float) -> Neighbours | None:
    """`count_neighbours` of a particle table; None where it does not tell where the particles were.

    A particle lies at the coordinates from which its image was cut, less its refined origin.
    """
    table = particles.table
    if not {*COORDINATES, MICROGRAPH} <= set(table.columns):
        return None
    pixel_size = _micrograph_pixel_sizes(particles)
    if pixel_size is None:
        return None
    coordinates = np.stack([_numbers(table[name]) for name in COORDINATES], axis=1)
    position = coordinates * pixel_size[:, None] - particles.shifts_in_angstroms
    micrograph = pd.factorize(table[MICROGRAPH])[0].astype(np.int64)
    micrograph[~np.isfinite(position).all(axis=1)] = -1
    return count_neighbours(micrograph, position, particles.half_set, diameter_in_angstroms)


def neighbours_sentence(found: Neighbours, n_particles: int, diameter_in_angstroms: float) -> str:
    """What to say of neighbours in different half sets; empty where there are none.

    A particle that is there twice brings its noise to the same place of both maps. A neighbour's noise comes to another
    place, turned at random, and makes the maps agree only where neighbours sit in fixed places to each other.
    """
    if not found.n_near:
        return ""
    count = (
        f"{found.n_near} of {n_particles} particles have a neighbour of the other half set on their micrograph nearer"
        f" than the particle's diameter ({diameter_in_angstroms:.0f} Angstrom)"
    )
    if found.n_same:
        return (
            f"{count}, and {found.n_same} lie within {SAME_PARTICLE:.0%} of it: these are one particle picked twice,"
            " and both half maps hold its noise; take such copies out before the refinement (relion_star_handler"
            f" --remove_duplicates {SAME_PARTICLE * diameter_in_angstroms:.0f})"
        )
    return f"{count}: their images share noise, which matters only where neighbours form a lattice or a filament"


def _micrograph_pixel_sizes(particles: Particles) -> Floats | None:
    """Of each particle's micrograph, Angstrom, [n]; NaN where the table gives no size."""
    table, optics = particles.table, particles.optics_table
    group = "rlnOpticsGroup"
    for name in PIXEL_SIZES:
        if name in table.columns:
            sizes = _numbers(table[name])
        elif name in optics.columns and group in optics.columns and group in table.columns:
            by_number = pd.Series(_numbers(optics[name]), index=_numbers(optics[group]))
            sizes = by_number.reindex(_numbers(table[group])).to_numpy(np.float64)
        else:
            continue
        return np.where(sizes > 0, sizes, np.nan)
    return None


def _numbers(column: "pd.Series[str]") -> Floats:
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
