"""Whether the images' backgrounds are normalised as RELION leaves them: mean 0 and standard deviation 1."""

import numpy as np
from numpy.typing import NDArray

from gem_plugin.dataset import batches, read_order
from gem_plugin.image_repair import ImageRepair, background_statistics
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.noise import background_weight

SAMPLE_SIZE = 200  # particles of each optics group, of both halves
IMAGES_PER_BATCH = 50
LARGEST_MEAN = 0.2  # standard deviations
DEVIATIONS = (0.8, 1.2)
LARGEST_SHARE = 0.25  # of a group's images that may be off one by one
LEAST_BACKGROUND = 0.01  # of the box: a smaller one measures nothing


def find_repair(
    particles: Particles, particle_radius_in_angstroms: float, is_inverting: bool, seed: int, monitor: Monitor
) -> ImageRepair | None:
    """Measure some images of each optics group and say which have to be normalised, with one warning for all.

    Both halves' images are measured, so that both are treated alike; each image is then changed by its own pixels
    alone.

    Parameters
    ----------
    particle_radius_in_angstroms : of the sphere that holds the particle; the background is what lies outside
    is_inverting : whether the images are to be multiplied by -1, too

    Returns
    -------
    what to do to the images, or None for nothing
    """
    generator = np.random.default_rng(seed)
    backgrounds: list[NDArray[np.float32] | None] = []
    off: list[str] = []
    with ImageReader(particles) as reader:
        for group, optics in enumerate(particles.optics_groups):
            weight = background_weight(
                optics.box_size_px, particle_radius_in_angstroms / optics.pixel_size_in_angstroms
            )
            members = np.flatnonzero(particles.group_of_particle == group)
            sample = members[generator.permutation(len(members))[:SAMPLE_SIZE]]
            # the background of images that were treated by their CTF has its own standard deviation
            is_judged = weight.mean() > LEAST_BACKGROUND and optics.ctf_state in ("plain", "phase-flipped")
            words = _what_is_off(particles, reader, sample, weight) if is_judged else ""
            backgrounds.append(weight if words else None)
            if words:
                off.append(f"{words} in optics group {optics.name}" if len(particles.optics_groups) > 1 else words)
    if off:
        monitor.warn(
            f"the images' background is not normalised ({'; '.join(off)}; RELION leaves 0 and 1 at extraction): each"
            " image is shifted and scaled here by its own pixels outside the particle, and the map is on the greyscale"
            " of the images so changed"
        )
    return ImageRepair(tuple(backgrounds), is_inverting) if off or is_inverting else None


def _what_is_off(
    particles: Particles, reader: ImageReader, sample: NDArray[np.int64], weight: NDArray[np.float32]
) -> str:
    """The mean and standard deviation of the sample's backgrounds in words; empty where they are as expected."""
    found = []
    for chunk in batches(read_order(particles, sample), IMAGES_PER_BATCH):
        found.append(background_statistics(reader.read(chunk), weight))
    mean = np.concatenate([pair[0] for pair in found]).astype(np.float64)
    deviation = np.concatenate([pair[1] for pair in found]).astype(np.float64)
    if not np.median(deviation) > 0:  # no noise: whoever measures it says so
        return ""
    relative = mean / np.maximum(deviation, 1e-30)
    is_off = (np.abs(relative) > LARGEST_MEAN) | (deviation < DEVIATIONS[0]) | (deviation > DEVIATIONS[1])
    middle = float(np.median(deviation))
    if is_off.mean() <= LARGEST_SHARE and DEVIATIONS[0] <= middle <= DEVIATIONS[1]:
        return ""
    return f"mean {np.median(mean):.3g}, standard deviation {middle:.3g}"
