"""Particle tables: RELION STAR -> `Particles`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class OpticsGroup:
    """What the particles of one optics group share."""

    name: str
    pixel_size_in_angstroms: float
    box_size_px: int
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float


@dataclass(frozen=True)
class Particles:
    """The particles of one job. All arrays are in table order, one entry a particle."""

    table: pd.DataFrame  # data_particles, every column as read
    optics_table: pd.DataFrame  # data_optics, every column as read
    optics: OpticsGroup
    euler_angles_deg: NDArray[np.float64]  # [n, 3] rlnAngleRot, Tilt, Psi
    shifts_in_angstroms: NDArray[np.float64]  # [n, 2] rlnOriginX/YAngst: added to the image to centre it
    defocus_u_in_angstroms: NDArray[np.float64]  # [n] underfocus positive
    defocus_v_in_angstroms: NDArray[np.float64]  # [n]
    defocus_angle_deg: NDArray[np.float64]  # [n] from x towards +y of the array
    phase_shift_deg: NDArray[np.float64]  # [n]
    ctf_bfactor_in_angstroms2: NDArray[np.float64]  # [n]
    ctf_scale: NDArray[np.float64]  # [n]
    half_set: NDArray[np.int8]  # [n] 1 or 2
    half_sets_are_refined: bool  # False when the table had no rlnRandomSubset: no resolution is claimed
    stack_paths: tuple[Path, ...]  # the image stacks, as opened
    stack_of_particle: NDArray[np.int32]  # [n] index into stack_paths
    image_in_stack: NDArray[np.int64]  # [n] 0-based index in the stack

    def __len__(self) -> int:
        return len(self.half_set)
