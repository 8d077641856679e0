"""Two runs in one directory: the second is refused and the first is not disturbed; a killed one blocks nobody."""

import errno
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gem_plugin.errors import OutputError
from relion_external.file_names import ALL_RESULTS, MASK
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
    process.communicate()
    assert ".gem_lock" in names(JOB)
    assert run().exit_code == 0
    assert names_in(JOB) == {*ALL_RESULTS, "RELION_JOB_EXIT_SUCCESS"}


def test_a_disk_without_locks_is_good_enough(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    project.write()
    (JOB / ".gem_partial_1_of_another").mkdir(parents=True)
    assert run().exit_code == 0
    assert (JOB / ".gem_partial_1_of_another").exists(), "it may be at work"


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
