"""RELION runs our job: added, started, judged and followed by its own jobs, in a project made here.

The relion_pipeliner of this RELION is the judge of command line, markers and nodes, relion_postprocess of the half
maps; the truth that relion_project made the images from is the judge of the map.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray
from scipy import ndimage

from tests.interop.pipeline import FAILURE, REPOSITORY, SUCCESS, Pipeline
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

SHARED_PROJECT = REPOSITORY.parent / "shared" / "data" / "refine3d_313"
TEMPLATES = REPOSITORY / "relion_external" / "templates"
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
    "gem_sharpened.mrc": 6,
    "gem_unfiltered.mrc": 6,
    "gem_locally_filtered.mrc": 6,
    "gem_locres.mrc": 12,
    "run_data.star": 3,
    "logfile.pdf": 13,
}


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
    return Pipeline(directory, truth * signal, mask)


def change_one_particle(directory: Path, stack: str) -> None:
    """A stack of one image: the seventh of the project's, turned over."""
    with mrcfile.open(directory / stack) as file:
        image = np.array(file.data[6:7])
    with mrcfile.new(directory / "changed.mrcs", overwrite=True) as file:
        file.set_data(np.ascontiguousarray(image[:, ::-1]))


@dataclass
class Jobs:
    """The names of the jobs that were run."""

    from_star: str  # ours, added from a job.star
    from_options: str  # ours on a table with one particle changed, added from a list of options
    postprocess: str
    locres: str


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The project before our first job."""
    return make_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def jobs(pipeline: Pipeline) -> Jobs:
    """Run our job twice, and on its half maps RELION's own."""
    options = f"in_part == {PARTICLES};in_mask == {MASK};nr_threads == 2"
    from_star = pipeline.add_and_run(
        "--addJobFromStar", str(TEMPLATES / "job_relion31.star"), "--addJobOptions", options
    )
    words = f"fn_exe == relion_gem;in_part == {CHANGED_PARTICLES};in_3dref == truth.mrc;in_mask == {MASK};"
    words += "param1_label == seed;param1_value == 0;param2_label == verbose;nr_threads == 2"
    from_options = pipeline.add_and_run("--addJob", "External", "--addJobOptions", words)
    half_map = f"{from_star}run_half1_class001_unfil.mrc"
    words = (
        f"fn_in == {half_map};fn_mask == {MASK};angpix == -1;do_auto_bfac == No;do_adhoc_bfac == Yes;adhoc_bfac == -50"
    )
    postprocess = pipeline.add_and_run("--addJob", "PostProcess", "--addJobOptions", words)
    words = f"fn_in == {half_map};fn_mask == {MASK};angpix == 1.7;adhoc_bfac == -50"
    words += ";do_relion_locres == Yes;do_resmap_locres == No"
    locres = pipeline.add_and_run("--addJob", "LocalRes", "--addJobOptions", words)
    return Jobs(from_star, from_options, postprocess, locres)


@pytest.mark.parametrize("how", ["from_star", "from_options"])
def test_relion_sees_a_success(pipeline: Pipeline, jobs: Jobs, how: str):
    job = getattr(jobs, how)
    assert job.startswith("External/job0")
    assert pipeline.status(job) == SUCCESS
    assert (pipeline.directory / job / "RELION_JOB_EXIT_SUCCESS").exists()
    assert (pipeline.directory / job / "run.err").read_text() == ""
    log = (pipeline.directory / job / "run.out").read_text()
    assert "particles/s" in log
    assert "Angstrom" in log
    assert ("--pipeline_control" in (pipeline.directory / job / "note.txt").read_text()) == (how == "from_options")


@pytest.mark.parametrize("how", ["from_star", "from_options"])
def test_our_results_are_nodes_of_the_pipeline(pipeline: Pipeline, jobs: Jobs, how: str):
    job = getattr(jobs, how)
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


def test_postprocess_takes_our_half_maps(pipeline: Pipeline, jobs: Jobs):
    assert pipeline.status(jobs.postprocess) == SUCCESS
    curves = starfile.read(pipeline.directory / jobs.postprocess / "postprocess.star", always_dict=True)
    assert curves["general"]["rlnUnfilteredMapHalf2"] == f"{jobs.from_star}run_half2_class001_unfil.mrc"
    ours = starfile.read(pipeline.directory / jobs.from_star / "gem_fsc.star", always_dict=True)
    assert float(curves["fsc"]["rlnResolution"].iloc[-1]) == pytest.approx(1 / (2 * 1.7), rel=1e-3), "pixel size"
    assert bool(ours["general"]["gemIsResolutionClaimed"])


