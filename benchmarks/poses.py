"""Poses and CTFs of simulated particles, and the errors that a refinement would leave in them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

SHIFT_SD_PX = 2.0
DEFOCUS_RANGE_IN_ANGSTROMS = (8000.0, 22000.0)
ASTIGMATISM_SD_IN_ANGSTROMS = 300.0


@dataclass(frozen=True)
class Poses:
    """One entry a particle, as in RELION's particle table; angles in degrees, lengths in Angstrom."""

    rot: Floats
    tilt: Floats
    psi: Floats
    origin_x: Floats
    origin_y: Floats
    defocus_u: Floats
    defocus_v: Floats
    defocus_angle: Floats

    def __len__(self) -> int:
        return len(self.rot)

    @property
    def rotations(self) -> Rotation:
        """Rotations that take vectors of the view to the map: the inverse of RELION's matrices."""
        return Rotation.from_euler("ZYZ", np.column_stack([self.rot, self.tilt, self.psi]), degrees=True)


@dataclass(frozen=True)
class PoseErrors:
    """Independent normal errors: a rotation about an axis drawn evenly from the sphere, and shifts along x and y."""

    rotation_sd_deg: float  # of the angle about that axis, so the root mean square of the whole rotation
    shift_sd_px: float  # along each axis

    def __str__(self) -> str:
        return f"{self.rotation_sd_deg:g} degrees and {self.shift_sd_px:g} px"


def draw_poses(random: np.random.Generator, n: int, pixel_size_in_angstroms: float) -> Poses:
    """Draw views evenly from the sphere, shifts of 2 px, defoci of 0.8-2.2 um with 300 A of astigmatism.

    The order of the draws is fixed, so that a seed stands for one set of particles.
    """
    rot = random.uniform(-180, 180, n)
    tilt = np.degrees(np.arccos(random.uniform(-1, 1, n)))
    psi = random.uniform(-180, 180, n)
    origin_x, origin_y = (random.normal(0, SHIFT_SD_PX * pixel_size_in_angstroms, n) for _ in range(2))
    defocus_u = random.uniform(*DEFOCUS_RANGE_IN_ANGSTROMS, n)
    defocus_v = defocus_u + random.normal(0, ASTIGMATISM_SD_IN_ANGSTROMS, n)
    return Poses(rot, tilt, psi, origin_x, origin_y, defocus_u, defocus_v, random.uniform(0, 180, n))


def with_errors(poses: Poses, errors: PoseErrors, random: np.random.Generator, pixel_size_in_angstroms: float) -> Poses:
    """Return the poses that a refinement with such errors would have found.

    Normal errors of the Euler angles themselves would depend on the view: near the poles, rot and psi turn the
    particle alike. So the particle is turned in the frame of its view, about a random axis.
    """
    n = len(poses)
    axes = random.normal(size=(n, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.radians(random.normal(0, errors.rotation_sd_deg, n))
    turned = poses.rotations * Rotation.from_rotvec(axes * angles[:, None])
    rot, tilt, psi = turned.as_euler("ZYZ", degrees=True).T
    shift_x, shift_y = random.normal(0, errors.shift_sd_px * pixel_size_in_angstroms, (2, n))
    return replace(
        poses, rot=rot, tilt=tilt, psi=psi, origin_x=poses.origin_x + shift_x, origin_y=poses.origin_y + shift_y
    )
