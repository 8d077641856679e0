"""Particles of a molecule-like map, projected by relion_project: what RELION says the images look like."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from gem_plugin.io.particles import Particles, read_particles

Floats = NDArray[np.float64]

PIXEL_SIZE_IN_ANGSTROMS = 1.7  # not 1: a pixel taken for an Angstrom must show
OPTICS_LABELS = (
    "OpticsGroupName",
    "OpticsGroup",
    "Voltage",
    "SphericalAberration",
    "AmplitudeContrast",
    "ImagePixelSize",
    "ImageSize",
    "ImageDimensionality",
)


@dataclass(frozen=True, eq=False)
class Project:
    """A directory with a map, a table and its images."""

    directory: Path
    truth: NDArray[np.float32]  # [z, y, x]
    table: Path
    stack: Path

    def particles(self) -> Particles:
        """The particles, as our own reader sees them."""
        return read_particles(self.table, project_directory=self.directory)

    def images(self) -> NDArray[np.float32]:
        """The images in the stack, [n, box, box]."""
        with mrcfile.open(self.stack, permissive=True) as file:
            return np.array(file.data, dtype=np.float32)


def blobs(box_size_px: int, seed: int, n_blobs: int = 60) -> NDArray[np.float32]:
    """Make an asymmetric molecule within half the box: blobs of different widths at random places, [z, y, x]."""
    random = np.random.default_rng(seed)
    axis = np.arange(box_size_px) - box_size_px // 2
    volume = np.zeros((box_size_px,) * 3)
    for _ in range(n_blobs):
        direction = random.normal(size=3)
        centre = direction / np.linalg.norm(direction) * random.uniform(0, 1) ** (1 / 3) * 0.19 * box_size_px
        centre *= [1.0, 0.8, 0.6]  # z, y, x: no axis is like another
        width = random.uniform(0.8, 1.6)
        profiles = [np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in centre]
        volume += random.uniform(0.5, 1.5) * np.einsum("i,j,k->ijk", *profiles)
    return volume.astype(np.float32)


def random_columns(n: int, seed: int, *, astigmatism: float = 800.0) -> dict[str, Floats]:
    """Draw poses over the sphere, shifts of a few pixels and astigmatic defoci: RELION labels -> values."""
    random = np.random.default_rng(seed)
    defocus = random.uniform(6000, 22000, n)
    return {
        "AngleRot": random.uniform(-180, 180, n),
        "AngleTilt": np.degrees(np.arccos(random.uniform(-1, 1, n))),
        "AnglePsi": random.uniform(-180, 180, n),
        "OriginXAngst": random.normal(0, 2 * PIXEL_SIZE_IN_ANGSTROMS, n),
        "OriginYAngst": random.normal(0, 2 * PIXEL_SIZE_IN_ANGSTROMS, n),
        "DefocusU": defocus + random.uniform(0, astigmatism, n),
        "DefocusV": defocus,
        "DefocusAngle": random.uniform(0, 180, n),
    }


def write_table(
    path: Path,
    columns: dict[str, Floats],
    *,
    stack: str,
    box_size_px: int,
    voltage_kv: float = 300.0,
    spherical_aberration_mm: float = 2.7,
    amplitude_contrast: float = 0.1,
    more_optics: dict[str, str] | None = None,
) -> None:
    """Write a RELION 3.1 particle table of the images of one stack, half sets in turn."""
    more = more_optics or {}
    optics = f"group 1 {voltage_kv} {spherical_aberration_mm} {amplitude_contrast} {PIXEL_SIZE_IN_ANGSTROMS} "
    blocks = [("optics", (*OPTICS_LABELS, *more), [f"{optics}{box_size_px} 2 {' '.join(more.values())}"])]
    labels = ("ImageName", "MicrographName", "OpticsGroup", "RandomSubset", *columns)
    rows = []
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        numbers = " ".join(f"{value:.5f}" for value in values)
        rows.append(f"{i + 1:06d}@{stack} mic{i // 50}.mrc 1 {i % 2 + 1} {numbers}")
    blocks.append(("particles", labels, rows))
    with path.open("w") as file:
        for name, block_labels, block_rows in blocks:
            file.write(f"\n# version 30001\n\ndata_{name}\n\nloop_\n")
            file.writelines(f"_rln{label} #{i}\n" for i, label in enumerate(block_labels, start=1))
            file.writelines(f"{row}\n" for row in block_rows)


def write_map(path: Path, volume: NDArray[np.floating]) -> None:
    """Write a map without the code under test."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(volume, dtype=np.float32))
        file.voxel_size = PIXEL_SIZE_IN_ANGSTROMS


def read_volume(path: Path) -> NDArray[np.float32]:
    """Read a map without the code under test."""
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data, dtype=np.float32)


def project(
    directory: Path,
    volume: NDArray[np.float32],
    columns: dict[str, Floats],
    *,
    words: tuple[str, ...] = (),
    **optics: Any,
) -> Project:
    """Have relion_project, with more words on its command line, make CTF-multiplied, noise-free images of a map."""
    table = directory / "particles.star"
    write_map(directory / "truth.mrc", volume)
    write_table(table, columns, stack="images.mrcs", box_size_px=volume.shape[0], **optics)
    run(directory, "relion_project", "--i", "truth.mrc", "--o", "images", "--ctf", "--ang", "particles.star", *words)
    return Project(directory, volume, table, directory / "images.mrcs")


def add_white_noise(project: Project, signal_to_noise: float, seed: int) -> None:
    """Replace a project's images by noisy ones of unit noise variance; the ratio is one of variances."""
    images = project.images()
    noise = np.random.default_rng(seed).normal(size=images.shape)
    with mrcfile.new(project.stack, overwrite=True) as file:
        file.set_data((images / images.std() * np.sqrt(signal_to_noise) + noise).astype(np.float32))
        file.voxel_size = PIXEL_SIZE_IN_ANGSTROMS


def run(directory: Path, *command: str) -> str:
    """Run one of RELION's programs from a project directory and return what it printed."""
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr
