"""Sets on which the stated resolution is tried: a faint signal, pure noise, and the same noise with signal."""

from pathlib import Path
from typing import Any

import numpy as np
from our_job import run_job
from reference import exact_reference
from resolution import judge, post_process
from score import load_map
from simulate import SimulatedProject, fourier_crop, simulate

N_SETS = 10
SET_BOX_PX = 64
SET_PARTICLES = 1000
SET_SIGNAL_TO_NOISE = 0.05

FAINT_PARTICLES = 3000  # so faint that the truth itself is crossed well before Nyquist
FAINT_SIGNAL_TO_NOISE = 0.005
FAINT_SEED = 3


def faint_signal(map_path: Path, workdir: Path, n_threads: int) -> dict[str, Any]:
    """Judge the printed resolution where it is not simply the end of the data; print the verdict."""
    volume, pixel_size = load_map(map_path)
    project = simulate(
        volume.astype(np.float32),
        pixel_size,
        workdir / "honesty_faint",
        n_particles=FAINT_PARTICLES,
        signal_to_noise=FAINT_SIGNAL_TO_NOISE,
        seed=FAINT_SEED,
    )
    job = run_job(project.directory, Path(project.table.name), n_threads=n_threads)
    honesty, postprocess = judge(job, exact_reference(project.truth)), post_process(job)
    print(f"{FAINT_PARTICLES} particles, SNR {FAINT_SIGNAL_TO_NOISE}: {job.statement}")
    print(f"{honesty.line()}\n{postprocess.line()}", flush=True)
    figures = {**honesty.figures(), "postprocess": postprocess.figures(), "statement": job.statement}
    return {"passed": bool(honesty.is_true) and postprocess.agrees, **figures}


def noise_and_signal(map_path: Path, workdir: Path, n_threads: int) -> dict[str, Any]:
    """Run the job on sets of pure noise, and on the same noise with signal; print a line a set.

    Every set has its own poses, CTFs and noise; the map is cropped to a small box.
    """
    volume, pixel_size = load_map(map_path)
    truth = fourier_crop(volume, SET_BOX_PX)
    coarse_pixel = pixel_size * volume.shape[0] / SET_BOX_PX
    sets: list[dict[str, Any]] = []
    for seed in range(1, N_SETS + 1):
        for kind, ratio in (("noise", 0.0), ("signal", SET_SIGNAL_TO_NOISE)):
            project = simulate(
                truth,
                coarse_pixel,
                workdir / f"honesty_{kind}{seed:02d}",
                n_particles=SET_PARTICLES,
                signal_to_noise=ratio,
                seed=seed,
            )
            sets.append({"kind": kind, "seed": seed, **claim(project, n_threads, f"{kind} {seed}")})
    false_claims = sum(one["is_claimed"] for one in sets if one["kind"] == "noise")
    missed = sum(not one["is_claimed"] for one in sets if one["kind"] == "signal")
    print(f"resolution claimed on {false_claims} of {N_SETS} noise sets, none on {missed} of {N_SETS} signal sets")
    return {"passed": false_claims == 0 and missed == 0, "sets": sets}


def claim(project: SimulatedProject, n_threads: int, name: str) -> dict[str, Any]:
    """Run the job on one set and return what it claims."""
    job = run_job(project.directory, Path(project.table.name), n_threads=n_threads)
    print(f"{name:>10}: {job.statement} ({job.wall_seconds:.0f} s)", flush=True)
    return {"is_claimed": job.is_claimed, "resolution_in_angstroms": job.resolution_in_angstroms}
