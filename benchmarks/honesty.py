"""Sets on which the stated resolution is tried: a faint signal, pure noise, and the same noise with signal."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from machine import portable, to_json
from our_job import run_job, run_job_here
from reference import exact_reference
from resolution import judge, post_process
from score import load_map, mask_from_truth, save_map
from simulate import SimulatedProject, fourier_crop, simulate

N_SETS = 20
SET_BOX_PX = 32  # small sets, so that many can be run
SET_PARTICLES = 400
SET_SIGNAL_TO_NOISE = 0.05
WAYS = ("alone", "mask", "reference")  # a mask round the truth; the truth as --in_3dref, which must help nothing

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


def noise_and_signal(map_path: Path, workdir: Path, n_threads: int, *, again: bool = False) -> dict[str, Any]:
    """Run the job on sets of pure noise, and on the same noise with signal, in each of three ways; print a line a job.

    Every set has its own poses, CTFs and noise; the map is cropped to a small box. Jobs that were finished before are
    not run again unless asked for: what they claimed is kept in `workdir`, with the settings of the sets in its name.
    """
    volume, pixel_size = load_map(map_path)
    truth = fourier_crop(volume, SET_BOX_PX)
    coarse_pixel = pixel_size * volume.shape[0] / SET_BOX_PX
    folder = workdir / f"honesty_{SET_BOX_PX}px_{SET_PARTICLES}"
    sets: list[dict[str, Any]] = []
    for seed in range(1, N_SETS + 1):
        for kind, ratio in (("noise", 0.0), ("signal", SET_SIGNAL_TO_NOISE)):
            kept = [folder / f"{kind}{seed:02d}_{way}.json" for way in WAYS]
            if again or not all(path.exists() for path in kept):
                project = simulate(
                    truth,
                    coarse_pixel,
                    folder / f"{kind}{seed:02d}",
                    n_particles=SET_PARTICLES,
                    signal_to_noise=ratio,
                    seed=seed,
                )
                save_map(project.directory / "mask.mrc", mask_from_truth(truth.astype(np.float64)), coarse_pixel)
                for way, path in zip(WAYS, kept, strict=True):
                    if again or not path.exists():
                        path.write_text(to_json(portable(claim(project, way, n_threads, f"{kind} {seed}, {way}"))))
                shutil.rmtree(project.directory)
            for way, path in zip(WAYS, kept, strict=True):
                sets.append({"kind": kind, "seed": seed, "way": way, **json.loads(path.read_text())})
    return verdict(sets)


def verdict(sets: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what was claimed of noise, and what was not of signal; print it."""
    noise, signal = ([one for one in sets if one["kind"] == kind] for kind in ("noise", "signal"))
    false_claims, missed = sum(one["is_claimed"] for one in noise), sum(not one["is_claimed"] for one in signal)
    print(f"resolution claimed in {false_claims} of {len(noise)} jobs on noise")
    print(f"no resolution claimed in {missed} of {len(signal)} jobs on signal")
    return {"passed": false_claims == 0 and missed == 0, "sets": sets}


def claim(project: SimulatedProject, way: str, n_threads: int, name: str) -> dict[str, Any]:
    """Run the job on one set in one way and return what it claims."""
    words = ["--in_parts", project.table.name, "--j", str(n_threads)]
    if way == "mask":
        words += ["--in_mask", "mask.mrc"]
    if way == "reference":
        words += ["--in_3dref", project.truth.name]
    job = run_job_here(project.directory, words)
    print(f"{name:>20}: {job.statement} ({job.wall_seconds:.0f} s)", flush=True)
    return {
        "is_claimed": job.is_claimed,
        "resolution_in_angstroms": job.resolution_in_angstroms,
        "seconds": job.wall_seconds,
    }
