"""What is checked of the images before the fit, what of the box after it, and what is then said."""

from dataclasses import replace

import numpy as np

from gem_plugin.config import ReconstructionConfig
from gem_plugin.delocalisation import delocalisation_sentences, worst_delocalisation
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.neighbours import neighbours_of, neighbours_sentence
from gem_plugin.normalisation import find_repair
from gem_plugin.run import Run


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
