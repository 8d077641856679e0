"""Is the printed resolution true? Compared with known truths, with pure noise and with RELION's PostProcess."""

import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from our_job import JobResult, run_job
from score import crossing, fourier_shell_correlation, load_map
from simulate import SimulatedProject, fourier_crop, simulate

BANDS_TOO_GOOD = 1.0  # by which the printed resolution may be better than the truth's
BANDS_TOO_POOR = 2.0  # and poorer
POSTPROCESS_SHELLS = 2.0  # by which RELION's PostProcess of the calibrated pair may differ from ours

N_SETS = 10
SET_BOX_PX = 64
SET_PARTICLES = 1000
SET_SIGNAL_TO_NOISE = 0.05

FAINT_PARTICLES = 3000  # so faint that the truth itself is crossed well before Nyquist
FAINT_SIGNAL_TO_NOISE = 0.005
FAINT_SEED = 3


@dataclass(frozen=True)
class Honesty:
    """One job's resolution beside the truth's and PostProcess'; Fourier shells count from 0."""

    printed_resolution: float | None
    true_resolution: float
    postprocess_resolution: float
    printed_shell: float
    true_shell: float
    postprocess_shell: float
    band_width_shells: int

    @property
    def bands_too_good(self) -> float:
        """How much finer the printed resolution is than the truth's; negative: coarser."""
        return (self.printed_shell - self.true_shell) / self.band_width_shells

    @property
    def is_true(self) -> bool:
        """Whether the printed resolution is within the allowed bands of the truth's."""
        return self.printed_resolution is not None and -BANDS_TOO_POOR <= self.bands_too_good <= BANDS_TOO_GOOD

    @property
    def postprocess_agrees(self) -> bool:
        """Whether RELION reads the same resolution from the calibrated pair."""
        return abs(self.printed_shell - self.postprocess_shell) <= POSTPROCESS_SHELLS

    def lines(self) -> str:
        """Both verdicts, for people."""
        printed = "none" if self.printed_resolution is None else f"{self.printed_resolution:.2f} A"
        return (
            f"honesty: printed {printed}, truth crosses 0.5 at {self.true_resolution:.2f} A under the job's mask: "
            f"{self.bands_too_good:+.2f} bands of {self.band_width_shells} shells (allowed -{BANDS_TOO_POOR:.0f} to "
            f"+{BANDS_TOO_GOOD:.0f}): {'true' if self.is_true else 'FALSE'}\n"
            f"PostProcess on the calibrated pair: {self.postprocess_resolution:.2f} A, "
            f"{self.postprocess_shell - self.printed_shell:+.1f} shells: "
            f"{'agrees' if self.postprocess_agrees else 'DISAGREES'}"
        )

    def figures(self) -> dict[str, Any]:
        """Everything, for the result file."""
        values = {key: round(v, 3) if isinstance(v, float) else v for key, v in asdict(self).items()}
        return {**values, "is_true": self.is_true, "postprocess_agrees": self.postprocess_agrees}


def judge(job: JobResult, truth: Path) -> Honesty:
    """Compare what a job prints with the 0.5 crossing of its combined map, under the mask that the job used."""
    true_map, pixel_size = load_map(truth)
    n = true_map.shape[0]
    mask = load_map(job.directory / "gem_mask.mrc")[0]
    half1, half2 = (load_map(path)[0] for path in job.gaussian_half_maps)
    curve = fourier_shell_correlation((half1 + half2) / 2 * mask, true_map * mask)
    true_resolution = crossing(curve, n, pixel_size, 0.5)
    nyquist = 2 * pixel_size
    if np.isnan(true_resolution):
        true_resolution = nyquist
    postprocess = postprocess_resolution(job)
    printed = job.resolution_in_angstroms
    printed_shell = 0.0 if printed is None else n * pixel_size / printed
    return Honesty(
        printed_resolution=printed,
        true_resolution=true_resolution,
        postprocess_resolution=postprocess,
        printed_shell=printed_shell,
        true_shell=n * pixel_size / true_resolution,
        postprocess_shell=n * pixel_size / postprocess,
        band_width_shells=job.band_width_shells,
    )


def postprocess_resolution(job: JobResult) -> float:
    """Return the resolution in Angstrom that RELION's PostProcess states for the calibrated pair, in the job's mask."""
    half1 = job.calibrated_half_maps[0].name
    command = ["relion_postprocess", "--i", half1, "--mask", "gem_mask.mrc", "--o", "PostProcess/out", "--angpix"]
    (job.directory / "PostProcess").mkdir(exist_ok=True)
    pixel_size = load_map(job.calibrated_half_maps[0])[1]
    log = subprocess.run([*command, str(pixel_size)], cwd=job.directory, capture_output=True, text=True)
    found = re.search(r"FINAL RESOLUTION:\s*([\d.]+|inf)", log.stdout)
    if log.returncode or found is None:
        raise SystemExit(f"relion_postprocess failed:\n{log.stdout[-2000:]}\n{log.stderr[-2000:]}")
    if "Skip masking" in log.stdout + log.stderr:
        print("PostProcess set the mask aside: the whole box correlates further than its inside")
    return float(found[1])


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
    honesty = judge(job, project.truth)
    print(f"{FAINT_PARTICLES} particles, SNR {FAINT_SIGNAL_TO_NOISE}: {job.statement}\n{honesty.lines()}", flush=True)
    return {"passed": honesty.is_true and honesty.postprocess_agrees, **honesty.figures()}


def noise_and_signal(map_path: Path, workdir: Path, n_threads: int) -> dict[str, Any]:
    """Run the job on sets of pure noise, and on the same noise with signal; print a line a set.

    Every set has its own poses, CTFs and noise; the map is cropped to a small box.
    """
    volume, pixel_size = load_map(map_path)
    truth = fourier_crop(volume, SET_BOX_PX)
    coarse_pixel = pixel_size * volume.shape[0] / SET_BOX_PX
    claims: dict[str, list[float | None]] = {"noise": [], "signal": []}
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
            claims[kind].append(claim(project, n_threads, f"{kind} {seed}"))
    false_claims = sum(value is not None for value in claims["noise"])
    missed = sum(value is None for value in claims["signal"])
    print(f"resolution claimed on {false_claims} of {N_SETS} noise sets, none on {missed} of {N_SETS} signal sets")
    return {"passed": false_claims == 0 and missed == 0, "claims_in_angstroms": claims}


def claim(project: SimulatedProject, n_threads: int, name: str) -> float | None:
    """Run the job on one set and return the resolution that it claims."""
    job = run_job(project.directory, Path(project.table.name), n_threads=n_threads)
    print(f"{name:>10}: {job.statement} ({job.wall_seconds:.0f} s)", flush=True)
    return job.resolution_in_angstroms
