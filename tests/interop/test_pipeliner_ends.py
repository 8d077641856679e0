"""The real relion_pipeliner runs our job to each of its ends, and continues it from there.

What is judged is RELION's own record, default_pipeline.star. The science is a stand-in that misbehaves on command.
Deleting a job is a button of RELION's interface that no program of RELION 3.1 offers: it moves the folder to Trash.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relion_external.checkpoint_folder import FOLDER
from relion_external.file_names import ALL_RESULTS
from tests.interop.pipeline import FAILURE, REPOSITORY, SUCCESS, Pipeline
from tests.job.project import make_project

pytestmark = [pytest.mark.relion, pytest.mark.slow]

ABORTED, RUNNING = 4, 0
PARTICLES = "Refine3D/job005/run_data.star"
SECONDS = 120


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A project in which gem-external is the stand-in."""
    made = make_project(tmp_path).write()
    (tmp_path / "default_pipeline.star").write_text(
        "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       6\n"
    )
    pipeline = Pipeline(tmp_path, made.truth, made.truth)
    program = tmp_path / "bin" / "gem-external"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.job.fake "$@"\n')
    return pipeline


@pytest.fixture
def job(pipeline: Pipeline) -> str:
    """Our job, added and not run yet."""
    words = f"fn_exe == gem-external;in_part == {PARTICLES};nr_threads == 1"
    pipeline.relion_pipeliner("--addJob", "External", "--addJobOptions", words)
    return "External/job006/"


def start(pipeline: Pipeline, job: str, behaviour: str) -> "subprocess.Popen[bytes]":
    """Let RELION run the job, and come back when the stand-in is at work or has ended."""
    folder, story = pipeline.directory / job, pipeline.directory / job / "gem_progress.jsonl"
    story.unlink(missing_ok=True)
    environment = os.environ | {
        "PATH": f"{pipeline.directory / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "GEM_FAKE": behaviour,
    }
    command = ["relion_pipeliner", "--RunJobs", job, "--sec_wait_after", "1"]
    with (folder.parent / "pipeliner.log").open("a") as log:
        process = subprocess.Popen(command, cwd=pipeline.directory, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + SECONDS
    while not story.exists() or "Standing in" not in story.read_text():
        assert time.monotonic() < deadline, pipeline.log(job)
        time.sleep(0.05)
    return process


def run(pipeline: Pipeline, job: str, behaviour: str) -> int:
    """Let RELION run the job to its end; return the status that RELION gives it."""
    assert start(pipeline, job, behaviour).wait(SECONDS) == 0
    return pipeline.status(job)


def markers(pipeline: Pipeline, job: str) -> list[str]:
    return sorted(path.name for path in (pipeline.directory / job).glob("RELION_JOB_*"))


def process_of(pipeline: Pipeline, job: str) -> int:
    return int((pipeline.directory / job / ".gem_lock").read_text().split()[1])


@pytest.mark.parametrize("how", ["abort", "failure", "memory", "kill", "warning"])
def test_an_end_is_seen_and_the_job_continued(pipeline: Pipeline, job: str, how: str) -> None:
    folder = pipeline.directory / job
    if how in ("failure", "memory"):
        status = run(pipeline, job, "crash" if how == "failure" else "memory")
    else:
        process = start(pipeline, job, "patient")
        assert pipeline.status(job) == RUNNING
        if how == "abort":
            (folder / "RELION_JOB_ABORT_NOW").touch()
        else:
            number = signal.SIGKILL if how == "kill" else signal.SIGUSR1
            os.kill(process_of(pipeline, job), number)
        assert process.wait(SECONDS) == 0
        status = pipeline.status(job)
    is_abort = how in ("abort", "warning")
    assert status == (ABORTED if is_abort else FAILURE)
    assert markers(pipeline, job) == [f"RELION_JOB_EXIT_{'ABORTED' if is_abort else 'FAILURE'}"]
    assert ("gem-external: aborted:" if is_abort else "gem-external: error:") in (folder / "run.err").read_text()
    assert run(pipeline, job, "") == SUCCESS
    assert markers(pipeline, job) == ["RELION_JOB_EXIT_SUCCESS"]
    assert all((folder / name).is_file() for name in ALL_RESULTS)
    edges = pipeline.tables()["pipeline_output_edges"]
    assert f"{job}run_class001.mrc" in set(edges["rlnPipeLineEdgeToNode"])


@pytest.mark.parametrize("how", ["continue", "overwrite"])
def test_an_aborted_job_goes_on_from_its_checkpoint_unless_it_is_overwritten(
    pipeline: Pipeline, job: str, how: str
) -> None:
    folder = pipeline.directory / job
    process = start(pipeline, job, "patient later")
    deadline = time.monotonic() + SECONDS
    while not (folder / FOLDER / "half1.npz").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (folder / "RELION_JOB_ABORT_NOW").touch()
    assert process.wait(SECONDS) == 0
    assert pipeline.status(job) == ABORTED
    if how == "overwrite":
        pipeline.relion_pipeliner("--RunJobs", job, "--sec_wait_after", "1", "--overwrite_jobs")
    else:
        assert run(pipeline, job, "") == SUCCESS
    assert pipeline.status(job) == SUCCESS
    assert ("Half 1: from the checkpoint" in (folder / "run.out").read_text()) == (how == "continue")
    assert not (folder / FOLDER).exists()


def test_a_finished_job_that_fails_when_it_is_continued_keeps_its_results(pipeline: Pipeline, job: str) -> None:
    folder = pipeline.directory / job
    assert run(pipeline, job, "") == SUCCESS
    before = {name: (folder / name).read_bytes() for name in ALL_RESULTS}
    assert run(pipeline, job, "crash") == FAILURE
    assert markers(pipeline, job) == ["RELION_JOB_EXIT_FAILURE"]
    assert {name: (folder / name).read_bytes() for name in ALL_RESULTS} == before


def test_relions_cleaning_takes_nothing_of_ours(pipeline: Pipeline, job: str) -> None:
    assert run(pipeline, job, "") == SUCCESS
    before = {path.name for path in (pipeline.directory / job).iterdir()}
    for how in ("--gentle_clean", "--harsh_clean"):
        pipeline.relion_pipeliner(how, "6")
        assert {path.name for path in (pipeline.directory / job).iterdir()} == before
        assert pipeline.status(job) == SUCCESS
    pipeline.relion_pipeliner("--check_job_completion")
    assert pipeline.status(job) == SUCCESS
