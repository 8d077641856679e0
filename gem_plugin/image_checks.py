"""What is checked of the images before the fit, what of the box after it, and what is then said."""

from dataclasses import replace

import numpy as np

from gem_plugin.config import ReconstructionConfig
from gem_plugin.delocalisation import delocalisation_sentences, worst_delocalisation
from gem_plugin.errors import InputError
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.neighbours import neighbours_of, neighbours_sentence
from gem_plugin.normalisation import find_repair
from gem_plugin.plausible import plausibility_sentences
from gem_plugin.premultiplication import premultiplication_sentences
from gem_plugin.run import Run

SHIFTED_SHARE = 0.1  # of the particles: more cannot be outliers


def table_sentences(particles: Particles) -> list[str]:
    """What to say of a table's values before an image is read.

    Raises
    ------
    InputError
        If the values cannot be.
    """
    return [*plausibility_sentences(particles), *shifts_sentences(particles)]


def shifts_sentences(particles: Particles) -> list[str]:
    """What to say of particles that were moved by more than half a box, which are not in their images.

    Raises
    ------
    InputError
        If there are too many of them to be outliers.
    """
    edges = np.array([group.edge_in_angstroms for group in particles.optics_groups])[particles.group_of_particle]
    far = np.abs(particles.shifts_in_angstroms).max(axis=1) > edges / 2
    if not far.any():
        return []
    first = int(np.flatnonzero(far)[0])
    message = (
        f"{int(far.sum())} of {len(particles)} particles have an rlnOriginXAngst or rlnOriginYAngst beyond half the box"
        f" ({edges[first] / 2:.0f} Angstrom), the first is particle {first + 1}"
    )
    if far.mean() > SHIFTED_SHARE:
        raise InputError(f"{message}: are the shifts in Angstrom, and the pixel size right?")
    return [f"{message}: they add noise; take them out of the table"]


def prepare_images(
    particles: Particles, config: ReconstructionConfig, radius_in_angstroms: float, monitor: Monitor
) -> Particles:
    """The particles with the repairs that their images need; tells of those, and of neighbours in different halves.

    Parameters
    ----------
    radius_in_angstroms : of the sphere that holds the particle
    """
    neighbours = neighbours_of(particles, 2 * radius_in_angstroms)
    if neighbours is not None and neighbours.n_near:
        say = monitor.warn if neighbours.n_same else monitor.note
        say(neighbours_sentence(neighbours, len(particles), 2 * radius_in_angstroms))
    for sentence in premultiplication_sentences(particles, config.seed):
        monitor.warn(sentence)
    repair = find_repair(particles, radius_in_angstroms, bool(config.invert_contrast), config.seed, monitor)
    if repair is None:
        return particles
    norm_factor = particles.norm_factor
    if norm_factor is not None:  # an image that is normalised here needs no such correction
        is_normalised = np.array([background is not None for background in repair.backgrounds])
        norm_factor = np.where(is_normalised[particles.group_of_particle], 1.0, norm_factor)
    return replace(particles, image_repair=repair, norm_factor=norm_factor)


def box_sentences(particles: Particles, run: Run, resolution_in_angstroms: float | None) -> list[str]:
    """What to say of a box that is too narrow for the defocus, at the resolution that the map has."""
    edge = run.plane.box_size_px * particles.optics.pixel_size_in_angstroms
    diameter = 2 * run.radius_px * particles.optics.pixel_size_in_angstroms
    worst = worst_delocalisation(particles, float(run.plane.radius.max()) / edge, diameter)
    return delocalisation_sentences(worst, resolution_in_angstroms)
