"""Two runs in one directory: the second is refused and the first is not disturbed; a killed one blocks nobody."""

import contextlib
import errno
import os
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gem_plugin.errors import JobAborted, OutputError
from relion_external.file_names import ALL_RESULTS, MASK
from relion_external.lock import LOCK_NAME, DirectoryInUseError, DirectoryLock, _changes
from relion_external.outputs import move_into_place
from tests.job.conftest import JOB, Run, names_in
from tests.job.project import Project
from tests.job.test_abort import assert_aborted, wait_until_busy

pytestmark = pytest.mark.usefixtures("_stand_in")
RunJob = Callable[..., Run]
Start = Callable[..., "subprocess.Popen[str]"]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("words", [[], ["--no_such_option", "5"]])
def test_a_second_run_is_refused(project: Project, start: Start, run: RunJob, words: list[str]):
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    before = names(JOB)
    assert len([name for name in before if name.startswith(".gem_partial_")]) == 1
    second = run(*words)
    assert (second.exit_code, second.markers) == (1, [])
    assert len(second.errors) == len(second.err.splitlines()) == 1
    assert f"process {process.pid} on {platform.node()}" in second.errors[0]
    assert names(JOB) == before
    process.terminate()
    assert_aborted(process, "SIGTERM")


def test_a_killed_run_blocks_nobody_and_its_leavings_go(project: Project, start: Start, run: RunJob):
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    process.kill()
    assert run().exit_code == 0, "at once, while the guardian of the killed run may be at work"
    process.communicate()
    assert names_in(JOB) == {*ALL_RESULTS, "RELION_JOB_EXIT_SUCCESS"}


def test_a_disk_without_locks_is_good_enough(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch):
    without_locks(monkeypatch)
    project.write()
    (JOB / ".gem_partial_1_of_another").mkdir(parents=True)
    assert run().exit_code == 0
    assert (JOB / ".gem_partial_1_of_another").exists(), "it may be at work"


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


@contextlib.contextmanager
def beating(path: Path, owner: str) -> Iterator[None]:
    """A lock file whose owner lives."""
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.01):
            number += 1
            path.write_text(f"{owner}\nbeat {number}\n")

    path.write_text(f"{owner}\n")
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("has_locks", [True, False])
def test_an_owner_on_another_machine_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool):
    """On some network disks a lock holds on its own machine alone."""
    monkeypatch.setattr("relion_external.lock.PATIENCE_S", 0.5)
    if not has_locks:
        without_locks(monkeypatch)
    path, owner = tmp_path / LOCK_NAME, "process 12 on another-machine"
    with beating(path, owner), DirectoryLock() as lock, pytest.raises(DirectoryInUseError, match=owner):
        lock.take(tmp_path)
    assert path.exists(), "it is the other's"
    with DirectoryLock() as lock:  # it is dead by now
        lock.take(tmp_path)
        assert f"process {os.getpid()} on {platform.node()}" in path.read_text()
        assert lock.is_held == has_locks
    assert not path.exists()


def test_a_dead_owner_on_this_machine_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relion_external.lock._changes", lambda *_: pytest.fail("half a minute was lost"))
    (tmp_path / LOCK_NAME).write_text(f"process 1 on {platform.node()}\n")
    with DirectoryLock() as lock:  # the system would keep a lock of the living
        lock.take(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    without_locks(monkeypatch)
    (tmp_path / LOCK_NAME).write_text(f"process {ended.pid} on {platform.node()}\n")
    with DirectoryLock() as lock:
        lock.take(tmp_path)


@pytest.mark.parametrize("is_ours", [True, False])
def test_without_locks_a_living_process_is_the_owner_if_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
):
    """Process numbers are given again: one that lives may be another program."""
    monkeypatch.setattr("relion_external.lock.PATIENCE_S", 0.5)
    without_locks(monkeypatch)
    path, owner = tmp_path / LOCK_NAME, f"process {os.getppid()} on {platform.node()}"
    path.write_text(owner + "\n")
    with DirectoryLock() as lock:
        if is_ours:
            with beating(path, owner), pytest.raises(DirectoryInUseError, match=owner):
                lock.take(tmp_path)
        else:
            lock.take(tmp_path)


def test_an_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relion_external.lock.BEAT_S", 0.01)
    with DirectoryLock() as lock:
        lock.take(tmp_path)
        assert _changes(tmp_path / LOCK_NAME, lambda: None)


def test_an_abort_while_an_owner_is_watched(tmp_path: Path):
    def abort() -> None:
        raise JobAborted("ended")

    (tmp_path / LOCK_NAME).write_text("process 12 on another-machine\n")
    with DirectoryLock() as lock, pytest.raises(JobAborted):
        lock.take(tmp_path, abort)
    assert (tmp_path / LOCK_NAME).read_text() == "process 12 on another-machine\n"


def test_two_jobs_in_one_project_do_not_meet(project: Project, start: Start, run: RunJob):
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    assert run(job=Path("External/job013")).exit_code == 0
    assert names_in(Path("External/job013")) == {*ALL_RESULTS, "RELION_JOB_EXIT_SUCCESS"}
    process.terminate()
    assert_aborted(process, "SIGTERM")


def test_a_result_that_has_gone_is_noticed_before_anything_is_moved(tmp_path: Path):
    folder = tmp_path / "partial"
    folder.mkdir()
    for name in ALL_RESULTS[1:]:
        (folder / name).touch()
    with pytest.raises(OutputError, match=ALL_RESULTS[0]):
        move_into_place(folder, tmp_path, mask_was_given=False)
    assert names(tmp_path) == {"partial"}
    (folder / ALL_RESULTS[0]).touch()
    (folder / MASK).unlink()
    move_into_place(folder, tmp_path, mask_was_given=True)
    assert names(tmp_path) == {"partial", *ALL_RESULTS} - {MASK}
