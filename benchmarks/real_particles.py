"""Real and really-refined particles: our job against RELION, both in this run, under one mask.

``python benchmarks/real_particles.py DATA`` needs two small RELION projects in the folder DATA:

* ``betagal_10204``: 547 particles of beta-galactosidase (EMPIAR-10204), refined by RELION, run here without symmetry
  and with its own, D2, scored against the atomic model 5A1A as a map;
* ``refine3d_313``: 2,000 simulated particles of a 30S ribosomal subunit whose poses come from a real refinement.

Prints one table a project, writes ``results/real_particles.json`` and exits 1 if ours is below a target.
"""

import argparse
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import write_results
from our_job import linked_project, run_job
from relion_baseline import Baseline, reconstruct, require_relion, with_float32_stacks
from score import HEADER, Volume, load_map, mask_from_truth, score_files


@dataclass(frozen=True)
class Project:
    """A RELION project, what to score it against, and the mean FSC that our map must reach."""

    name: str
    table: str
    truth: str
    target: float
    mask: str | None = None  # a map of the project, or None: made from the truth
    mask_extend_px: float = 2.0
    mask_edge_px: float = 4.0
    refined_half_maps: tuple[str, str] | None = None  # RELION's own, where the project holds them
    symmetry: str = "C1"

    @property
    def label(self) -> str:
        """What tells this comparison from the project's others."""
        return f"{self.name} {self.symmetry}"


PROJECTS = (
    Project("betagal_10204", "Refine3D/job029/run_data.star", "truth/5a1a_64px_3.54A.mrc", target=0.79),
    Project("betagal_10204", "Refine3D/job029/run_data.star", "truth/5a1a_64px_3.54A.mrc", target=0.87, symmetry="D2"),
    Project(
        "refine3d_313",
        "Refine3D/job005/run_data.star",
        "truth.mrc",
        target=0.95,
        mask="MaskCreate/job006/mask.mrc",
        refined_half_maps=(
            "Refine3D/job005/run_half1_class001_unfil.mrc",
            "Refine3D/job005/run_half2_class001_unfil.mrc",
        ),
    ),
)


def scoring_mask(project: Project, directory: Path) -> Volume:
    """Make or read the mask that every map of a project is scored under."""
    if project.mask is not None:
        return load_map(directory / project.mask)[0]
    return mask_from_truth(load_map(directory / project.truth)[0], project.mask_extend_px, project.mask_edge_px)


def run_relion(project: Project, directory: Path, scratch: Path) -> Baseline:
    """Reconstruct both half sets with RELION from a float32 copy of the particles."""
    copy = scratch / f"{project.name}_{project.symmetry}_float32"
    with_float32_stacks(directory, Path(project.table), copy)
    for (
        entry
    ) in directory.iterdir():  # files that the table names beside the stacks: transfer functions of the detector
        if entry.is_file() and not (copy / entry.name).exists():
            (copy / entry.name).symlink_to(entry.resolve())
    return reconstruct(
        copy, Path(project.table), scratch / f"{project.name}_{project.symmetry}_relion", symmetry=project.symmetry
    )


def compare(project: Project, data: Path, scratch: Path, n_threads: int) -> dict[str, Any]:
    """Run both programs on one project and print the table."""
    directory = data / project.name
    mask, truth = scoring_mask(project, directory), directory / project.truth
    baseline = run_relion(project, directory, scratch)
    scratch = scratch / project.symmetry
    job = run_job(
        linked_project(directory, scratch), Path(project.table), n_threads=n_threads, symmetry=project.symmetry
    )
    pairs = {"relion_reconstruct": (baseline.half1, baseline.half2)}
    if project.refined_half_maps is not None:
        half1, half2 = (directory / name for name in project.refined_half_maps)
        pairs["RELION's refinement"] = (half1, half2)
    pairs |= {"ours, model-free": job.model_free_half_maps, "ours": job.gaussian_half_maps}
    scores = {name: score_files(truth, *pair, mask) for name, pair in pairs.items()}
    passed = scores["ours"].mean_fsc_to_truth >= project.target
    print(f"\n{project.label}  (mask: {project.mask or 'made from the truth'})\n{HEADER}")
    for name, figures in scores.items():
        print(f"{figures.row()}  {name}")
    print(f"ours says: {job.statement}")
    print(f"wall time: RELION {baseline.wall_seconds:.1f} s, ours {job.wall_seconds:.1f} s")
    print(f"target: mean FSC {project.target}: {'reached' if passed else 'MISSED'}", flush=True)
    return {
        "passed": passed,
        "target_mean_fsc": project.target,
        "relion_seconds": round(baseline.wall_seconds, 2),
        "our_seconds": round(job.wall_seconds, 2),
        "statement": job.statement,
        "scores": {name: {key: round(value, 4) for key, value in asdict(s).items()} for name, s in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the two projects")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=[project.label for project in PROJECTS])
    arguments = parser.parse_args()
    require_relion()
    chosen = [project for project in PROJECTS if arguments.only in (None, project.label)]
    for project in chosen:
        if not (arguments.data / project.name / project.table).exists():
            parser.error(f"{arguments.data / project.name / project.table} is not there")
    with tempfile.TemporaryDirectory(prefix="gem_real_particles_") as scratch:
        figures = {
            project.label: compare(project, arguments.data.resolve(), Path(scratch), arguments.threads)
            for project in chosen
        }
    if arguments.only is None:
        print(f"\nwritten: {write_results('real_particles', {'threads': arguments.threads, 'projects': figures})}")
    if not all(figure["passed"] for figure in figures.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
