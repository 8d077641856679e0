"""``gem-external demo``: a small RELION project with a known answer, the job run in it, and the answer beside it.

The molecule is the phantom of `gem_plugin.phantom`, so what the job states about its map can be held against the
truth, which no job on real particles can do.
"""

import argparse
import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import GemError, OutputError
from gem_plugin.io.atomic import replacing
from gem_plugin.io.maps import read_map, write_map
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles, write_particles
from gem_plugin.io.star import read_tables
from relion_external import file_names
from relion_external.star import simple_block
from relion_external.startup import available_processors

PARTICLE_TABLE = Path("Refine3D/job001/run_data.star")
STACK = Path("Extract/job000/particles.mrcs")
JOB_DIRECTORY = Path("External/job002")
TRUTH = Path("truth.mrc")
_README = Path("README.txt")
_FIRST_LINE = "A simulated RELION project, made by: gem-external demo"
_OPTICS = OpticsGroup("opticsGroup1", 2.0, 64, 300.0, 2.7, 0.1)
_SNR = 0.01  # signal over noise variance, all pixels of an image: typical of real particles
_PARTICLES_A_MICROGRAPH = 50


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The job's maps against the truth, under the mask of the job."""

    stated: str  # the resolution that the job states, in words
    gaussian_resolution_in_angstroms: float  # where the correlation with the truth falls below 0.5
    model_free_resolution_in_angstroms: float  # the same of the map without Gaussians
    gaussian_mean_fsc: float  # over all shells
    model_free_mean_fsc: float


def main(argv: Sequence[str]) -> int:
    """Make the project, run the job in it and hold the result against the truth; the exit code is the job's."""
    options = _parse(argv)
    try:
        project = Path(options.o).resolve()
        _make_folders(project)
        print(f"Simulating {options.n_particles} particles of a molecule that does not exist, in {project}", flush=True)
        make_project(project, options.n_particles, options.seed)
        exit_code = _run_job(project, options.j)
        if exit_code == 0:
            print(_in_words(compare_with_truth(project), project), flush=True)
        return exit_code
    except GemError as error:
        print(f"gem-external demo: {error}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gem-external demo",
        description="Make a small simulated RELION project, run the job in it and compare the map with the truth.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--o", default="gem_demo", metavar="DIR", help="folder for the project")
    parser.add_argument("--n_particles", type=_particle_count, default=2500, metavar="N", help="20 to 100000")
    parser.add_argument("--seed", type=int, default=0, help="of poses and noise")
    parser.add_argument("--j", type=int, default=available_processors(), metavar="THREADS", help="processor threads")
    return parser.parse_args(argv)


def _particle_count(text: str) -> int:
    if not text.isdigit() or not 20 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 20 to 100000")
    return int(text)


def _make_folders(project: Path) -> None:
    """Make the project's folders; refuse a folder that holds anything else."""
    try:
        if project.exists() and any(project.iterdir()) and not _is_ours(project):
            raise OutputError(f"{project} holds something else than an earlier demo: choose another folder with --o")
        for folder in (STACK.parent, PARTICLE_TABLE.parent, JOB_DIRECTORY):
            (project / folder).mkdir(parents=True, exist_ok=True)
        (project / _README).write_text(
            f"{_FIRST_LINE}\n\n"
            f"{TRUTH}: the molecule that the particles show\n"
            f"{STACK}: images with noise and CTFs\n"
            f"{PARTICLE_TABLE}: their poses, as a finished refinement leaves them\n"
            f"{JOB_DIRECTORY}/: the job's results\n"
        )
    except OSError as error:
        raise OutputError(
            f"{project} cannot be made: {error.strerror or error}; choose another folder with --o"
        ) from error


def _is_ours(project: Path) -> bool:
    readme = project / _README
    return readme.is_file() and readme.read_text(errors="replace").startswith(_FIRST_LINE)


def make_project(project: Path, n_particles: int, seed: int) -> None:
    """Write the truth, the image stack, the particle table and an empty pipeline into existing folders."""
    from gem_plugin.phantom import make_phantom, random_particles, simulate_images

    particles = random_particles(n_particles, _OPTICS, seed)
    simulated = simulate_images(make_phantom(_OPTICS.box_size_px), particles, snr=_SNR, seed=seed + 1)
    write_map(project / TRUTH, simulated.truth, _OPTICS.pixel_size_in_angstroms, "GEM demo: the simulated truth")
    write_stack(project / STACK, simulated.images, _OPTICS.pixel_size_in_angstroms)
    write_particles(with_tables(particles, STACK), project / PARTICLE_TABLE)
    pipeline = simple_block("pipeline_general", {"rlnPipeLineJobCounter": 3})  # the next job's number
    (project / "default_pipeline.star").write_text(pipeline)


def write_stack(path: Path, images: NDArray[np.float32], pixel_size_in_angstroms: float) -> None:
    """Write particle images [n, box, box] as a stack."""
    import mrcfile

    with replacing(path) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = pixel_size_in_angstroms


