"""Wall times of whole programs on the same particles, run in turn: what a user waits for."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from molecules import BY_NAME, PIXEL_SIZE_IN_ANGSTROMS
from our_job import run_job
from relion_baseline import reconstruct
from simulate import simulate

MOLECULES = ("cxcr4", "30S")
N_PARTICLES = 4000
SIGNAL_TO_NOISE = 0.015
SEED = 7
PROGRAMS = ("relion_reconstruct", "ours")


def paired_runs(name: str, data: Path, n_threads: int, repeats: int, n_particles: int = N_PARTICLES) -> dict[str, Any]:
    """Run both programs in turn on a molecule's particles and print their times.

    A first run of ours, which compiles kernels and fills the disk's cache, is not counted; nor is the making of the
    particles. RELION's time is that of both half sets, one after the other.
    """
    molecule = BY_NAME[name]
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory(prefix="gem_speed_") as scratch:
        project = simulate(
            molecule.plain_truth(data, Path(scratch)),
            PIXEL_SIZE_IN_ANGSTROMS,
            Path(scratch) / name,
            n_particles=n_particles,
            signal_to_noise=SIGNAL_TO_NOISE,
            seed=SEED,
        )
        table = Path(project.table.name)
        run_job(project.directory, table, n_threads=n_threads)
        for repeat in range(1, repeats + 1):
            baseline = reconstruct(project.directory, table, project.directory)
            job = run_job(project.directory, table, n_threads=n_threads)
            for program, value in zip(PROGRAMS, (baseline.wall_seconds, job.wall_seconds), strict=True):
                seconds[program].append(value)
            theirs, ours = (seconds[program][-1] for program in PROGRAMS)
            print(f"{name}, pair {repeat}: RELION {theirs:.1f} s, ours {ours:.1f} s", flush=True)
    figures = summary(seconds)
    print(
        f"{name}, whole processes: ours takes {figures['median_ratio']:.1f} times RELION's time, "
        f"the median of {repeats} pairs"
    )
    about = f"{name}, box {molecule.box_size_px}, {n_particles} particles, SNR {SIGNAL_TO_NOISE:g}"
    return {"set": about, "threads_of_ours": n_threads, **figures}


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of each program's times and of the ratio within a pair, which drifts of the machine do not move."""
    theirs, ours = (seconds[name] for name in PROGRAMS)
    ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
    return {
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
    }
