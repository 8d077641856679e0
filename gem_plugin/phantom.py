"""A molecule-like phantom and particle images of it, for the demonstration, the tests and the benchmarks.

The phantom is a chain of equal isotropic Gaussian blobs, so its Fourier transform is known in closed form and the
simulated images are slices of that transform: nothing is interpolated, and no reconstruction code is used.
Signs and origins are those of `gem_plugin.conventions`; the CTF is that of `gem_plugin.optics`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import finufft
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.conventions import half_plane, rotation_matrices
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.optics import contrast_transfer

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# The molecule's outline: overlapping spheres of unequal size, so that it has no symmetry and no mirror plane.
# Centre x, y, z and radius as fractions of the box size; all of it lies within half the box.
_OUTLINE = np.array([[0.0, 0.0, 0.0, 0.155], [0.12, 0.03, -0.04, 0.105], [-0.05, 0.11, 0.08, 0.095]])
_STEP_PX = 1.9  # between neighbours along the chain: 3.8 Angstrom, a residue, at 2 Angstrom a pixel
_CLEARANCE_PX = 1.3  # between blobs that are not neighbours
_VOXELS_PER_BLOB = 6.5
_ATOMIC_NUMBERS = np.array([6.0, 7.0, 8.0, 16.0])  # relative amplitudes of the blobs


@dataclass(frozen=True)
class Phantom:
    """A map that is known everywhere: equal isotropic Gaussian blobs in a cubic box."""

    box_size_px: int
    sigma_px: float
    centres_px: Floats  # [N, 3] x, y, z from the box centre
    amplitudes: Floats  # [N] integral of each blob, greyscale x voxels


@dataclass(frozen=True)
class SimulatedImages:
    """Particle images and the map that they show, on one greyscale."""

    images: Images  # [n, box, box], white noise of standard deviation 1
    truth: Images  # [z, y, x]


def _outline_distance(points: Floats, outline: Floats) -> Floats:
    """How far points [m, 3] lie outside the union of spheres [s, 4]; negative inside."""
    distance = np.linalg.norm(points[:, None, :] - outline[None, :, :3], axis=-1) - outline[None, :, 3]
    return np.asarray(distance.min(axis=1))


def _walk(n_blobs: int, outline: Floats, rng: np.random.Generator) -> Floats:
    """Centres [n_blobs, 3] of a chain that fills the outline and keeps clear of itself where it can."""
    chain = np.empty((n_blobs, 3))
    chain[0] = outline[0, :3]
    for i in range(1, n_blobs):
        direction = rng.normal(size=(32, 3))
        tried = chain[i - 1] + _STEP_PX * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        outside = _outline_distance(tried, outline)
        gap = np.linalg.norm(tried[:, None, :] - chain[None, : i - 1], axis=-1).min(axis=1, initial=np.inf)
        free = np.flatnonzero((outside < 0) & (gap > _CLEARANCE_PX))
        # A random free place; where the chain is hemmed in, the roomiest place inside, or the way back inside.
        best = free[0] if len(free) else np.argmax(np.minimum(gap, _CLEARANCE_PX) - 10 * np.maximum(outside, 0))
        chain[i] = tried[best]
    return chain


def make_phantom(box_size_px: int = 64, seed: int = 0, *, sigma_px: float = 0.7) -> Phantom:
    """Make an asymmetric, compact chain of blobs with detail up to Nyquist.

    Parameters
    ----------
    box_size_px : even, at least 16
        The molecule spans about half of it; the number of blobs grows with its cube, about 800 at 64 px.
    seed : int
        Another seed is another molecule.
    sigma_px : float
        Standard deviation of each blob; 0.7 px damps Nyquist to 9 %, like a B factor of 155 square Angstrom at 2 A/px.
    """
    rng = np.random.default_rng(seed)
    outline = _OUTLINE * box_size_px
    probe = rng.uniform(-0.5, 0.5, (20_000, 3)) * box_size_px
    volume = np.mean(_outline_distance(probe, outline) < 0) * box_size_px**3
    chain = _walk(max(8, round(volume / _VOXELS_PER_BLOB)), outline, rng)
    amplitudes = rng.choice(_ATOMIC_NUMBERS, len(chain), p=[0.6, 0.15, 0.2, 0.05])
    centre_of_mass = amplitudes @ chain / amplitudes.sum()
    return Phantom(box_size_px, sigma_px, chain - centre_of_mass, amplitudes)


def _blob_envelope(phantom: Phantom, radius2: Floats) -> Floats:
    """Fourier transform of one blob of unit integral at squared frequencies in (cycles a box edge)^2."""
    return np.asarray(np.exp(-2 * (np.pi * phantom.sigma_px / phantom.box_size_px) ** 2 * radius2))


def density(phantom: Phantom) -> Images:
    """Sample the phantom as a map [z, y, x], band-limited to Nyquist: the truth that a reconstruction should find."""
    n = phantom.box_size_px
    x, y, z = np.ascontiguousarray(phantom.centres_px.T) * (2 * np.pi / n)
    weights = phantom.amplitudes.astype(np.complex128)
    transform = finufft.nufft3d1(z, y, x, weights, (n, n, n), eps=1e-9, isign=-1)  # k = -n/2 ... n/2 - 1 on each axis
    k = np.arange(n) - n // 2
    radius2 = (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2).astype(np.float64)
    transform *= np.where(radius2 < (n / 2) ** 2, _blob_envelope(phantom, radius2), 0.0)
    return np.asarray(np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(transform)).real), dtype=np.float32)


def random_particles(n_particles: int, optics: OpticsGroup, seed: int = 0) -> Particles:
    """Draw poses uniform on the sphere, shifts, astigmatic defoci and half sets; the tables are left empty.

    Shifts are normal with a standard deviation of 2 px, defoci uniform from 0.8 to 2.2 micrometres.
    """
    rng = np.random.default_rng(seed)
    uniform = rng.uniform(-180.0, 180.0, (n_particles, 2))
    tilt = np.degrees(np.arccos(rng.uniform(-1.0, 1.0, n_particles)))
    defocus_u = rng.uniform(8_000.0, 22_000.0, n_particles)
    return Particles(
        table=pd.DataFrame(index=range(n_particles)),
        optics_table=pd.DataFrame(index=range(1)),
        optics_groups=(optics,),
        group_of_particle=np.zeros(n_particles, dtype=np.int32),
        euler_angles_deg=np.stack([uniform[:, 0], tilt, uniform[:, 1]], axis=1),
        shifts_in_angstroms=rng.normal(0.0, 2.0 * optics.pixel_size_in_angstroms, (n_particles, 2)),
        defocus_u_in_angstroms=defocus_u,
        defocus_v_in_angstroms=defocus_u - np.abs(rng.normal(0.0, 300.0, n_particles)),
        defocus_angle_deg=rng.uniform(0.0, 180.0, n_particles),
        phase_shift_deg=np.zeros(n_particles),
        ctf_bfactor_in_angstroms2=np.zeros(n_particles),
        ctf_scale=np.ones(n_particles),
        half_set=(1 + np.arange(n_particles) % 2).astype(np.int8),
        half_sets_are_refined=True,
        stack_paths=(Path("particles.mrcs"),),
        stack_of_particle=np.zeros(n_particles, dtype=np.int32),
        image_in_stack=np.arange(n_particles, dtype=np.int64),
    )


def _projections(phantom: Phantom, particles: Particles, *, with_ctf: bool) -> Iterator[Images]:
    """Noise-free images [m, box, box], a batch at a time."""
    n = phantom.box_size_px
    plane = half_plane(n, n / 2)
    envelope = _blob_envelope(phantom, plane.radius**2)
    # moves the origin from pixel 0 to pixel n // 2
    to_centre = np.exp(-2j * np.pi * (n // 2) / n * (plane.kx + plane.ky))
    weights = phantom.amplitudes.astype(np.complex128)
    rotations = rotation_matrices(particles.euler_angles_deg)
    shifts_px = particles.shifts_in_angstroms / particles.optics.pixel_size_in_angstroms
    for indices in np.array_split(np.arange(len(particles)), max(1, len(particles) // 128)):
        spectra = np.zeros((len(indices), n, n // 2 + 1), dtype=np.complex128)
        factors = np.broadcast_to(envelope * to_centre, (len(indices), len(envelope)))
        if with_ctf:
            factors = factors * contrast_transfer(particles, indices, plane)
        for row, i in enumerate(indices):
            x, y = (rotations[i, :2] @ phantom.centres_px.T - shifts_px[i][:, None]) * (2 * np.pi / n)
            transform = finufft.nufft2d1(y, x, weights, (n, n), eps=1e-6, isign=-1, modeord=1, nthreads=1)
            spectra[row, plane.ky, plane.kx] = transform[plane.ky, plane.kx] * factors[row]
        yield np.fft.irfft2(spectra, s=(n, n), axes=(1, 2)).astype(np.float32)


def simulate_images(
    phantom: Phantom, particles: Particles, *, snr: float | None = 0.05, seed: int = 0, with_ctf: bool = True
) -> SimulatedImages:
    """Make the images of `particles`, with white noise of standard deviation 1.

    The greyscale of images and truth is such that the noise-free images, CTF and all, have a variance of `snr` over
    all their pixels. As everywhere in this program their transform at k = 0 is left out.

    Parameters
    ----------
    phantom, particles
        With the same box size.
    snr : float or None
        Signal variance over noise variance; 0 makes pure noise beside a truth of SNR 1, and None noise-free images on
        the phantom's own greyscale.
    seed : int
        Of the noise alone.
    with_ctf : bool
        False: plain projections.
    """
    n = phantom.box_size_px
    images = np.empty((len(particles), n, n), dtype=np.float32)
    done = 0
    for batch in _projections(phantom, particles, with_ctf=with_ctf):
        images[done : done + len(batch)] = batch
        done += len(batch)
    truth = density(phantom)
    if snr is None:
        return SimulatedImages(images, truth)
    scale = float(np.sqrt((snr or 1.0) / images.var(dtype=np.float64)))
    images *= scale if snr > 0 else 0.0
    rng = np.random.default_rng(seed)
    for image in images:
        image += rng.standard_normal((n, n), dtype=np.float32)
    return SimulatedImages(images, (truth * scale).astype(np.float32))
