"""RELION runs our job: added, started, judged and followed by its own jobs, in a project made here.

The relion_pipeliner of this RELION is the judge of command line, markers and nodes, relion_postprocess of the half
maps; the truth that relion_project made the images from is the judge of the map.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray
from scipy import ndimage

from tests.interop.simulated import (
    add_white_noise,
    blobs,
    project,
    random_columns,
    read_volume,
    run,
    write_map,
)

pytestmark = [pytest.mark.relion, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "relion_external" / "templates"
SUCCESS, FAILURE = 2, 3  # rlnPipeLineProcessStatus
BOX_SIZE_PX = 40
N_PARTICLES = 400
SIGNAL_TO_NOISE = 0.1
PARTICLES = "Refine3D/job001/run_data.star"
CHANGED_PARTICLES = "Refine3D/job001/changed_data.star"
INPUT_HALF_MAPS = ("Refine3D/job001/run_half1_class001_unfil.mrc", "Refine3D/job001/run_half2_class001_unfil.mrc")
MASK = "MaskCreate/job002/mask.mrc"
NODE_TYPES = {
    "run_half1_class001_unfil.mrc": 10,
    "run_half2_class001_unfil.mrc": 10,
    "run_class001.mrc": 6,
    "run_data.star": 3,
    "logfile.pdf": 13,
}


@dataclass
class Pipeline:
    """A RELION project with finished jobs, and the jobs that the tests have run in it."""

    directory: Path
    truth: NDArray[np.float32]
    mask: NDArray[np.float32]
    from_star: str = ""  # our job, added from a job.star
    from_options: str = ""  # our job on a table with one particle changed, added from a list of options
    postprocess: str = ""
    locres: str = ""

    def tables(self) -> dict:
        return starfile.read(self.directory / "default_pipeline.star", always_dict=True)

    def status(self, job: str) -> int:
        processes = self.tables()["pipeline_processes"]
        if not hasattr(processes, "columns"):
            return int(processes["rlnPipeLineProcessStatus"])
        row = processes[processes["rlnPipeLineProcessName"] == job]
        return int(row["rlnPipeLineProcessStatus"].iloc[0])

    def add_and_run(self, *words: str, status: int = SUCCESS) -> str:
        """Add a job to the pipeline, run it, wait for it; return its name.

        Its status is checked here, because the pipeliner waits for ever for the results of a job that failed.
        """
        number = int(self.tables()["pipeline_general"]["rlnPipeLineJobCounter"])
        self.relion_pipeliner(*words)
        found = list(self.directory.glob(f"*/job{number:03d}"))
        assert len(found) == 1, f"no job was added by {words}"
        job = f"{found[0].relative_to(self.directory)}/"
        self.relion_pipeliner("--RunJobs", job, "--sec_wait_after", "1")
        assert self.status(job) == status, self.log(job)
        return job

    def relion_pipeliner(self, *words: str) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = ["relion_pipeliner", *words]
        result = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"

    def log(self, job: str) -> str:
        """What a failed job has to say."""
        return "\n".join(
            (self.directory / job / name).read_text()
            for name in ("run.out", "run.err", "note.txt")
            if (self.directory / job / name).exists()
        )


def soft_mask(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outline of the truth, widened, with a soft edge."""
    smooth = ndimage.gaussian_filter(volume, 2.0)
    distance = ndimage.distance_transform_edt(smooth <= 0.05 * smooth.max())
    return np.clip(1 - (distance - 2) / 4, 0, 1).astype(np.float32)


def make_pipeline(directory: Path) -> Pipeline:
    """A project with a refinement's particles and half maps and a mask, as the GUI would leave it."""
    truth = blobs(BOX_SIZE_PX, seed=3)
    made = project(directory, truth, random_columns(N_PARTICLES, seed=4))
    images = made.images()
    signal = np.sqrt(SIGNAL_TO_NOISE) / images.std()
    add_white_noise(made, SIGNAL_TO_NOISE, seed=5)
    (directory / PARTICLES).parent.mkdir(parents=True)
    table = made.table.read_text()
    (directory / PARTICLES).write_text(table)
    change_one_particle(directory, made.stack.name)
    (directory / CHANGED_PARTICLES).write_text(table.replace(f"000007@{made.stack.name}", "000001@changed.mrcs"))
    for half, name in enumerate(INPUT_HALF_MAPS, start=1):
        words = ["--i", PARTICLES, "--o", name, "--ctf", "--subset", str(half), "--skip_gridding"]
        run(directory, "relion_reconstruct", *words)
    (directory / MASK).parent.mkdir(parents=True)
    mask = soft_mask(truth)
    write_map(directory / MASK, mask)
    (directory / "default_pipeline.star").write_text(
        "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       3\n"
    )
    for name in ("gem-external", "relion_gem"):  # RELION adds --pipeline_control to the second
        program = directory / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relion_external.job "$@"\n')
        program.chmod(0o755)
    return Pipeline(directory, truth * signal, mask)


