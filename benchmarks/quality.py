"""Simulated particles with a known truth: our job against relion_reconstruct, in quality, time and honesty.

``python benchmarks/quality.py`` simulates (or finds in --workdir) 4,000 particles at a signal-to-noise ratio of 0.015:

* a CXCR4 complex (PDB 8ZPM), box 96, 1.5 A/px;
* a 30S ribosomal subunit (PDB 1XNR), box 160, 1.5 A/px;

runs both programs on them and scores both under one mask made from the truth. The printed resolution is judged against
the truth's, and RELION's PostProcess runs on our calibrated pair. ``--honesty`` adds a set so
faint that the resolution is far from Nyquist, ten sets of pure noise, and the same ten with signal. Writes ``results/quality.json`` (and ``honesty.json``), exits 1 if a target is missed.
"""

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from honesty import faint_signal, judge, noise_and_signal
from machine import write_results
from numpy.typing import NDArray
from our_job import run_job
from relion_baseline import reconstruct, require_relion
from score import HEADER, load_map, mask_from_truth, score_files
from simulate import map_of_model, simulate

CXCR4_MAP = "models/cxcr4_C1_96px_1.5A.mrc"
N_PARTICLES = 4000
SIGNAL_TO_NOISE = 0.015
SEED = 7


@dataclass(frozen=True)
class Molecule:
    """What is simulated, and what ours must reach on it."""

    name: str
    model: str  # in the data folder
    box_size_px: int
    pixel_size_in_angstroms: float
    target: float  # mean FSC to truth
    largest_time_ratio: float | None = None  # our wall time over RELION's

    def truth(self, data: Path) -> NDArray[np.float32]:
        """The map [z, y, x]."""
        path = data / self.model
        if path.suffix == ".mrc":
            return load_map(path)[0].astype(np.float32)
        return map_of_model(path, self.box_size_px, self.pixel_size_in_angstroms)


# the larger one first: the time ratio is measured with Numba's cache warm
MOLECULES = (
    Molecule("30S", "models/1xnr_30S_asymmetric.cif.gz", 160, 1.5, target=0.81),
    Molecule("cxcr4", CXCR4_MAP, 96, 1.5, target=0.91, largest_time_ratio=15.0),
)


def compare(molecule: Molecule, data: Path, workdir: Path, n_threads: int) -> dict[str, Any]:
    """Simulate, run both programs and print the table."""
    project = simulate(
        molecule.truth(data),
        molecule.pixel_size_in_angstroms,
        workdir / molecule.name,
        n_particles=N_PARTICLES,
        signal_to_noise=SIGNAL_TO_NOISE,
        seed=SEED,
    )
    table = Path(project.table.name)
    baseline = reconstruct(project.directory, table, project.directory)
    job = run_job(project.directory, table, n_threads=n_threads)
    mask = mask_from_truth(load_map(project.truth)[0])
    pairs = {
        "relion_reconstruct": (baseline.half1, baseline.half2),
        "ours, model-free": job.model_free_half_maps,
        "ours": job.gaussian_half_maps,
    }
    scores = {name: score_files(project.truth, *pair, mask) for name, pair in pairs.items()}
    honesty = judge(job, project.truth)
    ratio = job.wall_seconds / baseline.wall_seconds
    verdicts = {
        f"mean FSC at least {molecule.target}": scores["ours"].mean_fsc_to_truth >= molecule.target,
        "the printed resolution is true": honesty.is_true,
        "PostProcess agrees": honesty.postprocess_agrees,
    }
    if molecule.largest_time_ratio is not None:
        verdicts[f"at most {molecule.largest_time_ratio:.0f} times RELION's time"] = (
            ratio <= molecule.largest_time_ratio
        )
    print(f"\n{molecule.name}: {N_PARTICLES} particles, SNR {SIGNAL_TO_NOISE}\n{HEADER}")
    for name, figures in scores.items():
        print(f"{figures.row()}  {name}")
    print(f"ours says: {job.statement}\n{honesty.lines()}")
    print(f"wall time: RELION {baseline.wall_seconds:.1f} s, ours {job.wall_seconds:.1f} s, ratio {ratio:.1f}")
    for verdict, passed in verdicts.items():
        print(f"target: {verdict}: {'reached' if passed else 'MISSED'}", flush=True)
    return {
        "passed": all(verdicts.values()),
        "verdicts": verdicts,
        "relion_seconds": round(baseline.wall_seconds, 2),
        "our_seconds": round(job.wall_seconds, 2),
        "statement": job.statement,
        "honesty": honesty.figures(),
        "scores": {name: {key: round(value, 4) for key, value in asdict(s).items()} for name, s in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with models/")
    parser.add_argument("--workdir", type=Path, default=Path("build/benchmarks"), help="keeps the simulated particles")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=[molecule.name for molecule in MOLECULES])
    parser.add_argument("--honesty", action="store_true", help="also run the sets of pure noise and of signal")
    parser.add_argument("--honesty-only", action="store_true", help="run nothing but those sets")
    arguments = parser.parse_args()
    require_relion()
    if not (arguments.data / CXCR4_MAP).exists():
        parser.error(f"{arguments.data / CXCR4_MAP} is not there: name the data folder with --data")
    workdir = arguments.workdir.resolve()
    passed = True
    if not arguments.honesty_only:
        chosen = [molecule for molecule in MOLECULES if arguments.only in (None, molecule.name)]
        figures = {m.name: compare(m, arguments.data.resolve(), workdir, arguments.threads) for m in chosen}
        passed = all(figure["passed"] for figure in figures.values())
        if arguments.only is None:
            print(f"\nwritten: {write_results('quality', {'threads': arguments.threads, 'molecules': figures})}")
    if arguments.honesty or arguments.honesty_only:
        map_path = arguments.data.resolve() / CXCR4_MAP
        faint = faint_signal(map_path, workdir, arguments.threads)
        sets = noise_and_signal(map_path, workdir, arguments.threads)
        passed = passed and bool(faint["passed"]) and bool(sets["passed"])
        print(f"written: {write_results('honesty', {'faint_signal': faint, 'noise_and_signal': sets})}")
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
