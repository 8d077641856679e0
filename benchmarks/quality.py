"""Simulated particles with a known truth: our job against relion_reconstruct, over a grid of molecules and noise.

``python benchmarks/quality.py`` compares both programs in the same run on

* four molecules at 1.5 A/px: a CXCR4 complex (C1, box 96), a 30S ribosomal subunit (C1, 160), beta-galactosidase
  (D2, 144), a 20S proteasome (D7, 128);
* signal-to-noise ratios of 0.005, 0.015, 0.05 and 0.2, three seeds, 4,000 particles;
* three columns: exact poses; poses with errors of 3 degrees and 1 px; and a truth with solvent around it.

Finished cells are kept in --workdir and, with the commit that each was run at, in ``results/quality.json``, which is
written again after each: a run that was stopped goes on where it was (``--again`` runs cells anew).
``--targets`` runs the two cells for which targets are set, alone and with all threads, so that wall
times mean something (``results/targets.json``). ``--honesty`` runs a faint set, twenty of pure noise, and the same
twenty with signal, each with and without a mask and with a reference (``results/honesty.json``), and keeps
finished jobs too. Exits 1 if a target is missed or a cell failed.
"""

import argparse
import functools
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cell import TARGETS, run_cell, summary
from grid import COLUMNS, FITS, N_PARTICLES, POSE_ERRORS, SEEDS, SIGNAL_TO_NOISE, Cell, FinishedCells, all_cells
from honesty import faint_signal, noise_and_signal
from images import ImageShop
from machine import RESULTS, write_results
from molecules import MOLECULES, PIXEL_SIZE_IN_ANGSTROMS
from relion_baseline import require_relion

CXCR4_MAP = MOLECULES[0].model