def with_tables(particles: Particles, stack: Path) -> Particles:
    """Give simulated particles the tables that RELION would have written; `stack` is named from the project folder."""
    n = len(particles)
    number = np.arange(n)
    micrographs = [f"MotionCorr/job000/mic{i // _PARTICLES_A_MICROGRAPH + 1:04d}.mrc" for i in number]
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{stack.as_posix()}" for i in number],
            "rlnMicrographName": micrographs,
            "rlnOpticsGroup": 1,
            "rlnGroupNumber": number // _PARTICLES_A_MICROGRAPH + 1,
            "rlnClassNumber": 1,
            "rlnRandomSubset": particles.half_set.astype(np.int64),
            "rlnAngleRot": particles.euler_angles_deg[:, 0],
            "rlnAngleTilt": particles.euler_angles_deg[:, 1],
            "rlnAnglePsi": particles.euler_angles_deg[:, 2],
            "rlnOriginXAngst": particles.shifts_in_angstroms[:, 0],
            "rlnOriginYAngst": particles.shifts_in_angstroms[:, 1],
            "rlnDefocusU": particles.defocus_u_in_angstroms,
            "rlnDefocusV": particles.defocus_v_in_angstroms,
            "rlnDefocusAngle": particles.defocus_angle_deg,
            "rlnPhaseShift": particles.phase_shift_deg,
        }
    )
    optics = particles.optics
    optics_table = pd.DataFrame(
        {
            "rlnOpticsGroupName": [optics.name],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.spherical_aberration_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
            "rlnImagePixelSize": [optics.pixel_size_in_angstroms],
            "rlnImageSize": [optics.box_size_px],
            "rlnImageDimensionality": [2],
        }
    )
    return dataclasses.replace(particles, table=table, optics_table=optics_table)


def _run_job(project: Path, n_threads: int) -> int:
    """Run the job from the project folder with the words that RELION's External job would compose."""
    from relion_external.job import main as gem_external

    words = ["--o", f"{JOB_DIRECTORY}/", "--in_parts", str(PARTICLE_TABLE), "--j", str(n_threads)]
    print(
        f"Running, as RELION would:\n  cd {shlex.quote(str(project))}\n  gem-external {shlex.join(words)}", flush=True
    )
    before = Path.cwd()
    os.chdir(project)
    try:
        return gem_external(words)
    finally:
        os.chdir(before)


def compare_with_truth(project: Path) -> Comparison:
    """Read the job's results back and correlate them with the simulated truth, shell by shell, under the job's mask."""
    job = project / JOB_DIRECTORY
    mask = read_map(job / file_names.MASK).data
    truth = read_map(project / TRUTH).data * mask
    model_free = sum(read_map(job / name).data for name in file_names.MODEL_FREE_HALF_MAPS)
    ours = _shell_correlation(read_map(job / file_names.COMBINED_MAP).data * mask, truth)
    without = _shell_correlation(np.asarray(model_free) * mask, truth)
    return Comparison(
        stated=_stated_resolution(job / file_names.FSC),
        gaussian_resolution_in_angstroms=_crossing_in_angstroms(ours),
        model_free_resolution_in_angstroms=_crossing_in_angstroms(without),
        gaussian_mean_fsc=float(ours[1:].mean()),
        model_free_mean_fsc=float(without[1:].mean()),
    )


def _shell_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fourier shell correlation of two maps, shells 0 ... n // 2 - 1."""
    from gem_plugin.conventions import shell_indices

    shells = shell_indices(len(a)).ravel()
    transforms = [np.fft.rfftn(m).ravel() for m in (a, b)]
    sums = [
        np.bincount(shells, (p * q.conj()).real)[: len(a) // 2]
        for p, q in ((transforms[0], transforms[1]), (transforms[0], transforms[0]), (transforms[1], transforms[1]))
    ]
    return np.asarray(sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], np.finfo(np.float64).tiny)))


def _crossing_in_angstroms(correlation: NDArray[np.float64]) -> float:
    """Resolution of the last shell before the correlation first falls below 0.5."""
    below = np.flatnonzero(correlation[1:] < 0.5)
    last = int(below[0]) if len(below) else len(correlation) - 1
    edge = _OPTICS.box_size_px * _OPTICS.pixel_size_in_angstroms
    return edge / last if last else float("inf")


def _stated_resolution(path: Path) -> str:
    general = read_tables(path)["general"].frame.iloc[0]
    if str(general["gemIsResolutionClaimed"]) != "1":
        return "none claimed"
    resolution = float(general["gemResolutionInAngstroms"])
    return "not crossed before Nyquist" if math.isnan(resolution) else f"{resolution:.2f} A"


def _in_words(found: Comparison, project: Path) -> str:
    """The last thing that the user reads."""
    return f"""
What the job states, and what is true (correlation with the simulated molecule, 0.5; Nyquist is {
        2 * _OPTICS.pixel_size_in_angstroms:.2f} A)
  resolution stated by the job             {found.stated}
  true resolution of its map               {found.gaussian_resolution_in_angstroms:.2f} A  (mean FSC {
        found.gaussian_mean_fsc:.3f})
  the same particles without Gaussians     {found.model_free_resolution_in_angstroms:.2f} A  (mean FSC {
        found.model_free_mean_fsc:.3f})

  map      {project / JOB_DIRECTORY / file_names.COMBINED_MAP}
  report   {project / JOB_DIRECTORY / file_names.REPORT}

To do the same in RELION: start it in your project, choose 'External', and give
  External executable   {_this_program()}
  Input particles       Refine3D/jobNNN/run_data.star   (here: {PARTICLE_TABLE})
Everything else may stay empty. 'gem-external --help' lists what can be set on the Params tab."""


def _this_program() -> str:
    """What to type to run gem-external from any folder."""
    launcher = os.environ.get("GEM_LAUNCHER")  # set by the script that install.sh --prefix leaves
    if launcher:
        return launcher
    program = Path(sys.argv[0])
    return str(program.absolute()) if program.name == "gem-external" else "gem-external"