def change_one_particle(directory: Path, stack: str) -> None:
    """A stack of one image: the seventh of the project's, turned over."""
    with mrcfile.open(directory / stack) as file:
        image = np.array(file.data[6:7])
    with mrcfile.new(directory / "changed.mrcs", overwrite=True) as file:
        file.set_data(np.ascontiguousarray(image[:, ::-1]))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The project with all jobs run."""
    made = make_pipeline(tmp_path_factory.mktemp("pipeline"))
    options = f"in_part == {PARTICLES};in_mask == {MASK};nr_threads == 1"
    made.from_star = made.add_and_run(
        "--addJobFromStar", str(TEMPLATES / "job_relion31.star"), "--addJobOptions", options
    )
    words = f"fn_exe == relion_gem;in_part == {CHANGED_PARTICLES};in_3dref == truth.mrc;in_mask == {MASK};"
    words += "param1_label == seed;param1_value == 0;param2_label == verbose;nr_threads == 1"
    made.from_options = made.add_and_run("--addJob", "External", "--addJobOptions", words)
    half_map = f"{made.from_star}run_half1_class001_unfil.mrc"
    words = (
        f"fn_in == {half_map};fn_mask == {MASK};angpix == -1;do_auto_bfac == No;do_adhoc_bfac == Yes;adhoc_bfac == -50"
    )
    made.postprocess = made.add_and_run("--addJob", "PostProcess", "--addJobOptions", words)
    words = f"fn_in == {half_map};fn_mask == {MASK};angpix == 1.7;adhoc_bfac == -50"
    words += ";do_relion_locres == Yes;do_resmap_locres == No"
    made.locres = made.add_and_run("--addJob", "LocalRes", "--addJobOptions", words)
    return made


@pytest.mark.parametrize("how", ["from_star", "from_options"])
def test_relion_sees_a_success(pipeline: Pipeline, how: str):
    job = getattr(pipeline, how)
    assert job.startswith("External/job0")
    assert pipeline.status(job) == SUCCESS
    assert (pipeline.directory / job / "RELION_JOB_EXIT_SUCCESS").exists()
    assert (pipeline.directory / job / "run.err").read_text() == ""
    log = (pipeline.directory / job / "run.out").read_text()
    assert "particles/s" in log
    assert "Angstrom" in log
    assert ("--pipeline_control" in (pipeline.directory / job / "note.txt").read_text()) == (how == "from_options")


@pytest.mark.parametrize("how", ["from_star", "from_options"])
def test_our_results_are_nodes_of_the_pipeline(pipeline: Pipeline, how: str):
    job = getattr(pipeline, how)
    tables = pipeline.tables()
    edges = tables["pipeline_output_edges"]
    ours = set(edges[edges["rlnPipeLineEdgeProcess"] == job]["rlnPipeLineEdgeToNode"])
    assert ours == {f"{job}{name}" for name in NODE_TYPES}
    nodes = tables["pipeline_nodes"]
    types = dict(zip(nodes["rlnPipeLineNodeName"], nodes["rlnPipeLineNodeType"], strict=True))
    assert {name: types[f"{job}{name}"] for name in NODE_TYPES} == NODE_TYPES
    inputs = tables["pipeline_input_edges"]
    taken = set(inputs[inputs["rlnPipeLineEdgeProcess"] == job]["rlnPipeLineEdgeFromNode"])
    assert MASK in taken


def test_postprocess_takes_our_half_maps(pipeline: Pipeline):
    assert pipeline.status(pipeline.postprocess) == SUCCESS
    curves = starfile.read(pipeline.directory / pipeline.postprocess / "postprocess.star", always_dict=True)
    assert curves["general"]["rlnUnfilteredMapHalf2"] == f"{pipeline.from_star}run_half2_class001_unfil.mrc"
    ours = starfile.read(pipeline.directory / pipeline.from_star / "gem_fsc.star", always_dict=True)
    assert float(curves["fsc"]["rlnResolution"].iloc[-1]) == pytest.approx(1 / (2 * 1.7), rel=1e-3), "pixel size"
    assert bool(ours["general"]["gemIsResolutionClaimed"])


def test_local_resolution_takes_our_half_maps(pipeline: Pipeline):
    assert pipeline.status(pipeline.locres) == SUCCESS
    local = read_volume(pipeline.directory / pipeline.locres / "relion_locres.mrc")
    inside = local[pipeline.mask > 0.5]
    assert 2 * 1.7 <= np.median(inside[inside > 0]) < 20


def truth_correlation(pipeline: Pipeline, volume: NDArray[np.float32]) -> float:
    """Mean Fourier shell correlation with the truth under the mask."""
    a, b = (np.fft.rfftn(v * pipeline.mask) for v in (volume, pipeline.truth))
    n = BOX_SIZE_PX
    axis = np.fft.fftfreq(n) * n
    radius = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + np.arange(n // 2 + 1) ** 2)).astype(
        int
    )
    sums = [np.bincount(radius.ravel(), weights=w.ravel()) for w in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2)]
    return float(np.mean((sums[0] / np.sqrt(sums[1] * sums[2]))[1 : n // 2 + 1]))


def test_our_map_is_nearer_the_truth_than_the_maps_it_was_given(pipeline: Pipeline):
    ours = read_volume(pipeline.directory / pipeline.from_star / "run_class001.mrc")
    given = sum(read_volume(pipeline.directory / name) for name in INPUT_HALF_MAPS) / 2
    score, baseline = truth_correlation(pipeline, ours), truth_correlation(pipeline, given)
    assert baseline > 0.3, "the comparison must be with a map of the molecule"
    assert score > baseline + 0.02


def test_our_map_is_on_the_greyscale_of_the_images(pipeline: Pipeline):
    ours = read_volume(pipeline.directory / pipeline.from_star / "run_class001.mrc")
    inside = pipeline.mask > 0.5
    assert 0.8 < np.polyfit(pipeline.truth[inside], ours[inside], 1)[0] < 1.1


def test_our_maps_are_our_own(pipeline: Pipeline):
    """No map of a job is a copy of another of its maps, nor of any file that was there before."""
    volumes = {path: read_volume(path) for path in pipeline.directory.rglob("*.mrc") if ".Nodes" not in path.parts}
    ours = [path for path in volumes if path.parent == pipeline.directory / pipeline.from_star]
    assert len(ours) == 7
    for path in ours:
        for other, volume in volumes.items():
            is_of_the_twin = other.parent == pipeline.directory / pipeline.from_options
            if other != path and not is_of_the_twin and volume.shape == volumes[path].shape:
                scale = np.abs(volumes[path]).max()
                assert np.abs(volume - volumes[path]).max() > 1e-3 * scale, f"{path} is a copy of {other}"


def test_one_particle_changes_our_map(pipeline: Pipeline):
    """The two jobs differ in one image of half 1: its maps change a little, those of half 2 not at all."""
    first, second = (pipeline.directory / job for job in (pipeline.from_star, pipeline.from_options))
    for name in ("run_class001.mrc", "gem_half1.mrc", "model_free_half1.mrc"):
        a, b = read_volume(first / name), read_volume(second / name)
        assert not np.array_equal(a, b), name
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9, name
    for name in ("gem_half2.mrc", "model_free_half2.mrc"):
        is_same = np.array_equal(read_volume(first / name), read_volume(second / name))
        assert is_same, name


def test_the_queue_runs_our_job_and_a_failure_is_seen(pipeline: Pipeline):
    """Through the submission script, with the shell for a queue, on a table that is not there."""
    (pipeline.directory / "empty.star").write_text("\ndata_particles\n\n")
    words = (
        f"fn_exe == gem-external;in_part == empty.star;do_queue == Yes;qsub == bash;qsubscript == {TEMPLATES}/slurm.sh"
    )
    job = pipeline.add_and_run("--addJob", "External", "--addJobOptions", words, status=FAILURE)
    assert (pipeline.directory / job / "RELION_JOB_EXIT_FAILURE").exists()
    script = (pipeline.directory / job / "run_submit.script").read_text()
    assert "--cpus-per-task=1" in script
    assert f"#SBATCH --error={job}run.err" in script
    assert "XXX" not in "".join(line for line in script.splitlines() if not line.startswith("# "))
