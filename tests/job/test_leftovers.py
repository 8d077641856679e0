"""Threads and processes end with the job, however it ends: several jobs may run in one Python program."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import JobAborted
from gem_plugin.ops import engines
from relion_external.job import main, run_job
from relion_external.members import start_members
from relion_external.progress_file import ProgressFile
from tests.job.conftest import standing_markers
from tests.job.project import Project, make_project
from tests.job.test_team_job import STARTING_THE_OTHERS, environment

JOB = Path("External/job001")
N_PARTICLES, BOX = 24, 24
PATIENCE_S = 60.0
QUICK = ["--n_gaussians", "30", "--steps", "3"]
ENGINES = {
    "cpu": [],
    "images": ["--fit", "images"],
    "cuda": ["--engine", "cuda"],  # emulated; several threads read ahead
    "cuda images": ["--engine", "cuda", "--fit", "images"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, n_particles=N_PARTICLES, box_size_px=BOX, snr=1.0).write()


def arguments(project: Project, *words: str) -> list[str]:
    return ["--o", f"{JOB}/", "--in_parts", project.table, "--j", "2", *QUICK, *words]


def children() -> set[int]:
    """The processes that this one has started and that have not ended, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(number) for number in (task / "children").read_text().split()}
    return found


def files() -> list[str]:
    """What is open, but for what the system calls by number, as pipes and sockets."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue  # of the listing itself
    return sorted(
        name
        for name in found
        if name.startswith("/") and not name.startswith(("/proc/", "/dev/")) and ".ttf" not in name
    )


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    """What there is before a test is there after it, and no more; nothing waits for the collector of cycles."""
    gc.collect()
    gc.disable()
    before = set(threading.enumerate()), children(), files()
    yield
    try:
        assert {thread.name for thread in set(threading.enumerate()) - before[0]} == set()
        assert children() - before[1] == set()
        assert [name for name in files() if name not in before[2]] == []
    finally:
        gc.enable()


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words that choose an engine and a way to fit."""
    monkeypatch.setattr("gem_plugin.particle_results.PARTICLES_PER_BATCH", 2)
    if "cuda" in request.param:
        monkeypatch.setattr("gem_plugin.accumulation.batch_size_for", lambda *_: 2)
        request.getfixturevalue("emulated_gpu")
        monkeypatch.setattr(engines, "try_gpu", lambda index: "a stand-in")
    return ENGINES[request.param]


def end_in(stage: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the run end in a stage, after some of it was done; the names of its threads then."""
    seen: list[str] = []
    current = [""]

    def begin(_: ProgressFile, name: str, total: int, unit: str) -> None:
        current[0] = name

    def advance(_: ProgressFile, done: int, **figures: float) -> None:
        if stage in current[0] and done > 0:
            seen.extend(thread.name for thread in threading.enumerate())
            raise error

    monkeypatch.setattr(ProgressFile, "stage", begin)
    monkeypatch.setattr(ProgressFile, "advance", advance)
    return seen


@pytest.mark.usefixtures("_nothing_left")
@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_failed_run_leaves_nothing(project: Project, engine: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """An image that cannot be used is found while others are read ahead of it."""
    project.images[N_PARTICLES - 3, 4, 5] = np.nan
    project.write()
    assert main(arguments(project, *engine)) == 1
    assert "has 1 pixels that are NaN" in capfd.readouterr().err
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_FAILURE"]


@pytest.mark.usefixtures("_nothing_left")
@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize(
    ("stage", "error", "code"),
    [
        ("reading particles", JobAborted("enough"), 2),
        ("fitting", ValueError("a defect"), 1),
        ("comparing each particle", JobAborted("enough"), 2),
    ],
)
def test_a_run_that_ends_in_any_stage_leaves_nothing(
    project: Project, engine: list[str], monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception, code: int
) -> None:
    seen = end_in(stage, error, monkeypatch)
    assert main(arguments(project, *engine)) == code
    assert "abort-watch" in seen
    is_reading = stage != "fitting" or "images" in engine
    assert is_reading == any(name.startswith("ThreadPoolExecutor") for name in seen)


@pytest.mark.usefixtures("_nothing_left")
def test_a_finished_run_leaves_nothing(project: Project) -> None:
    assert main(arguments(project)) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("_nothing_left")
@pytest.mark.parametrize(
    ("spoilt", "error", "code"),
    [(True, None, 1), (False, JobAborted("enough"), 2), (False, None, 0)],
)
def test_a_team_leaves_nothing(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoilt: bool,
    error: Exception | None,
    code: int,
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    if spoilt:
        project.images[N_PARTICLES - 3, 4, 5] = np.nan
        project.write()
    if error is not None:
        end_in("reading particles", error, monkeypatch)
    words, before = arguments(project), children()
    with start_members(words, 2) as first:
        started = children() - before
        assert run_job(words, first) == code
    assert len(started) == 1
    assert "2 processes share the work" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_members_end_with_the_first_process(project: Project, number: signal.Signals) -> None:
    """Also when that is killed outright while they compute for long."""
    words = arguments(project, "--steps", "4000")
    words.remove("3")
    words.remove("--steps")
    command = [sys.executable, "-c", STARTING_THE_OTHERS, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdout=pipe, stderr=subprocess.DEVNULL, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "4000 steps" in line:
                break
        members = [int(pid) for pid in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
        assert members
        first.send_signal(number)
        first.stdout.close()
    deadline = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{pid}").exists() for pid in members) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in members if Path(f"/proc/{pid}").exists()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
