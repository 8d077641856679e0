"""Whether images were multiplied by their CTF, as their noise tells, against what the table says."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gem_plugin.aberrations import electron_wavelength_in_angstroms
from gem_plugin.conventions import HalfPlane, half_plane, image_transforms
from gem_plugin.dataset import batches, read_order
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.optics import contrast_transfer

SAMPLE_SIZE = 60  # images of each optics group, of both halves
IMAGES_PER_BATCH = 50
NEAR_ZERO, STRONG = 0.1, 0.6  # of CTF^2
FIRST_SHELL = 3
LARGEST_STEP = 3.0  # radians of the CTF's phase from one Fourier pixel to the next: faster, its zeros are not resolved
FEWEST_POINTS = 300
# Of the power near the CTF's zeros over that where it is strong. Plain images of a signal as strong as their noise have
# 0.8, as they have 5 times as much signal 0.3; multiplied ones have 0.04, and more where they were cropped afterwards.
LEAST_OF_PLAIN, MOST_OF_MULTIPLIED = 0.15, 0.7


def premultiplication_sentences(particles: Particles, seed: int) -> list[str]:
    """What to say of optics groups whose images' power contradicts the table, as `power_ratio` tells."""
    generator = np.random.default_rng(seed)
    sentences = []
    with ImageReader(particles) as reader:
        for group, optics in enumerate(particles.optics_groups):
            members = np.flatnonzero(particles.group_of_particle == group)
            sample = members[generator.permutation(len(members))[:SAMPLE_SIZE]]
            if optics.ctf_state == "corrected" or not len(sample):
                continue
            ratio = power_ratio(particles, reader, sample)
            found = (
                f"near the zeros of the CTF the images of optics group {optics.name} have {ratio:.2f} times the power"
                " that they have where the CTF is strong"
            )
            if optics.ctf_state == "premultiplied" and ratio > MOST_OF_MULTIPLIED:
                sentences.append(
                    f"{found}: they do not look multiplied by their CTF, as rlnCtfDataAreCtfPremultiplied says; if they"
                    " are not, set it to 0"
                )
            elif optics.ctf_state != "premultiplied" and ratio < LEAST_OF_PLAIN:
                sentences.append(
                    f"{found}: they look multiplied by their CTF; if they are, set rlnCtfDataAreCtfPremultiplied to 1"
                    " in data_optics"
                )
    return sentences


def power_ratio(particles: Particles, reader: ImageReader, sample: NDArray[np.int64]) -> float:
    """Power of images near the CTF's zeros over that where the CTF is strong, shell by shell; nan of too few points.

    Most of it is noise, which does not pass the lens, so that this is near 1; but near 0 once images are multiplied by
    their CTF.

    Parameters
    ----------
    sample : [m] particles of one optics group
    """
    optics = particles.optics_groups[particles.group_of_particle[sample[0]]]
    plane, last = half_plane(optics.box_size_px, optics.box_size_px / 2 - 0.5), optics.box_size_px // 2
    bare = replace(
        particles,
        ctf_scale=np.ones(len(particles)),
        ctf_bfactor_in_angstroms2=np.zeros(len(particles)),
        optics_groups=tuple(replace(group, ctf_is_intact_to_first_peak=False) for group in particles.optics_groups),
    )
    sums, counts = np.zeros((2, last + 1)), np.zeros((2, last + 1))
    for chunk in batches(read_order(particles, sample), IMAGES_PER_BATCH):
        power = np.abs(image_transforms(reader.read(chunk), plane)) ** 2
        power /= np.maximum(power.mean(axis=1, keepdims=True), 1e-30)
        ctf2 = contrast_transfer(bare, chunk, plane) ** 2
        is_slow = _is_slow(particles, chunk, plane)
        for kind, chosen in enumerate((ctf2 < NEAR_ZERO, ctf2 > STRONG)):
            points = np.nonzero(chosen & is_slow)
            shells = plane.shell[points[1]]
            sums[kind] += np.bincount(shells, power[points], minlength=last + 1)[: last + 1]
            counts[kind] += np.bincount(shells, minlength=last + 1)[: last + 1]
    usable = np.flatnonzero(counts.min(axis=0) > 0)
    usable = usable[usable >= FIRST_SHELL]
    shares = counts[:, usable].min(axis=0)
    if shares.sum() < FEWEST_POINTS:
        return float("nan")
    means = sums[:, usable] / counts[:, usable]
    return float(np.average(means[0] / np.maximum(means[1], 1e-30), weights=shares))


def _is_slow(particles: Particles, indices: NDArray[np.int64], plane: HalfPlane) -> NDArray[np.bool_]:
    """Where an image's Fourier pixels are fine enough for its CTF, [m, points]."""
    optics = particles.optics_groups[particles.group_of_particle[indices[0]]]
    wavelength, edge = electron_wavelength_in_angstroms(optics.voltage_kv), optics.edge_in_angstroms
    u, v = particles.defocus_u_in_angstroms[indices], particles.defocus_v_in_angstroms[indices]
    defocus = np.maximum(np.abs(u), np.abs(v))
    return np.asarray(2 * np.pi * wavelength * defocus[:, None] * plane.radius / edge**2 < LARGEST_STEP)
