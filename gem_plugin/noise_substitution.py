"""Random phases in place of the images' own beyond a resolution (Chen et al. 2013, Ultramicroscopy 135, 24)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane


@dataclass(frozen=True)
class NoiseSubstitution:
    """Which Fourier coefficients of the particle images get random phases, and from which seed.

    A particle's phases are the same whenever it is read, and belong to it and its half alone.
    """

    beyond_radius: float  # in cycles a box edge of the map
    seed: int

    def factors(
        self, indices: NDArray[np.int64], half_set: NDArray[np.int8], plane: HalfPlane
    ) -> NDArray[np.complex64]:
        """Factors of modulus 1 on the transforms of some particles, those of a real image, [m, points].

        Parameters
        ----------
        indices : [m] rows of the particle table
        half_set : [m] 1 or 2
        """
        beyond = plane.radius * plane.map_cycles > self.beyond_radius
        free, mirrored, partner = _conjugates(plane)
        factors = np.ones((len(indices), len(plane.kx)), dtype=np.complex64)
        for row, (index, half) in enumerate(zip(indices, half_set, strict=True)):
            generator = np.random.default_rng([self.seed, int(half), int(index)])
            factors[row, free] = np.exp(2j * np.pi * generator.random(len(free)))
        factors[:, mirrored] = np.conj(factors[:, partner])
        factors[:, ~beyond] = 1
        return factors


def _conjugates(plane: HalfPlane) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Points whose phase is free, and those at kx = 0 that are conjugates of others, with the others."""
    is_mirrored = (plane.kx == 0) & (plane.ky < 0)
    column = np.flatnonzero((plane.kx == 0) & (plane.ky > 0))
    place = dict(zip(plane.ky[column].tolist(), column.tolist(), strict=True))
    mirrored = np.flatnonzero(is_mirrored)
    partner = np.array([place[-ky] for ky in plane.ky[mirrored].tolist()], dtype=np.int64)
    return np.flatnonzero(~is_mirrored), mirrored, partner
