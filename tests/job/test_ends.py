"""How a run can end, and what it leaves each time: the rows of docs/reliability.md that no other file tests."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gem_plugin.errors import JobAborted
from relion_external.file_names import ALL_RESULTS, PROGRESS
from relion_external.markers import AbortSwitch, ExitMarkers
from tests.job.conftest import JOB, Run, standing_markers
from tests.job.project import Project
from tests.job.test_abort import SECONDS, assert_aborted, wait_until_busy

RunJob = Callable[..., Run]
Start = Callable[..., "subprocess.Popen[str]"]
FAILURE = ["RELION_JOB_EXIT_FAILURE"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_killed_run_is_shown_as_failed(project: Project, start: Start, number: signal.Signals):
    """As by kill -9, by the system for want of memory, by a crash in a library, by a disk lost under a mapped file."""
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    process = start(behaviour="patient")
    wait_until_busy(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == -number
    assert standing_markers(JOB) == FAILURE
    assert {path.name for path in JOB.iterdir()} == {*FAILURE, PROGRESS}
    assert [line for line in err.splitlines() if line.startswith("gem-external: error: the run was killed")]


def test_a_run_that_was_killed_with_its_guardian_runs_again(project: Project, start: Start):
    """As by a cluster that kills a whole job: nobody is left to write a marker, and nobody is kept out."""
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    (guardian,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(guardian), signal.SIGKILL)
    process.kill()
    process.communicate(timeout=SECONDS)
    assert standing_markers(JOB) == []
    assert (JOB / ".gem_lock").exists()
    again = start(behaviour="")
    assert (again.communicate(timeout=SECONDS)[1], again.returncode) == ("", 0)
    assert {path.name for path in JOB.iterdir()} == {*ALL_RESULTS, "RELION_JOB_EXIT_SUCCESS", PROGRESS}


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_a_warning_of_the_queueing_system_ends_a_run(project: Project, start: Start, number: signal.Signals):
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    process.send_signal(number)
    assert_aborted(process, number.name)


def test_a_warning_leaves_time_for_a_checkpoint(tmp_path: Path):
    switch = AbortSwitch(ExitMarkers(tmp_path), poll_in_seconds=0.01, grace_in_seconds=60, state_grace_in_seconds=60)
    switch.keep_state_first()
    with switch.watching():
        assert not switch.wants_state
        switch.state_was_kept()
        switch.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        assert switch.wants_state
        switch.check()
        switch.state_was_kept()
        assert not switch.wants_state
        with pytest.raises(JobAborted, match="SIGUSR1"):
            switch.check()


def wait_for_abort(switch: AbortSwitch) -> None:
    for _ in range(500):
        switch.check()
        time.sleep(0.01)


def test_a_warning_does_not_wait_for_ever_for_a_checkpoint(tmp_path: Path):
    switch = AbortSwitch(ExitMarkers(tmp_path), poll_in_seconds=0.01, grace_in_seconds=60, state_grace_in_seconds=0.05)
    switch.keep_state_first()
    with switch.watching():
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(JobAborted, match="SIGUSR1"):
            wait_for_abort(switch)


def test_other_signals_do_not_wait_for_a_checkpoint(tmp_path: Path):
    switch = AbortSwitch(ExitMarkers(tmp_path), grace_in_seconds=60)
    switch.keep_state_first()
    with switch.watching():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(JobAborted, match="SIGTERM"):
            switch.check()
