"""One half set as a stream of centred Fourier data with poses and CTFs, read ahead in bounded memory."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.optics import contrast_transfer

Item = TypeVar("Item")


@dataclass(frozen=True)
class FourierBatch:
    """A few particles at the Fourier points of a half plane."""

    indices: NDArray[np.int64]  # [m] rows of the particle table
    rotations: NDArray[np.float64]  # [m, 3, 3] of the map
    observed: NDArray[np.complex64]  # [m, points] transforms, particle at the centre
    ctf: NDArray[np.float32]  # [m, points]
    digests: NDArray[np.uint64]  # [m] of the images' pixels: equal images have equal digests


def read_order(particles: Particles, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """`indices` in the order in which their images lie on disk."""
    order = np.lexsort((particles.image_in_stack[indices], particles.stack_of_particle[indices]))
    return np.asarray(indices[order], dtype=np.int64)


def batches(indices: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split `indices` into runs of at most `batch_size`."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def fourier_batch(
    particles: Particles, images: NDArray[np.float32], indices: NDArray[np.int64], plane: conventions.HalfPlane
) -> FourierBatch:
    """Transform and centre `images` [m, n, n] of the particles `indices`, and give each its rotation and CTF.

    In a control the images' phases are random beyond a frequency.
    """
    observed = conventions.image_transforms(images, plane)
    if particles.noise_substitution is not None:
        observed *= particles.noise_substitution.factors(indices, particles.half_set[indices], plane)
    shifts_px = particles.shifts_in_angstroms[indices] / particles.optics.pixel_size_in_angstroms
    observed *= conventions.centring_phases(shifts_px, plane)
    return FourierBatch(
        indices,
        conventions.rotation_matrices(particles.euler_angles_deg[indices]),
        observed,
        contrast_transfer(particles, indices, plane).astype(np.float32),
        np.array([_digest(image) for image in images], dtype=np.uint64),
    )


def _digest(image: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little")


def stream(
    particles: Particles, reader: ImageReader, indices: NDArray[np.int64], plane: conventions.HalfPlane, batch_size: int
) -> Iterator[FourierBatch]:
    """Yield the particles `indices` batch by batch, in their order on disk; the next batch is read meanwhile."""

    def load(chunk: NDArray[np.int64]) -> FourierBatch:
        return fourier_batch(particles, reader.read(chunk), chunk, plane)

    yield from read_ahead(load, batches(read_order(particles, indices), batch_size))


def read_ahead(load: Callable[[NDArray[np.int64]], Item], chunks: list[NDArray[np.int64]]) -> Iterator[Item]:
    """Yield ``load(chunk)`` for each chunk in order, one chunk ahead of the consumer in a second thread."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        waiting = [worker.submit(load, chunks[0])] if chunks else []
        for following in [*chunks[1:], None]:
            item = waiting.pop().result()
            if following is not None:
                waiting.append(worker.submit(load, following))
            yield item
