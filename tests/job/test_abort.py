"""Abort: RELION's request and the signals of a user or a queueing system end a real process, at once and cleanly."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.job.conftest import JOB, names_in, standing_markers
from tests.job.project import Project

Start = Callable[..., "subprocess.Popen[str]"]
SECONDS = 60  # far above what an abort takes; only a hang is meant to meet it


def wait_until_busy(process: "subprocess.Popen[str]") -> None:
    """Read the log until the science has begun; a log whose lines are held back would never say so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Standing in"):
            return
    pytest.fail(f"the job ended too early: {process.stderr.read() if process.stderr else ''}")


def assert_aborted(process: "subprocess.Popen[str]", reason: str) -> None:
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_ABORTED"]
    assert not (JOB / "RELION_JOB_ABORT_NOW").exists()
    assert reason in err
    assert "Traceback" not in err
    assert names_in(JOB) == {"RELION_JOB_EXIT_ABORTED"}


@pytest.mark.parametrize("behaviour", ["patient", "stuck"])
def test_relions_request(project: Project, start: Start, behaviour: str):
    """'stuck' never asks whether to go on, as inside one long call of a numerical library."""
    project.write()
    process = start(behaviour=behaviour)
    wait_until_busy(process)
    (JOB / "RELION_JOB_ABORT_NOW").touch()
    assert_aborted(process, "RELION_JOB_ABORT_NOW")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(project: Project, start: Start, number: signal.Signals):
    project.write()
    process = start(behaviour="patient")
    wait_until_busy(process)
    process.send_signal(number)
    assert_aborted(process, number.name)


def test_a_signal_inside_one_long_call(project: Project, start: Start):
    project.write()
    process = start(behaviour="stuck")
    wait_until_busy(process)
    process.send_signal(signal.SIGTERM)
    assert_aborted(process, "SIGTERM")


def test_an_abort_keeps_the_results_of_an_earlier_run(project: Project, start: Start):
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "run_class001.mrc").write_text("an earlier map")
    (JOB / "gem_config.json").write_text("{}")
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    process = start(behaviour="patient")
    wait_until_busy(process)
    assert standing_markers(JOB) == [], "the marker of the earlier run would end this one in RELION's eyes"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert (JOB / "run_class001.mrc").read_text() == "an earlier map"
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_ABORTED"]


def test_a_request_that_came_before_the_start_is_an_old_one(project: Project, start: Start):
    project.write()
    JOB.mkdir(parents=True)
    request = JOB / "RELION_JOB_ABORT_NOW"
    request.touch()
    os.utime(request, (time.time() - 10,) * 2)
    process = start(behaviour="")
    process.communicate(timeout=SECONDS)
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_SUCCESS"]


def test_a_request_while_the_program_loads_is_heard(project: Project, start: Start):
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    process = start(behaviour="", before=f"touch {JOB}/RELION_JOB_ABORT_NOW; ")
    assert_aborted(process, "RELION_JOB_ABORT_NOW")


def test_a_log_that_nobody_reads_does_not_end_the_run(project: Project, start: Start):
    project.write()
    process = start(behaviour="")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=SECONDS) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_SUCCESS"]


def test_an_interrupt_at_relions_own_terminal_does_not_reach_the_job(project: Project, start: Start):
    """The shell that RELION uses ignores the interrupt for jobs in the background."""
    project.write()
    process = start(behaviour="patient", before="trap '' INT; ")
    wait_until_busy(process)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None
    process.terminate()
    assert_aborted(process, "SIGTERM")
