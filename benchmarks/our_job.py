"""Our side of a comparison: the job as a user runs it, with one set of defaults."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import starfile

REPOSITORY = Path(__file__).resolve().parent.parent
JOB = Path("External/job100")
CURVE_COLUMNS = {
    "resolution_in_angstroms": "gemBandResolutionInAngstroms",
    "c_full": "gemCrossValidatedFsc",
    "standard_error": "gemCrossValidatedFscStandardError",
    "resampled_error": "gemCrossValidatedFscResampledError",
    "model_free_fsc": "gemModelFreeHalfMapFsc",
}


@dataclass(frozen=True)
class JobResult:
    """A finished job directory and what it says about resolution."""

    directory: Path
    wall_seconds: float
    resolution_in_angstroms: float | None  # None: no number is stated
    is_claimed: bool  # False: nothing beyond chance was found
    bands: list[tuple[int, int]]  # first and last Fourier shell of each band of the cross-validated curve
    curve: dict[str, list[float]]  # the cross-validated curve, one entry a band
    statement: str
    choices: dict[str, str]  # what the job chose from the data, in words
    warnings: list[str]

    @property
    def gaussian_half_maps(self) -> tuple[Path, Path]:
        """The pure half maps."""
        return self.directory / "gem_half1.mrc", self.directory / "gem_half2.mrc"

    @property
    def model_free_half_maps(self) -> tuple[Path, Path]:
        """The half maps without Gaussians."""
        return self.directory / "model_free_half1.mrc", self.directory / "model_free_half2.mrc"

    @property
    def calibrated_half_maps(self) -> tuple[Path, Path]:
        """The pair that is made for RELION's tools."""
        return self.directory / "run_half1_class001_unfil.mrc", self.directory / "run_half2_class001_unfil.mrc"

    @property
    def band_width_shells(self) -> int:
        """Shells in a band, the median of all."""
        widths = sorted(last - first + 1 for first, last in self.bands)
        return widths[len(widths) // 2]


def linked_project(project: Path, scratch: Path) -> Path:
    """Make a directory in `scratch` that shows a read-only project's files and can take an External job."""
    linked = scratch / project.name
    linked.mkdir(parents=True, exist_ok=True)
    for entry in project.resolve().iterdir():
        link = linked / entry.name
        if not link.is_symlink():
            link.symlink_to(entry)
    return linked


def run_job(
    project: Path,
    table: Path,
    *,
    n_threads: int,
    mask: Path | None = None,
    job: Path = JOB,
    symmetry: str = "C1",
    options: Sequence[str] = (),
) -> JobResult:
    """Run the job from a project directory as RELION would, in a process of its own, and read what it says.

    `options` are further words of the command line, such as ``("--fit", "images")``.
    """
    command = [sys.executable, "-m", "relion_external.job", "--o", f"{job}/", "--in_parts", str(table)]
    if mask is not None:
        command += ["--in_mask", str(mask)]
    if symmetry != "C1":
        command += ["--sym", symmetry]
    command += [*options, "--j", str(n_threads)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    (project / job).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (project / job / "run.out").open("w") as out:
        process = subprocess.run(command, cwd=project, env=environment, stdout=out, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if process.returncode or not (project / job / "RELION_JOB_EXIT_SUCCESS").exists():
        raise SystemExit(f"the job on {table} failed (exit status {process.returncode}):\n{process.stderr[-3000:]}")
    return read_job(project / job, seconds)


def run_job_here(project: Path, words: Sequence[str], job: Path = JOB) -> JobResult:
    """Run the job in this process, for many small ones: most of such a job's time is the start of Python.

    `words` are those of the command line but for ``--o``.
    """
    sys.path.insert(0, str(REPOSITORY))
    from relion_external.job import main

    (project / job).mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    start = time.perf_counter()
    os.chdir(project)
    try:
        with (job / "run.out").open("w") as out, contextlib.redirect_stdout(out):
            status = main(["--o", f"{job}/", *words])
    finally:
        os.chdir(before)
        sys.path.remove(str(REPOSITORY))
    if status or not (project / job / "RELION_JOB_EXIT_SUCCESS").exists():
        raise SystemExit(f"the job in {project} failed (exit status {status})")
    return read_job(project / job, time.perf_counter() - start)


def read_job(directory: Path, wall_seconds: float) -> JobResult:
    """Read what a finished job states, in ``gem_fsc.star`` and ``gem_config.json``."""
    blocks = starfile.read(directory / "gem_fsc.star", always_dict=True, parse_as_string=["gemStatement"])
    general, bands = blocks["general"], blocks["fsc_bands"]
    config: dict[str, Any] = json.loads((directory / "gem_config.json").read_text())
    resolution = float(general["gemResolutionInAngstroms"])
    return JobResult(
        directory,
        wall_seconds,
        None if resolution != resolution else resolution,
        bool(int(general["gemIsResolutionClaimed"])),
        [(int(a), int(b)) for a, b in zip(bands["gemFirstShell"], bands["gemLastShell"], strict=True)],
        {key: [float(value) for value in bands[column]] for key, column in CURVE_COLUMNS.items()},
        str(general["gemStatement"]),
        {str(key): str(value) for key, value in config.get("choices", {}).items()},
        [str(warning) for warning in config.get("warnings", [])],
    )
