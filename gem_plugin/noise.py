"""Noise power and background of the particle images, measured where there is no particle."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from gem_plugin import conventions
from gem_plugin.dataset import batches, by_group, read_order
from gem_plugin.errors import InputError
from gem_plugin.imaging import image_kinds
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.optics import image_factors, noise_transfer

Floats = NDArray[np.float64]

FEWEST_MEASURED = 50  # particles of an optics group
SAMPLE_SIZE = 1000  # particles that are measured, per half set
TRANSFERS = 200  # of which the CTFs are averaged, for images that were multiplied by them
EDGE_PX = 3.0  # width of the soft edge of the measured region
SMOOTHING_SHELLS = 1.5  # the region's own transform blurs the spectrum: finer detail would be an artefact


@dataclass(frozen=True)
class Noise:
    """The background of one half set's images."""

    power: Floats  # [n // 2 + 1] variance of a Fourier coefficient of an n x n image, per shell
    background_mean: float  # expected 0
    background_standard_deviation: float  # expected 1


def background_weight(box_size_px: int, particle_radius_px: float) -> NDArray[np.float32]:
    """1 outside the particle, 0 inside, a cosine edge outwards; [n, n]."""
    axis = np.arange(box_size_px) - box_size_px // 2
    distance = np.hypot(axis[:, None], axis[None, :])
    ramp = np.clip((distance - particle_radius_px) / EDGE_PX, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def measure_noise_of_groups(
    particles: Particles,
    reader: ImageReader,
    indices: NDArray[np.int64],
    particle_radius_px: float,
    seed: np.random.SeedSequence,
    monitor: Monitor,
) -> tuple[Noise, ...]:
    """`measure_noise` of each optics group; one with few particles takes that of all images of its kind.

    The power is that of images as `gem_plugin.dataset` gives them, but that it is of plain images where they were
    multiplied by their CTF.

    Parameters
    ----------
    particle_radius_px : in pixels of the map
    """
    kinds = image_kinds(particles)
    groups = particles.group_of_particle[indices]
    found = []
    for group, optics in enumerate(particles.optics_groups):
        own = indices[groups == group]
        if len(own) < FEWEST_MEASURED:
            own = indices[kinds[groups] == kinds[group]]
        if not len(own):  # the other half's only
            found.append(Noise(np.ones(optics.box_size_px // 2 + 1), 0.0, 1.0))
            continue
        radius_px = particle_radius_px * particles.optics.pixel_size_in_angstroms / optics.pixel_size_in_angstroms
        noise = measure_noise(particles, reader, own, radius_px, seed, monitor)
        found.append(replace(noise, power=noise.power * _power_of_factors(particles, group)))
    return tuple(found)


def _power_of_factors(particles: Particles, group: int) -> Floats:
    """What the images' noise power is multiplied by with the factors of their optics group, in each shell."""
    n = particles.optics_groups[group].box_size_px
    plane = conventions.half_plane(n, n)
    factors = image_factors(particles, group, plane)
    return np.ones(n // 2 + 1) if factors is None else _shell_means(np.abs(factors) ** 2, plane)


def _power_of_transfers(particles: Particles, indices: NDArray[np.int64]) -> Floats:
    """Noise power of images over that of plain ones, in each shell, smoothed as the measured spectrum is."""
    n = particles.optics_groups[particles.group_of_particle[indices[0]]].box_size_px
    plane = conventions.half_plane(n, n)
    power = np.zeros(len(plane.kx))
    for part in by_group(particles, read_order(particles, indices[:TRANSFERS])):
        power += len(part) / len(indices[:TRANSFERS]) * noise_transfer(particles, part, plane)
    return _smoothed(_shell_means(power, plane))


def _shell_means(values: Floats, plane: conventions.HalfPlane) -> Floats:
    """Mean over the points of each shell, 1 for k = 0, [n // 2 + 1]."""
    last = plane.box_size_px // 2
    inside = plane.shell <= last
    shell, weight = plane.shell[inside], plane.weight[inside]
    counts = np.bincount(shell, weights=weight, minlength=last + 1)
    sums = np.bincount(shell, weights=values[inside] * weight, minlength=last + 1)
    return np.asarray(np.divide(sums, counts, out=np.ones(last + 1), where=counts > 0))


def measure_noise(
    particles: Particles,
    reader: ImageReader,
    indices: NDArray[np.int64],
    particle_radius_px: float,
    seed: np.random.SeedSequence,
    monitor: Monitor,
) -> Noise:
    """Measure the noise of some particles of one half set, with images of one box, outside the particle.

    The images are multiplied by a soft background window; the power of a windowed white field is the window's
    energy times the field's, which gives the scale. Warns when the background is not what RELION's normalisation
    leaves (mean 0, standard deviation 1).
    """
    n = particles.optics_groups[particles.group_of_particle[indices[0]]].box_size_px
    weight = background_weight(n, particle_radius_px)
    energy = float(np.mean(weight.astype(np.float64) ** 2))
    if energy < 0.01:
        raise InputError(
            f"the particle diameter ({2 * particle_radius_px:.0f} px) leaves no background in a box of {n} px to"
            " measure the noise in: give a smaller --particle_diameter or re-extract with a larger box"
        )
    generator = np.random.default_rng(seed)
    sample = np.asarray(indices[generator.permutation(len(indices))[:SAMPLE_SIZE]], dtype=np.int64)
    sums = np.zeros(3)
    power = np.zeros((n, n // 2 + 1))
    for chunk in batches(read_order(particles, sample), 100):
        images = reader.read(chunk)
        if particles.norm_factor is not None:
            images = images * particles.norm_factor[chunk, None, None].astype(np.float32)
        w = weight.astype(np.float64)
        mean = np.einsum("mij,ij->m", images, w, optimize=True) / w.sum()
        sums += [len(chunk), mean.sum(), (np.einsum("mij,mij,ij->m", images, images, w, optimize=True) / w.sum()).sum()]
        windowed = (images - mean[:, None, None].astype(np.float32)) * weight
        power += (np.abs(fft.rfft2(windowed, axes=(1, 2))) ** 2).sum(axis=0)
    count, mean_sum, square_sum = sums
    background_mean = mean_sum / count
    deviation = float(np.sqrt(max(square_sum / count - background_mean**2, 0.0)))
    if not deviation > 0:
        raise InputError(
            "the images have no noise outside the particle (their background is constant), so the data cannot be"
            " weighted: give the particle images as RELION extracted them, unmasked"
        )
    _warn_about_background(background_mean, deviation, monitor)
    spectrum = _radial_average(power / count / energy) / _power_of_transfers(particles, sample)
    return Noise(spectrum, float(background_mean), deviation)


def _radial_average(power: Floats) -> Floats:
    n = power.shape[0]
    ky, kx = np.fft.fftfreq(n, 1 / n)[:, None], np.arange(n // 2 + 1)[None, :]
    shell = np.rint(np.hypot(ky, kx)).astype(int)
    inside = shell <= n // 2
    sums = np.bincount(shell[inside], weights=power[inside])
    spectrum = sums / np.bincount(shell[inside])
    return _smoothed(spectrum)


def _smoothed(spectrum: Floats) -> Floats:
    spectrum = spectrum.copy()
    spectrum[:2] = spectrum[2]  # the background's mean was taken out: the lowest shells are not measured
    return np.asarray(np.exp(ndimage.gaussian_filter1d(np.log(spectrum), SMOOTHING_SHELLS, mode="nearest")))


def _warn_about_background(mean: float, deviation: float, monitor: Monitor) -> None:
    if abs(mean) > 0.2 * deviation:
        monitor.warn(
            f"the images' background has mean {mean:.2f} where RELION's normalisation leaves 0 (beyond 0.2 standard"
            " deviations): were the particles normalised at extraction?"
        )
    if not 0.8 <= deviation <= 1.2:
        monitor.warn(
            f"the images' background has standard deviation {deviation:.2f} where RELION's normalisation leaves 1:"
            " the map's greyscale will follow the images'"
        )


def noise_power_at(noise: Noise, plane: conventions.HalfPlane) -> NDArray[np.float32]:
    """Noise power at each point of a half plane, [points]."""
    return noise.power[plane.shell].astype(np.float32)
