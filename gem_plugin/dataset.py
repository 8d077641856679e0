"""One half set as a stream of centred Fourier data with poses and CTFs, read ahead in bounded memory."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.imaging import slice_matrices
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.optics import image_factors, transfer_factors

Item = TypeVar("Item")

LEAST_DIVISOR = np.float32(0.05)  # of a premultiplied image by its CTF


@dataclass(frozen=True)
class FourierBatch:
    """A few particles of one optics group at the Fourier points of their images' half plane."""

    indices: NDArray[np.int64]  # [m] rows of the particle table
    plane: conventions.HalfPlane
    group: int  # of Particles.optics_groups
    slices: NDArray[np.float64]  # [m, 3, 3] S, from the map to the image: k3 = S^T (kx, ky, 0); mostly a rotation
    observed: NDArray[np.complex64]  # [m, points] transforms, particle at the centre
    ctf: NDArray[np.float32]  # [m, points] what the map's slice is multiplied by in the image
    adjoint: NDArray[
        np.float32
    ]  # [m, points] what the image is multiplied by in b: the same array unless premultiplied
    digests: NDArray[np.uint64]  # [m] of the images' pixels: equal images have equal digests

    def plain(self) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Images and CTFs as if the images had not been multiplied by their CTF, so that noise is as it was measured.

        Near a CTF's zeros, where nothing is left to divide by, both are nearly nothing.
        """
        if self.adjoint is self.ctf:
            return self.observed, self.ctf
        divisor = np.maximum(np.sqrt(np.abs(self.ctf / self.adjoint)), LEAST_DIVISOR)
        return (self.observed / divisor).astype(np.complex64), (self.ctf / divisor).astype(np.float32)


def read_order(particles: Particles, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """`indices` in the order in which their images lie on disk, one optics group after the other."""
    keys = particles.image_in_stack[indices], particles.stack_of_particle[indices], particles.group_of_particle[indices]
    return np.asarray(indices[np.lexsort(keys)], dtype=np.int64)


def batches(indices: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split `indices` into runs of at most `batch_size`."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def by_group(particles: Particles, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split `indices`, which are in `read_order`, where the optics group changes."""
    return np.split(indices, np.flatnonzero(np.diff(particles.group_of_particle[indices])) + 1)


def fourier_batch(
    particles: Particles, images: NDArray[np.float32], indices: NDArray[np.int64], plane: conventions.HalfPlane
) -> FourierBatch:
    """Transform and centre `images` [m, n, n] of the particles `indices`, and give each its slice and CTF.

    In a control the images' phases are random beyond a frequency.

    Parameters
    ----------
    indices : [m], of one optics group
    plane : of that group's images
    """
    group = int(particles.group_of_particle[indices[0]])
    optics = particles.optics_groups[group]
    observed = conventions.image_transforms(images, plane)
    if particles.noise_substitution is not None:
        observed *= particles.noise_substitution.factors(indices, particles.half_set[indices], plane)
    shifts_px = particles.shifts_in_angstroms[indices] / optics.pixel_size_in_angstroms
    observed *= conventions.centring_phases(shifts_px, plane)
    of_group = image_factors(particles, group, plane)
    if of_group is not None:
        observed *= of_group
    if particles.norm_factor is not None:
        observed *= particles.norm_factor[indices, None].astype(np.float32)
    ctf, adjoint = transfer_factors(particles, indices, plane)
    rotations = conventions.rotation_matrices(particles.euler_angles_deg[indices])
    return FourierBatch(
        indices,
        plane,
        group,
        slice_matrices(rotations, optics.magnification, plane.map_cycles),
        observed,
        ctf,
        adjoint,
        np.array([_digest(image) for image in images], dtype=np.uint64),
    )


def _digest(image: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little")


def stream(
    particles: Particles,
    reader: ImageReader,
    indices: NDArray[np.int64],
    planes: Sequence[conventions.HalfPlane],
    batch_size: int,
) -> Iterator[FourierBatch]:
    """Yield the particles `indices` batch by batch, in their order on disk; the next batch is read meanwhile.

    Parameters
    ----------
    planes : of each optics group's images (`gem_plugin.imaging.image_planes`)
    batch_size : particles at most; each batch is of one optics group
    """

    def load(chunk: NDArray[np.int64]) -> FourierBatch:
        return fourier_batch(particles, reader.read(chunk), chunk, planes[particles.group_of_particle[chunk[0]]])

    parts = by_group(particles, read_order(particles, indices)) if len(indices) else []
    yield from read_ahead(load, [chunk for part in parts for chunk in batches(part, batch_size)])


def read_ahead(
    load: Callable[[NDArray[np.int64]], Item], chunks: list[NDArray[np.int64]], n_threads: int = 1
) -> Iterator[Item]:
    """Yield ``load(chunk)`` for each chunk in order, read ahead of the consumer by other threads, a chunk by each."""
    workers = ThreadPoolExecutor(max_workers=n_threads)
    try:
        waiting = deque(workers.submit(load, chunk) for chunk in chunks[:n_threads])
        for following in [*chunks[n_threads:], *([None] * len(waiting))]:
            item = waiting.popleft().result()
            if following is not None:
                waiting.append(workers.submit(load, following))
            yield item
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