class Run:
    """Cells run a few at a time; each result is kept at once."""

    def __init__(
        self, cells: Sequence[Cell], arguments: argparse.Namespace, results: Path, reported: Sequence[Cell] = ()
    ) -> None:
        self.cells = cells
        self.reported = [*reported, *(cell for cell in cells if cell not in reported)]
        self.jobs: int = arguments.jobs
        self.results = results
        self.failed: list[Cell] = []
        self._workdir: Path = arguments.workdir.resolve()
        self._keep_maps: bool = arguments.keep_maps
        self._threads: int = arguments.threads or max(1, (os.cpu_count() or 1) // self.jobs)
        self.finished = FinishedCells(self._workdir / "finished")
        self.finished.take_over(results, self.reported)
        if arguments.again:
            self.finished.forget(cells)
        self._lock = threading.Lock()
        todo = [cell for cell in cells if cell not in self.finished]
        self._shop = ImageShop(arguments.data.resolve(), self._workdir, todo, arguments.reference_images)
        self._n_started = len(cells) - len(todo)
        self.todo = todo

    def run_all(self) -> None:
        """Run what is not finished; a cell that fails does not stop the others."""
        print(f"{len(self.cells)} cells, {len(self.cells) - len(self.todo)} of them finished before", flush=True)
        pool = ThreadPoolExecutor(self.jobs)
        try:
            list(pool.map(self._run_one, self.todo))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise SystemExit("stopped; finished cells are kept") from None
        pool.shutdown()
        self._collect()

    def _run_one(self, cell: Cell) -> None:
        try:
            figures = run_cell(
                cell, self._shop, self._workdir, self._threads, is_alone=self.jobs == 1, keep_maps=self._keep_maps
            )
        except (Exception, SystemExit):
            with self._lock:
                self.failed.append(cell)
                print(f"FAILED: {cell}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            return
        finally:
            self._shop.release(cell)
        with self._lock:
            self.finished.add(cell, figures)
            self._n_started += 1
            print(f"[{self._n_started}/{len(self.cells)}] {summary(cell, figures)}", flush=True)
            self._collect()

    def _collect(self) -> None:
        figures = {
            "pose_errors": str(POSE_ERRORS),
            "columns": list(COLUMNS),
            "signal_to_noise": sorted(SIGNAL_TO_NOISE),
            "seeds": list(SEEDS),
            "n_particles": N_PARTICLES,
            "pixel_size_in_angstroms": PIXEL_SIZE_IN_ANGSTROMS,
            "molecules": [
                {"name": m.name, "title": m.title, "box_size_px": m.box_size_px, "symmetry": m.symmetry}
                for m in MOLECULES
            ],
            "cells": self.finished.collect(self.reported),
        }
        write_results(self.results.stem, figures, self.results)

    def missed(self) -> list[str]:
        """Return the targets that were missed in any finished cell."""
        return [
            f"{cell['molecule']}: {name}"
            for cell in self.finished.collect(self.cells)
            for name, reached in cell["verdicts"].items()
            if not reached
        ]


def chosen_cells(arguments: argparse.Namespace) -> list[Cell]:
    """Return the cells that the options leave of the grid, in its order."""
    return [
        cell
        for cell in all_cells(arguments.seeds, arguments.particles)
        if cell.molecule in arguments.only
        and cell.signal_to_noise in arguments.snr
        and cell.column in arguments.columns
        and cell.fit in arguments.fit
    ]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [molecule.name for molecule in MOLECULES]
    several = functools.partial(parser.add_argument, nargs="+", metavar="X")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with models/")
    parser.add_argument("--workdir", type=Path, default=Path("build/benchmarks"), help="keeps finished cells")
    several("--only", choices=names, default=names, help=f"molecules: {', '.join(names)}")
    several("--columns", choices=COLUMNS, default=list(COLUMNS), help=f"of {', '.join(COLUMNS)}")
    several("--snr", type=float, default=list(SIGNAL_TO_NOISE), help="signal to noise, ratios of variances")
    several("--seeds", type=int, default=list(SEEDS), help="seeds of poses, CTFs and noise")
    several("--fit", choices=FITS, default=list(FITS), help="which fits: one cell of the grid compares --fit images")
    parser.add_argument("--particles", type=int, default=N_PARTICLES, help=f"in a cell ({N_PARTICLES})")
    parser.add_argument("--reference-images", type=int, help="of the blurred truth (8000, symmetric ones 4000)")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time (1)")
    parser.add_argument("--threads", type=int, default=0, help="of our job (the processors shared among the cells)")
    parser.add_argument("--again", action="store_true", help="run cells anew that are finished")
    parser.add_argument("--keep-maps", action="store_true", help="keep each cell's maps in the workdir")
    parser.add_argument("--list", action="store_true", help="print the cells and which are finished; run nothing")
    parser.add_argument("--targets", action="store_true", help="run the cells with targets, alone, and nothing else")
    parser.add_argument("--honesty", action="store_true", help="run the sets of faint and no signal, and nothing else")
    arguments = parser.parse_args(words)
    if not arguments.list and not (arguments.data / CXCR4_MAP).exists():
        parser.error(f"{arguments.data / CXCR4_MAP} is not there: name the data folder with --data")
    return arguments


def run_targets(arguments: argparse.Namespace) -> bool:
    """Run the cells with targets one after the other, from the start; return whether all targets are reached."""
    arguments.jobs, arguments.workdir, arguments.again = 1, arguments.workdir / "targets", True
    # the larger one first: the time ratio is measured with Numba's cache warm
    order = list(TARGETS)
    cells = sorted((cell for cell in all_cells() if cell.name in TARGETS), key=lambda cell: order.index(cell.name))
    run = Run(cells, arguments, RESULTS / "targets.json")
    run.run_all()
    for cell in run.finished.collect(cells):
        for name, reached in cell["verdicts"].items():
            print(f"{cell['molecule']}: {name}: {'reached' if reached else 'MISSED'}")
    return not run.failed and not run.missed()


def run_honesty(arguments: argparse.Namespace) -> bool:
    """Run the sets on which the resolution's honesty is tried; return whether all of them passed."""
    map_path, workdir = arguments.data.resolve() / CXCR4_MAP, arguments.workdir.resolve()
    n_threads = arguments.threads or os.cpu_count() or 1
    figures: dict[str, Any] = {
        "faint_signal": faint_signal(map_path, workdir, n_threads),
        "noise_and_signal": noise_and_signal(map_path, workdir, n_threads, again=arguments.again),
    }
    print(f"written: {write_results('honesty', figures)}")
    return all(part["passed"] for part in figures.values())


def run_grid(arguments: argparse.Namespace) -> bool:
    """Run the chosen cells; return whether none failed and none missed a target."""
    is_standard = arguments.particles == N_PARTICLES and arguments.reference_images is None
    results = (RESULTS if is_standard else arguments.workdir.resolve()) / "quality.json"
    # a run of a part of the grid reports the other finished cells too
    run = Run(chosen_cells(arguments), arguments, results, all_cells(n_particles=arguments.particles))
    if arguments.list:
        print("\n".join(f"{'finished' if cell in run.finished else '   to do'}  {cell}" for cell in run.cells))
        return True
    run.run_all()
    for line in (*run.missed(), *(f"failed: {cell}" for cell in run.failed)):
        print(line)
    print(f"written: {results}")
    return not run.failed and not run.missed()


def main() -> None:
    arguments = parse()
    if not arguments.list:
        require_relion()
    action = run_targets if arguments.targets else run_honesty if arguments.honesty else run_grid
    if not action(arguments):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
