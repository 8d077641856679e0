"""Which comparisons are made, in which order, and which of them are finished already."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import portable
from molecules import MOLECULES
from poses import PoseErrors

COLUMNS = ("exact", "errors", "solvent")
SIGNAL_TO_NOISE = (0.015, 0.05, 0.005, 0.2)  # in the order in which they are run
SEEDS = (7, 8, 9)
N_PARTICLES = 4000
POSE_ERRORS = PoseErrors(rotation_sd_deg=3.0, shift_sd_px=1.0)
FITS = ("collapsed", "images")


@dataclass(frozen=True)
class Cell:
    """One set of particles, reconstructed by both programs.

    ``column`` is `exact` or `errors` (of the poses in the particle table; the images are the same) or `solvent`
    (another truth, exact poses). ``fit`` other than `collapsed` is passed on to our job.
    """

    molecule: str
    column: str
    signal_to_noise: float
    seed: int
    n_particles: int = N_PARTICLES
    fit: str = "collapsed"

    @property
    def truth(self) -> str:
        """Which of the molecule's truths is projected."""
        return "solvent" if self.column == "solvent" else "plain"

    @property
    def images(self) -> tuple[str, str, int, int]:
        """What tells the noise-free images of this cell from others."""
        return self.molecule, self.truth, self.seed, self.n_particles

    @property
    def name(self) -> str:
        """The name of its files; no two cells share one."""
        fit = "" if self.fit == "collapsed" else f"_{self.fit}"
        return f"{self.molecule}_{self.column}_snr{self.signal_to_noise:g}_seed{self.seed}_n{self.n_particles}{fit}"

    def __str__(self) -> str:
        fit = "" if self.fit == "collapsed" else f", --fit {self.fit}"
        return f"{self.molecule}, {self.column}, SNR {self.signal_to_noise:g}, seed {self.seed}{fit}"


def all_cells(seeds: Sequence[int] = SEEDS, n_particles: int = N_PARTICLES) -> list[Cell]:
    """Return the whole grid, so ordered that its beginning is useful by itself.

    All columns of one seed come before the next seed, and within a column all molecules before the next
    signal-to-noise ratio.
    """
    cells = []
    for seed in seeds:
        for column in COLUMNS:
            for ratio in SIGNAL_TO_NOISE:
                cells += [Cell(molecule.name, column, ratio, seed, n_particles) for molecule in MOLECULES]
        if seed == seeds[0]:
            cells.append(Cell("cxcr4", "exact", 0.015, seed, n_particles, "images"))
    return cells


class FinishedCells:
    """The results of finished cells, one JSON file each, so that a run can be stopped and taken up again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def __contains__(self, cell: Cell) -> bool:
        return self._path(cell).exists()

    def add(self, cell: Cell, figures: dict[str, Any]) -> None:
        """Keep the results of a cell; the file appears whole or not at all."""
        path = self._path(cell)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(portable({**asdict(cell), **figures}), allow_nan=False))
        os.replace(part, path)

    def take_over(self, results: Path, cells: Sequence[Cell]) -> None:
        """Count those cells as finished that an earlier result file holds: the grid may take several runs."""
        if not results.exists():
            return
        records = json.loads(results.read_text()).get("cells", [])
        for cell in cells:
            fields = portable(asdict(cell))
            for record in records:
                if cell not in self and fields.items() <= {key: record.get(key) for key in fields}.items():
                    self.add(cell, record)

    def forget(self, cells: Sequence[Cell]) -> None:
        """Count cells as not finished."""
        for cell in cells:
            self._path(cell).unlink(missing_ok=True)

    def collect(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Return the results of those cells that are finished, in the order given."""
        return [json.loads(self._path(cell).read_text()) for cell in cells if cell in self]

    def _path(self, cell: Cell) -> Path:
        return self._directory / f"{cell.name}.json"
