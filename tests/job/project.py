"""A small RELION project on disk: particle images of the phantom, their table, the table's every column to choose."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.phantom import make_phantom, random_particles, simulate_images

PIXEL_SIZE_IN_ANGSTROMS = 2.0

OPTICS = {
    "rlnOpticsGroupName": ["opticsGroup1"],
    "rlnOpticsGroup": ["1"],
    "rlnVoltage": ["300.0"],
    "rlnSphericalAberration": ["2.7"],
    "rlnAmplitudeContrast": ["0.1"],
    "rlnImagePixelSize": [f"{PIXEL_SIZE_IN_ANGSTROMS}"],
    "rlnImageDimensionality": ["2"],
}


@dataclass
class Project:
    """The project directory; `write` makes its files from the fields, which a test may change first."""

    directory: Path
    images: NDArray[np.float32]  # [n, box, box]
    truth: NDArray[np.float32]  # [z, y, x]
    optics: dict[str, list[str]]
    particles: dict[str, list[str]]
    table: str = "Refine3D/job005/run_data.star"
    stack: str = "Extract/job003/particles.mrcs"

    def write(self) -> "Project":
        """Write the stack and the table."""
        for name in (self.stack, self.table):
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(self.directory / self.stack, self.images)
        blocks = star_loop("optics", self.optics) + star_loop("particles", self.particles)
        (self.directory / self.table).write_text(blocks)
        return self

    def drop(self, rows: Sequence[int]) -> None:
        """Leave rows out of the particle table."""
        for name, values in self.particles.items():
            self.particles[name] = [value for row, value in enumerate(values) if row not in set(rows)]


def write_mrc(path: Path, data: NDArray[np.float32], pixel_size_in_angstroms: float = PIXEL_SIZE_IN_ANGSTROMS) -> None:
    """A stack or map; NaN is written without a murmur."""
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore", RuntimeWarning)
        file.set_data(np.asarray(data, np.float32))
        file.voxel_size = pixel_size_in_angstroms


def star_loop(name: str, columns: Mapping[str, Sequence[str]]) -> str:
    """A STAR table, written by hand."""
    header = "".join(f"_{label} #{number}\n" for number, label in enumerate(columns, start=1))
    rows = "".join(" ".join(row) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\n# version 30001\n\ndata_{name}\n\nloop_\n{header}{rows}\n"


def make_project(
    directory: Path, *, n_particles: int = 40, box_size_px: int = 32, snr: float = 0.5, seed: int = 1
) -> Project:
    """Simulate a project. Nothing is written before `Project.write`."""
    optics = OpticsGroup("opticsGroup1", PIXEL_SIZE_IN_ANGSTROMS, box_size_px, 300.0, 2.7, 0.1)
    particles = random_particles(n_particles, optics, seed)
    simulated = simulate_images(make_phantom(box_size_px), particles, snr=snr, seed=seed)
    stack = "Extract/job003/particles.mrcs"
    columns = {
        "rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(n_particles)],
        "rlnMicrographName": [f"MotionCorr/job002/mic{i // 20:03d}.mrc" for i in range(n_particles)],
        "rlnOpticsGroup": ["1"] * n_particles,
        **pose_columns(particles),
        "rlnBeamSizeKept": [f"kept{i}" for i in range(n_particles)],
    }
    own_optics = {name: list(values) for name, values in OPTICS.items()} | {"rlnImageSize": [str(box_size_px)]}
    return Project(directory, simulated.images, simulated.truth, own_optics, columns)


def pose_columns(particles: Particles) -> dict[str, list[str]]:
    """Poses, defoci and half sets of particles, as columns of their table."""
    angles, shifts = particles.euler_angles_deg, particles.shifts_in_angstroms
    numbers = {
        "rlnAngleRot": angles[:, 0],
        "rlnAngleTilt": angles[:, 1],
        "rlnAnglePsi": angles[:, 2],
        "rlnOriginXAngst": shifts[:, 0],
        "rlnOriginYAngst": shifts[:, 1],
        "rlnDefocusU": particles.defocus_u_in_angstroms,
        "rlnDefocusV": particles.defocus_v_in_angstroms,
        "rlnDefocusAngle": particles.defocus_angle_deg,
    }
    columns = {name: [f"{value:.6f}" for value in values] for name, values in numbers.items()}
    return columns | {"rlnRandomSubset": [str(value) for value in particles.half_set]}