def test_local_resolution_takes_our_half_maps(pipeline: Pipeline, jobs: Jobs):
    assert pipeline.status(jobs.locres) == SUCCESS
    local = read_volume(pipeline.directory / jobs.locres / "relion_locres.mrc")
    inside = local[pipeline.mask > 0.5]
    assert 2 * 1.7 <= np.median(inside[inside > 0]) < 20


def test_relion_reads_our_particle_table_and_keeps_its_columns(pipeline: Pipeline, jobs: Jobs):
    """relion_reconstruct makes the same map of our table as of the one we were given."""
    ours = f"{jobs.from_star}run_data.star"
    maps = []
    for number, table in enumerate((PARTICLES, ours)):
        output = f"by_relion{number}.mrc"
        run(pipeline.directory, "relion_reconstruct", "--i", table, "--o", output, "--ctf", "--skip_gridding")
        maps.append(read_volume(pipeline.directory / output))
    assert np.array_equal(maps[0], maps[1])
    run(pipeline.directory, "relion_star_handler", "--i", ours, "--o", "kept.star", "--select", "rlnAngleTilt")
    kept = starfile.read(pipeline.directory / "kept.star", always_dict=True)["particles"]
    before = starfile.read(pipeline.directory / ours, always_dict=True)["particles"]
    for column in ("gemParticleScale", "gemNormalisedResidual"):
        np.testing.assert_allclose(kept[column].astype(float), before[column].astype(float), atol=1e-4)


def test_our_map_is_nearer_the_truth_than_the_maps_it_was_given(pipeline: Pipeline, jobs: Jobs):
    score = pipeline.truth_correlation(f"{jobs.from_star}run_class001.mrc")
    baseline = pipeline.truth_correlation(*INPUT_HALF_MAPS)
    assert baseline > 0.3, "the comparison must be with a map of the molecule"
    assert score > baseline + 0.02


def test_our_map_is_on_the_greyscale_of_the_images(pipeline: Pipeline, jobs: Jobs):
    ours = read_volume(pipeline.directory / jobs.from_star / "run_class001.mrc")
    inside = pipeline.mask > 0.5
    assert 0.8 < np.polyfit(pipeline.truth[inside], ours[inside], 1)[0] < 1.1


def test_our_maps_are_our_own(pipeline: Pipeline, jobs: Jobs):
    """No map of a job is a copy of another of its maps, nor of any file that was there before."""
    volumes = {path: read_volume(path) for path in pipeline.directory.rglob("*.mrc") if ".Nodes" not in path.parts}
    ours = [path for path in volumes if path.parent == pipeline.directory / jobs.from_star]
    assert len(ours) == 11
    for path in ours:
        for other, volume in volumes.items():
            is_of_the_twin = other.parent == pipeline.directory / jobs.from_options
            # so few particles show no difference from place to place: then both filters are the same
            may_agree = {path.name, other.name} == {"run_class001.mrc", "gem_locally_filtered.mrc"}
            if other != path and not is_of_the_twin and not may_agree and volume.shape == volumes[path].shape:
                scale = np.abs(volumes[path]).max()
                assert np.abs(volume - volumes[path]).max() > 1e-3 * scale, f"{path} is a copy of {other}"


def test_one_particle_changes_our_map(pipeline: Pipeline, jobs: Jobs):
    """The two jobs differ in one image of half 1: its maps change a little, those of half 2 not at all."""
    first, second = (pipeline.directory / job for job in (jobs.from_star, jobs.from_options))
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


@pytest.mark.skipif(not SHARED_PROJECT.is_dir(), reason="the shared data folder is not there")
def test_a_real_refinement(tmp_path: Path):
    """The project of a finished Refine3D: our map from its poses against the half maps that it ended with."""
    directory = tmp_path / "project"
    shutil.copytree(SHARED_PROJECT, directory, copy_function=shutil.copyfile)
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    mask = "MaskCreate/job006/mask.mrc"
    made = Pipeline(directory, read_volume(directory / "truth.mrc"), read_volume(directory / mask))
    words = f"fn_exe == gem-external;in_part == Refine3D/job005/run_data.star;in_mask == {mask};nr_threads == 2"
    job = made.add_and_run("--addJob", "External", "--addJobOptions", words)
    given = [f"Refine3D/job005/run_half{half}_class001_unfil.mrc" for half in (1, 2)]
    assert made.truth_correlation(f"{job}run_class001.mrc") > made.truth_correlation(*given) + 0.02
