"""Section of benchmarks/gpu.py: a whole job on synthetic particles, made on the machine, as a user would run it."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_stand_ins
import numpy as np
import torch
from gpu_problem import PIXEL_SIZE_IN_ANGSTROMS, some_gaussians, tensors
from gpu_session import Session
from gpu_stack import HEADER_BYTES, header
from numpy.typing import NDArray
from poses import draw_poses

from gem_plugin.conventions import half_plane, rotation_matrices
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.io.particles import Particles
from gem_plugin.ops import project

HERE = Path(__file__).resolve().parent
NEEDED = ("starfile", "mrcfile", "finufft", "pandas", "pydantic", "matplotlib", "rich")
BOX = 256
BLOBS = 20_000
SIGNAL_TO_NOISE = 0.05  # a ratio of variances
A_BATCH = 256
RUNS = 2  # with a warm file cache; the median of two is their mean
STAGE = re.compile(r"^\s+(?P<name>.+): (?P<figures>\d+/\d+ .*?),? done in .*$")
Json = dict[str, Any]


def whole_job(session: Session) -> Json:
    """Make a project, run the job on it with a warm cache of files and of kernels, and once with a cold one."""
    gpu_stand_ins.require(*NEEDED)
    box, count = (16, 12) if session.is_dry else (BOX, session.n_particles)
    if not session.is_dry and not session.fits("the whole job", 60 + count / 1000):
        return {}
    project = Path(session.scratch) / "project"
    needed = 2.2 * count * box**2
    if shutil.disk_usage(session.scratch).free < needed:
        session.left_out.append(f"the whole job: {session.scratch} has no room for {needed / 1e9:.0f} GB (--scratch)")
        return {}
    begun = time.perf_counter()
    stack = make_project(session, project, box, count)
    figures = session.figures
    figures.update(box_size_px=box, n_particles=count, stack_gb=stack.stat().st_size / 1e9)
    figures["seconds_to_make_it"] = time.perf_counter() - begun
    if session.is_dry:
        return {}
    few = _run_job(session, project, "first", ("--max_particles", "2000"))  # compiles what is kept on disk
    figures["first_2000_particles"] = few
    runs: list[Json] = []
    figures["warm"] = runs
    for run in range(RUNS):
        expected = runs[0]["seconds"] if runs else 60.0
        if session.fits(f"warm run {run + 1}", expected):
            runs.append(_run_job(session, project, f"warm{run + 1}", ()))
    if runs and session.fits("cold run", 2 * runs[0]["seconds"] + 20):
        figures["cold_read_seconds"] = _cold_read(stack)
        _forget(stack)
        figures["cold"] = _run_job(session, project, "cold", ())
    return {}


def make_project(session: Session, project: Path, box: int, count: int) -> Path:
    """Write particles.star and particles.mrcs; return the stack."""
    from simulate import STACK, write_table

    from gem_plugin.io.particles import read_particles

    project.mkdir(parents=True)
    poses = draw_poses(np.random.default_rng(11), count, PIXEL_SIZE_IN_ANGSTROMS)
    write_table(project / "particles.star", PIXEL_SIZE_IN_ANGSTROMS, box, poses)
    stack = project / STACK
    with stack.open("wb") as file:
        file.write(header(box, count))
        file.truncate(HEADER_BYTES + 2 * count * box**2)  # read_particles looks whether it is whole
    particles = read_particles(project / "particles.star", project_directory=project)
    with stack.open("r+b") as file:
        file.seek(HEADER_BYTES)
        for block in _images(session, particles, box):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())
    return stack


def _images(session: Session, particles: Particles, box: int) -> Iterator[NDArray[np.float16]]:
    """Projections of Gaussians by our own kernels, moved, with CTF and white noise of variance 1."""
    device, plane = session.device, half_plane(box, box / 2)
    makes = DeviceBatches(particles, (plane,), device)
    whole = tensors(some_gaussians(20 if session.is_dry else BLOBS, box, seed=3), device)
    kx, ky = (torch.from_numpy(of.copy()).to(device) for of in (plane.kx, plane.ky))
    rotations = rotation_matrices(particles.euler_angles_deg)
    shifts = torch.from_numpy(particles.shifts_in_angstroms / PIXEL_SIZE_IN_ANGSTROMS).to(device, torch.float32)
    generator = torch.Generator(device).manual_seed(13)
    scale = None
    for start in range(0, len(particles), A_BATCH):
        part = np.arange(start, min(start + A_BATCH, len(particles)))
        ctf = makes.batch(torch.zeros(len(part), box, box), part).ctf
        with torch.no_grad():
            drawn = project(*whole, rotations[part], box, engine=session.engine)
        spectra = torch.fft.rfft2(drawn)
        turns = (shifts[part, 0, None] * kx + shifts[part, 1, None] * ky) / box
        seen = torch.zeros_like(spectra)
        # a particle lies at (A r)_xy - o
        seen[:, ky, kx] = spectra[:, ky, kx] * ctf * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
        images = torch.fft.irfft2(seen, s=(box, box))
        scale = scale or float((SIGNAL_TO_NOISE / images.var()).sqrt())
        noise = torch.randn(images.shape, generator=generator, device=device)
        yield (scale * images + noise).half().cpu().numpy()


def _run_job(session: Session, project: Path, name: str, options: tuple[str, ...]) -> Json:
    """A process of its own, its stages' times from what it says."""
    command = [sys.executable, "-m", "relion_external.job", "--o", f"External/{name}/", "--in_parts", "particles.star"]
    command += ["--engine", "cuda", "--j", str(len(os.sched_getaffinity(0))), *options]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = threading.Timer(max(session.seconds_left, 5), process.kill)
    limit.start()
    assert process.stdout is not None
    said = [(time.perf_counter() - begun, line.rstrip()) for line in process.stdout]
    status = process.wait()
    limit.cancel()
    seconds = time.perf_counter() - begun
    if status:
        last = "\n".join(line for _, line in said[-25:])
        raise RuntimeError(f"{' '.join(command)}: exit status {status} after {seconds:.0f} s\n{last}")
    return {"command": " ".join(command[1:]), "seconds": seconds, "stages": stages(said)}


def stages(said: list[tuple[float, str]]) -> list[Json]:
    """Each stage that a job's log names, its figures, and the seconds from the end of the one before.

    Parameters
    ----------
    said : lines, and the second of the job at which each was written
    """
    found, before = [], 0.0
    for at, line in said:
        match = STAGE.match(line)
        if match:
            found.append({"stage": match["name"], "figures": match["figures"], "seconds": at - before})
            before = at
    return found


def _forget(path: Path) -> None:
    """Let the system drop a file from its memory; what is dirty was written before."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _cold_read(path: Path) -> float:
    """Seconds of reading a file that is not in memory, once, in order, in large pieces."""
    _forget(path)
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        piece = bytearray(2**26)
        while file.readinto(piece):
            pass
    return time.perf_counter() - begun
