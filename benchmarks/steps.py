"""How near the number of steps that quarter sets choose comes to the best: the step rule against known truths.

``python benchmarks/steps.py --data DATA`` takes the projects of ``real_particles.py`` and the cells of the grid with
exact poses and seed 7, reads each half set once, lets the program choose the half's steps, and then fits the half for
the whole schedule from two draws, as the program does, keeping the averaged map after every second step. Each pair of
maps is scored against the truth; the choice's margin is the best score of any step less that of the steps chosen. A
set's row is kept in ``results/steps.json`` as soon as it is there, and takes the place of an older one; ``--only``
names sets. Exits 1 if any row's margin is more than 0.005.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fits import halves
from grid import SEEDS, SIGNAL_TO_NOISE, Cell
from images import ImageShop
from machine import RESULTS, describe_version, write_results
from molecules import BY_NAME, MOLECULES
from real_particles import PROJECTS, Project, scoring_mask
from score import Volume, load_map, mask_from_truth, score

from gem_plugin.fit import FitState, GaussianFit
from gem_plugin.half_fits import COLLAPSED_SCHEDULE_STEPS, StepPlan, finished, fit_settings, plan_steps
from gem_plugin.half_problem import HalfData, data_term, drawn
from gem_plugin.normal_equations import NormalEquations

EVERY = 2
FITS = 2  # more only make the curves flatter
LARGEST_MARGIN = 0.005


@dataclass(frozen=True)
class Set:
    """Particles and what their maps are compared with."""

    name: str
    both: list[tuple[HalfData, NormalEquations]]
    truth: Volume
    mask: Volume
    pixel_size_in_angstroms: float


def curve_of(half: HalfData, equations: NormalEquations, number: int) -> tuple[dict[int, Volume], StepPlan]:
    """Return averaged maps of a half after every second step, and what the program chooses."""
    seeds = np.random.SeedSequence([0, number]).spawn(4)
    plan = plan_steps(half, np.random.default_rng(seeds[2]))
    generator = np.random.default_rng(seeds[3])
    maps: dict[int, Volume] = {}

    def keep(state: FitState) -> None:
        if state.step % EVERY == 0:
            gaussians = finished(state.gaussians(), half)
            maps[state.step] = maps.get(state.step, 0) + drawn(gaussians, half.run).astype(np.float64) / FITS

    settings = fit_settings(half, COLLAPSED_SCHEDULE_STEPS, COLLAPSED_SCHEDULE_STEPS)
    with data_term(half, equations, np.zeros(0, dtype=np.int64), generator) as term:
        for start in [half.place(generator) for _ in range(FITS)]:
            GaussianFit(term, start, settings).run(keep)
    return maps, plan


def row_of(one: Set) -> dict[str, Any]:
    """Score a set's curve and its choice; print them."""
    curves = [curve_of(half, equations, number) for number, (half, equations) in enumerate(one.both, start=1)]
    (first, _), (second, _) = curves
    chosen = [round(plan.n_steps / EVERY) * EVERY for _, plan in curves]

    def fsc(a: Volume, b: Volume) -> float:
        return score(one.truth, a, b, one.mask, one.pixel_size_in_angstroms).mean_fsc_to_truth

    curve = {step: fsc(first[step], second[step]) for step in first}
    best = max(curve, key=lambda step: curve[step])
    of_choice = fsc(first[chosen[0]], second[chosen[1]])
    margin = max(curve[best] - of_choice, 0.0)
    print(
        f"{one.name}: best {curve[best]:.4f} at {best} steps, chosen {' and '.join(map(str, chosen))}: {of_choice:.4f}",
        flush=True,
    )
    return {
        "set": one.name,
        "commit": describe_version(),
        "chosen_steps": chosen,
        "best_step": best,
        "best": curve[best],
        "chosen": of_choice,
        "margin": margin,
        "mean_fsc_to_truth": {str(step): value for step, value in curve.items()},
    }


def real_sets(data: Path, wanted: list[str], n_threads: int) -> Iterator[Set]:
    for project in PROJECTS:
        if project.label in wanted:
            directory = data / project.name
            truth, pixel_size = load_map(directory / project.truth)
            mask = scoring_mask(project, directory)
            yield Set(project.label, halves(project, directory, n_threads), truth, mask, pixel_size)


def simulated_sets(data: Path, wanted: list[str], n_threads: int) -> Iterator[Set]:
    cells = [Cell(m.name, "exact", ratio, SEEDS[0]) for m in MOLECULES for ratio in SIGNAL_TO_NOISE]
    cells = [cell for cell in cells if name_of(cell) in wanted]
    with tempfile.TemporaryDirectory(prefix="gem_steps_") as scratch:
        shop = ImageShop(data, Path(scratch), cells, None)
        for cell in cells:
            directory = Path(scratch) / cell.name
            table = shop.make_project(cell, directory)
            truth, pixel_size = load_map(shop.truth(cell.molecule, cell.truth))
            project = Project(cell.name, str(table), "", 0.0, symmetry=BY_NAME[cell.molecule].symmetry)
            both = halves(project, directory, n_threads)
            yield Set(name_of(cell), both, truth, mask_from_truth(truth), pixel_size)
            shop.release(cell)


def name_of(cell: Cell) -> str:
    return f"{cell.molecule}, SNR {cell.signal_to_noise:g}"


def main() -> None:
    names = [project.label for project in PROJECTS]
    names += [name_of(Cell(m.name, "exact", ratio, SEEDS[0])) for m in MOLECULES for ratio in SIGNAL_TO_NOISE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="the folder with models/ and projects"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SET", help="; ".join(names))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "steps.json"
    rows = {row["set"]: row for row in json.loads(path.read_text())["sets"]} if path.exists() else {}
    data = arguments.data.resolve()
    for sets in (real_sets, simulated_sets):
        for one in sets(data, arguments.only, arguments.threads):
            rows[one.name] = row_of(one)
            content = {"fits": FITS, "sets": [rows[name] for name in names if name in rows]}
            written = write_results("steps", content)
    print(f"written: {written}")
    if max(row["margin"] for row in rows.values()) > LARGEST_MARGIN:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
