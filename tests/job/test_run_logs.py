"""run.out tells the story in order, run.err is empty on success, gem_progress.jsonl says the same to scripts."""

import json
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gem_plugin.config import ReconstructionConfig
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.reconstruction import Reconstruction
from tests.job import fake
from tests.job.conftest import JOB, Run
from tests.job.project import Project
from tests.job.test_abort import SECONDS, wait_until_busy

RunJob = Callable[..., Run]
Start = Callable[..., "subprocess.Popen[str]"]
WARNING = "the stand-in has a doubt"


def story(directory: Path = JOB) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "gem_progress.jsonl").read_text().splitlines()]


def doubtful(particles: Particles, config: ReconstructionConfig, *, monitor: Monitor, **others: Any) -> Reconstruction:
    """The stand-in, which warns of one thing three times, and so does a library."""
    for _ in range(3):
        monitor.warn(WARNING)
        warnings.warn("old driver", UserWarning, stacklevel=1)
    return fake.reconstruct(particles, config, monitor=monitor, **others)


@pytest.mark.usefixtures("_stand_in")
def test_run_out_tells_the_story_in_order(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", doubtful)
    warnings.simplefilter("default")  # as outside of tests
    project.write()
    result = run()
    assert (result.exit_code, result.err) == (0, "")
    in_order = (
        "gem-external ",
        "Versions: ",
        "Command: ",
        "Settings:",
        "A stand-in is run, in no time.",
        f"WARNING: {WARNING}",
        "Note: a library says: UserWarning: old driver",
        "Standing in (600 steps)",
        "Half 1: reading (",
        "Half 2: reading (",
        fake.STATEMENT,
        f"Map: {JOB}/run_class001.mrc",
        f"Report: {JOB}/logfile.pdf",
        "Done in ",
    )
    places = []
    for words in in_order:
        assert sum(line.startswith(words) for line in result.out.splitlines()) == 1, words
        places.append(result.out.index(words))
    assert places == sorted(places)
    assert result.out.splitlines()[-1].startswith("Done in ")


@pytest.mark.usefixtures("_stand_in")
def test_scripts_are_told_the_same(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", doubtful)
    warnings.simplefilter("default")
    project.write()
    assert run("--seed", "7").exit_code == 0
    lines = story()
    assert lines[0]["event"] == "start"
    assert "--seed 7" in lines[0]["command"]
    assert lines[1]["event"] == "settings"
    assert lines[1]["options"]["seed"] == 7
    assert [line["message"] for line in lines if line["event"] == "warning"] == [WARNING]
    assert [line["stage"] for line in lines if line["event"] == "stage"] == (
        ["Standing in", "Half 1: reading", "Half 2: reading"]
    )
    of_half_1 = next(line for line in lines if line["event"] == "progress" and line["stage"] == "Half 1: reading")
    assert (of_half_1["done"], of_half_1["unit"], of_half_1["loss"]) == (of_half_1["total"], "particles", 1.0)
    assert any(line["event"] == "note" and line["message"] == fake.STATEMENT for line in lines)
    assert (lines[-1]["event"], lines[-1]["outcome"], lines[-1]["exit_code"]) == ("end", "success", 0)
    # the next run's file is its own
    assert run("--seed", "8").exit_code == 0
    assert [line["event"] for line in story()].count("start") == 1
    assert "--seed 8" in story()[0]["command"]


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("words", [[], ["--no_such_option", "5"]])
def test_a_failure_is_the_last_word(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Also of a run that failed before it began, in the place of what an earlier run said."""
    project.write()
    assert run().exit_code == 0
    monkeypatch.setenv("GEM_FAKE", "memory")
    result = run(*words)
    assert result.exit_code == 1
    last = story()[-1]
    assert (last["event"], last["outcome"], last["exit_code"]) == ("end", "failure", 1)
    assert f"gem-external: {last['message']}" == result.errors[0]


@pytest.mark.usefixtures("_stand_in")
def test_a_crash_leaves_one_readable_sentence_above_the_traceback(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write()
    monkeypatch.setenv("GEM_FAKE", "crash")
    lines = run().err.splitlines()
    assert lines[0].startswith("gem-external: error: this is a defect of gem-external")
    assert lines[0].endswith("ValueError: the stand-in was told to crash")
    assert lines[1].startswith("Traceback")
    assert sum(line.startswith("gem-external") for line in lines) == 1
    assert story()[-1]["message"] in lines[0]


@pytest.mark.usefixtures("_stand_in")
def test_another_jobs_folder_gets_no_file(project: Project, run: RunJob) -> None:
    project.write()
    assert run(job=Path("Refine3D/job005")).exit_code == 1
    assert not Path("Refine3D/job005/gem_progress.jsonl").exists()


@pytest.mark.parametrize("behaviour", ["patient", "stuck"])
def test_an_abort_is_told(project: Project, start: Start, behaviour: str) -> None:
    """Also when the run does not ask whether to go on, and its process is ended from outside."""
    project.write()
    process = start(behaviour=behaviour)
    wait_until_busy(process)
    assert any(line["event"] == "stage" and line["stage"] == "Standing in" for line in story())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert (story()[-1]["event"], story()[-1]["outcome"]) == ("end", "aborted")
    assert "SIGTERM" in story()[-1]["message"]


def test_a_killed_run_has_no_end(project: Project, start: Start) -> None:
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert story()[0]["event"] == "start"
    assert all(line["event"] != "end" for line in story())
