"""A RELION project of a few tiny particles, written byte by byte: no code under test is used."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.io.particles import Particles, read_particles

BOX_SIZE_PX = 8
STACKS = ("Extract/job003/mic1.mrcs", "Extract/job003/mic2.mrcs")
DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
Columns = dict[str, list[object]]


def write_mrc(
    path: Path,
    data: NDArray[np.generic],
    *,
    mode: int = 2,
    order: str = "<",
    extended_header: bytes = b"",
    **fields: float,
) -> None:
    """An MRC file of `data` [z, y, x]; `fields` overrides nx, ny, nz, header_mode, cell (A), mapc, nsymbt."""
    n_z, n_y, n_x = data.shape
    cell = fields.get("cell", 2.0 * n_x)
    header = bytearray(1024)
    size = [int(fields.get(name, n)) for name, n in (("nx", n_x), ("ny", n_y), ("nz", n_z))]
    struct.pack_into(f"{order}10i", header, 0, *size, int(fields.get("header_mode", mode)), 0, 0, 0, n_x, n_y, n_z)
    struct.pack_into(f"{order}6f", header, 40, cell, cell, cell, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, *((3, 2, 1) if fields.get("mapc") == 3 else (1, 2, 3)))
    struct.pack_into(f"{order}i", header, 92, int(fields.get("nsymbt", len(extended_header))))
    header[208:212] = b"MAP "
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + extended_header + data.astype(order + DTYPES[mode]).tobytes())


def table_text(name: str, columns: Mapping[str, Sequence[object]]) -> str:
    """One STAR table."""
    header = "".join(f"_{column} #{number}\n" for number, column in enumerate(columns, 1))
    rows = "".join("  ".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\n# version 30001\n\ndata_{name}\n\nloop_ \n{header}{rows}\n"


def default_optics() -> Columns:
    """One optics group as RELION 3.1 writes it."""
    return {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnVoltage": ["300.000000"],
        "rlnSphericalAberration": ["2.700000"],
        "rlnAmplitudeContrast": ["0.100000"],
        "rlnImagePixelSize": ["1.250000"],
        "rlnImageSize": [BOX_SIZE_PX],
        "rlnImageDimensionality": [2],
    }


def default_particles() -> Columns:
    """Six particles, three a stack, not in the order of the stacks."""
    return {
        "rlnImageName": [
            f"{image:06d}@{STACKS[stack]}" for image, stack in zip((3, 1, 2, 2, 3, 1), (0, 1, 0, 1, 1, 0), strict=True)
        ],
        "rlnMicrographName": [f"MotionCorr/job002/mic{1 + row % 2}.mrc" for row in range(6)],
        "rlnOpticsGroup": [1] * 6,
        "rlnAngleRot": [f"{10.5 * row:.6f}" for row in range(6)],
        "rlnAngleTilt": [f"{20.25 * row:.6f}" for row in range(6)],
        "rlnAnglePsi": [f"{-30.125 * row:.6f}" for row in range(6)],
        "rlnOriginXAngst": [f"{0.5 + row:.6f}" for row in range(6)],
        "rlnOriginYAngst": [f"{-0.25 - row:.6f}" for row in range(6)],
        "rlnDefocusU": [f"{10000 + 100 * row:.6f}" for row in range(6)],
        "rlnDefocusV": [f"{9000 + 100 * row:.6f}" for row in range(6)],
        "rlnDefocusAngle": [f"{15 * row:.6f}" for row in range(6)],
        "rlnCtfBfactor": ["40.000000"] * 6,
        "rlnCtfScalefactor": ["0.900000"] * 6,
        "rlnPhaseShift": ["90.000000"] * 6,
        "rlnClassNumber": [1] * 6,
        "rlnRandomSubset": [1, 2, 2, 1, 2, 1],
    }


@dataclass
class SmallProject:
    """A project directory whose tables a test may spoil before they are written."""

    root: Path
    optics: Columns = field(default_factory=default_optics)
    particles: Columns = field(default_factory=default_particles)
    stacks: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        for name in STACKS:
            self.stacks[name] = rng.normal(size=(3, BOX_SIZE_PX, BOX_SIZE_PX)).astype(np.float32)
            write_mrc(self.root / name, self.stacks[name])

    @property
    def table_path(self) -> Path:
        return self.root / "run_data.star"

    def image(self, row: int) -> NDArray[np.float32]:
        """The image of a row of the table, as it was put into the stack."""
        number, _, name = str(self.particles["rlnImageName"][row]).partition("@")
        return self.stacks[name][int(number) - 1]

    def write(self, *names: str) -> Path:
        """Write the tables, in the order of `names`."""
        tables = {"optics": self.optics, "particles": self.particles}
        self.table_path.write_text("".join(table_text(name, tables[name]) for name in names or tables))
        return self.table_path

    def read(self, class_number: int = 0) -> Particles:
        return read_particles(self.write(), class_number=class_number, project_directory=self.root)
