"""Faults put into jobs, some of benchmarks/faults.py's and soak.py's: nothing lost, nothing left, the right marker."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import faults
import soak
from fault_layer import FaultLayer
from tiny_job import SUCCESS, Ended, TinyJob, make_tiny_project

from gem_plugin.errors import InputError
from relion_external.file_names import ALL_RESULTS, PROGRESS
from relion_external.job import main
from tests.job.conftest import JOB, Run, standing_markers
from tests.job.project import Project

RunJob = Callable[..., Run]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.slow
def test_killed_jobs_are_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tally = faults.faults(n_kills=3, n_disks=0, seed=5, workdir=tmp_path, only=("kills",))
    assert tally.defects == []
    assert tally.n_cases["kill -9"] == 3
    assert sum(number for end, number in tally.ends.items() if "exit code -9" in end) > 0


# mrcfile leaves a file that it failed to write to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("part", ["disks", "reads", "aborts", "changed", "clocks"])
def test_jobs_that_meet_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str):
    monkeypatch.chdir(tmp_path)
    tally = faults.faults(n_kills=0, n_disks=8, seed=3, workdir=tmp_path, only=(part,))
    assert tally.defects == []
    assert sum(tally.n_cases.values()) >= 4


def test_the_judge_sees_a_wrong_marker_a_damaged_and_a_lost_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TinyJob, "run", lambda job: Ended(0, ""))
    job, tally = TinyJob(tmp_path), faults.Tally({"run_class001.mrc": b"a map", "gem_half1.mrc": b"another"})
    (tmp_path / "run_class001.mrc").write_bytes(b"half a m")
    tally.ended("case", job, Ended(0, ""), (0,), SUCCESS)
    assert [words in defect for words, defect in zip(("markers []", "damaged"), tally.defects, strict=True)] == [
        True
    ] * 2
    (tmp_path / "run_class001.mrc").write_bytes(b"a map")
    (tmp_path / "RELION_JOB_EXIT_SUCCESS").touch()
    (tmp_path / ".left").touch()
    tally.continued("case", job)
    assert "gem_half1.mrc" in tally.defects[2]
    assert ".left" in tally.defects[3]


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("has_results", [False, True])
def test_a_disk_without_room_takes_a_marker(project: Project, run: RunJob, has_results: bool):
    """The lock's file is renamed to the marker: that needs no room."""
    project.write()
    JOB.mkdir(parents=True)
    before = {}
    if has_results:
        run()
        before = {name: (JOB / name).read_bytes() for name in ALL_RESULTS}
    with FaultLayer(JOB, ("make", "write", "sync"), errno.ENOSPC, after=2).installed() as layer:
        result = run()
    assert layer.n_failed > 2
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert os.strerror(errno.ENOSPC) in result.errors[0]
    assert {name: (JOB / name).read_bytes() for name in ALL_RESULTS if (JOB / name).exists()} == before
    assert {path.name for path in JOB.iterdir()} <= {*before, PROGRESS, "RELION_JOB_EXIT_FAILURE"}


@pytest.mark.usefixtures("_stand_in")
def test_a_disk_that_takes_nothing_at_all_is_told(project: Project, run: RunJob):
    project.write()
    JOB.mkdir(parents=True)
    with FaultLayer(JOB, ("make", "write", "sync", "rename"), errno.EIO).installed():
        result = run()
    assert (result.exit_code, result.markers) == (1, [])
    assert "RELION_JOB_EXIT_FAILURE cannot be written" in result.err
    assert "mark it as failed" in result.err


def test_logs_on_a_full_disk_end_no_run(project: Project, start: Start):
    project.write()
    process = start(">/dev/full 2>/dev/full", behaviour="")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), "enough memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.mrcs"), "a.mrcs: Too many open files"),
        (OSError(errno.ESTALE, "Stale file handle", "b.mrcs"), "b.mrcs: Stale file handle"),
    ],
)
def test_what_the_machine_lacks_is_no_defect_of_ours(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", fail)
    project.write()
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert words in result.errors[0]
    assert len(result.err.splitlines()) == 1


@pytest.mark.usefixtures("_stand_in")
def test_what_fails_after_an_abort_was_asked_for_is_an_abort(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
):
    """As when a queueing system ends all processes of a team, and the first hears of the others' end at once."""

    def fail(*_: object, **__: object) -> None:
        os.kill(os.getpid(), 15)
        raise InputError("process 2 of 2 has ended")

    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", fail)
    project.write()
    result = run()
    assert (result.exit_code, result.markers) == (2, ["RELION_JOB_EXIT_ABORTED"])
    assert "SIGTERM" in result.err
    assert "process 2 of 2 has ended" in result.err


@pytest.mark.usefixtures("_stand_in")
def test_results_and_their_names_are_on_disk_before_the_marker(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
):
    """Each file before it is renamed, the folder of the names before success is told, and after it."""
    project.write()
    events: list[str] = []
    sync, rename = os.fsync, os.replace

    def log_sync(descriptor: int) -> None:
        events.append("sync " + os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def log_rename(source: Path, target: Path) -> None:
        events.append(f"rename {os.path.realpath(source)} to {target}")
        rename(source, target)

    touch = Path.touch

    def log_touch(path: Path, *rest: object, **named: object) -> None:
        events.append(f"touch {path}")
        touch(path)

    monkeypatch.setattr("os.fsync", log_sync)
    monkeypatch.setattr("os.replace", log_rename)
    monkeypatch.setattr(Path, "touch", log_touch)
    assert run().exit_code == 0
    moved = [event for event in events if event.startswith("rename") and event.endswith(tuple(ALL_RESULTS))]
    into_place = {event.split(" to ")[1]: event for event in moved if f"to {JOB}/{Path(event).name}" in event}
    assert {Path(name).name for name in into_place} == set(ALL_RESULTS)
    for name, event in into_place.items():
        source = event.split()[1]
        assert events.index(f"sync {source}") < events.index(event), name
    last = max(events.index(event) for event in into_place.values())
    assert events[last].endswith("RELION_OUTPUT_NODES.star"), "the list of nodes comes last"
    folder = f"sync {os.path.realpath(JOB)}"
    assert events[last + 1 :] == [folder, f"touch {JOB}/RELION_JOB_EXIT_SUCCESS", folder]


@pytest.mark.usefixtures("_stand_in")
def test_ten_jobs_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    figures, defects = soak.soak(10, 0, 1, tmp_path)
    assert [defect for defect in defects if not defect.startswith("memory")] == []  # of ten jobs it says nothing
    assert figures["jobs"] == {"in a row: exit code 0, RELION_JOB_EXIT_SUCCESS": 10}


@pytest.mark.usefixtures("_stand_in")
def test_the_soak_sees_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    leaked: list[int] = []

    def leak(words: list[str]) -> int:
        leaked.append(os.open(os.devnull, os.O_RDONLY))
        return main(words)

    monkeypatch.setattr("tiny_job.main", leak)
    _, defects = soak.soak(7, 0, 1, tmp_path)
    for descriptor in leaked:
        os.close(descriptor)
    assert any(defect.startswith("files: ") for defect in defects)


def test_the_tiny_project_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    make_tiny_project(tmp_path)
    assert main(["check", *TinyJob().words()]) == 0
