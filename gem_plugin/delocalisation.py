"""Whether the box is wide enough for what the CTF spreads out of it.

A wave of spatial frequency k leaves the particle at the angle lambda k; with the defocus D and the spherical aberration
Cs its image lies R = |lambda D k - Cs lambda^3 k^3| beside it, the slope of the CTF's phase over 2 pi.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gem_plugin.aberrations import electron_wavelength_in_angstroms
from gem_plugin.io.particles import Particles

Floats = NDArray[np.float64]

CONSIDERED = 0.95  # of an optics group's particles; the few of highest defocus do not decide on the box
N_FREQUENCIES = 200
MARGIN = 1.25  # a box that holds detail this much finer than the map's own cannot have cost it any


@dataclass(frozen=True)
class Delocalisation:
    """The optics group whose boxes are narrowest for what its CTFs spread."""

    group_name: str
    defocus_in_angstroms: float
    spread_in_angstroms: float  # the farthest, at any frequency used
    half_edge_in_angstroms: float
    held_in_angstroms: float  # finest detail whose spread, and that of all coarser, is within half the box
    needed_box_px: int


def delocalisation_in_angstroms(
    defocus_in_angstroms: float, frequency: Floats, voltage_kv: float, spherical_aberration_mm: float
) -> Floats:
    """How far the CTF spreads a point's signal at `frequency` (1/Angstrom)."""
    wavelength = electron_wavelength_in_angstroms(voltage_kv)
    third_order = spherical_aberration_mm * 1e7 * wavelength**3 * frequency**3
    return np.asarray(np.abs(wavelength * defocus_in_angstroms * frequency - third_order))


def worst_delocalisation(
    particles: Particles, last_frequency: float, particle_diameter_in_angstroms: float
) -> Delocalisation | None:
    """The optics group with the largest spread over half its box; None where all stay within.

    Parameters
    ----------
    last_frequency : highest that is used of the data, 1/Angstrom
    particle_diameter_in_angstroms : a box that wide, and the spread on both sides, holds all
    """
    found = []
    frequency = np.linspace(0, last_frequency, N_FREQUENCIES + 1)[1:]
    for group, optics in enumerate(particles.optics_groups):
        members = particles.group_of_particle == group
        mean = (particles.defocus_u_in_angstroms[members] + particles.defocus_v_in_angstroms[members]) / 2
        if not len(mean) or optics.ctf_state == "corrected":
            continue
        defocus = float(np.quantile(np.abs(mean), CONSIDERED))
        spread = delocalisation_in_angstroms(defocus, frequency, optics.voltage_kv, optics.spherical_aberration_mm)
        half_edge = optics.edge_in_angstroms / 2
        outside = np.flatnonzero(spread > half_edge)
        if not len(outside):
            continue
        farthest = float(spread.max())
        needed = (particle_diameter_in_angstroms + 2 * farthest) / optics.pixel_size_in_angstroms
        held = 1 / float(frequency[max(outside[0] - 1, 0)])
        needed_px = 2 * int(np.ceil(needed / 2))
        found.append(Delocalisation(optics.name, defocus, farthest, half_edge, held, needed_px))
    return max(found, key=lambda one: one.spread_in_angstroms / one.half_edge_in_angstroms, default=None)


def delocalisation_sentences(found: Delocalisation | None, resolution_in_angstroms: float | None) -> list[str]:
    """What to say where the spread may have cost detail.

    Parameters
    ----------
    resolution_in_angstroms : of the map; None where none is claimed
    """
    if found is None or (resolution_in_angstroms and found.held_in_angstroms * MARGIN < resolution_in_angstroms):
        return []
    return [
        f"the box is narrow for the defocus: at {found.defocus_in_angstroms / 1e4:.2f} micrometres (optics group"
        f" {found.group_name}) the CTF spreads the finest detail used by {found.spread_in_angstroms:.0f} Angstrom, more"
        f" than half the box ({found.half_edge_in_angstroms:.0f} Angstrom), and what is finer than"
        f" {found.held_in_angstroms:.1f} Angstrom lies partly outside the images: extract them again with a box of at"
        f" least {found.needed_box_px} px"
    ]
