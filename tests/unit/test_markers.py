"""Exit markers: exactly one, and the wish to abort is heard."""

import os
import signal
import time
from pathlib import Path

import pytest

from gem_plugin.errors import JobAborted
from relion_external.markers import ABORT_REQUEST, AbortSwitch, ExitMarkers, Outcome


def standing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("RELION_JOB_*"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_exactly_one_marker_stands_whatever_stood_before(tmp_path: Path, outcome: Outcome):
    for stale in (*Outcome,):
        (tmp_path / stale.file_name).touch()
    (tmp_path / ABORT_REQUEST).touch()
    ExitMarkers(tmp_path).finish(outcome)
    assert standing(tmp_path) == [f"RELION_JOB_EXIT_{outcome.name}"]


def test_the_first_outcome_stands(tmp_path: Path):
    markers = ExitMarkers(tmp_path)
    assert markers.finish(Outcome.SUCCESS) is Outcome.SUCCESS
    assert markers.finish(Outcome.ABORTED) is Outcome.SUCCESS
    assert standing(tmp_path) == ["RELION_JOB_EXIT_SUCCESS"]


def test_exit_codes():
    assert [outcome.exit_code for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED)] == [0, 1, 2]


def test_clearing_removes_markers_and_request_alone(tmp_path: Path):
    for name in ("RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", ABORT_REQUEST, "run.out", "job.star"):
        (tmp_path / name).touch()
    ExitMarkers(tmp_path).clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.star", "run.out"]


@pytest.mark.parametrize(("age_in_seconds", "stays"), [(0, True), (86400, False)])
def test_a_request_since_the_start_of_this_process_is_not_stale(tmp_path: Path, age_in_seconds: float, stays: bool):
    request = tmp_path / ABORT_REQUEST
    request.touch()
    os.utime(request, (time.time() - age_in_seconds,) * 2)
    (tmp_path / "RELION_JOB_EXIT_SUCCESS").touch()
    ExitMarkers(tmp_path).clear_stale()
    assert standing(tmp_path) == ([ABORT_REQUEST] if stays else [])


def wait_for_abort(switch: AbortSwitch) -> None:
    for _ in range(500):
        switch.check()
        time.sleep(0.01)


def test_relions_request_raises(tmp_path: Path):
    switch = AbortSwitch(ExitMarkers(tmp_path), poll_in_seconds=0.01, grace_in_seconds=60)
    with switch.watching():
        switch.check()
        (tmp_path / ABORT_REQUEST).touch()
        with pytest.raises(JobAborted, match=ABORT_REQUEST):
            wait_for_abort(switch)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_raises_and_its_handler_is_restored(tmp_path: Path, number: signal.Signals):
    before = signal.getsignal(number)
    switch = AbortSwitch(ExitMarkers(tmp_path), grace_in_seconds=60)
    with switch.watching():
        os.kill(os.getpid(), number)
        with pytest.raises(JobAborted, match=number.name):
            wait_for_abort(switch)
    assert signal.getsignal(number) is before


def test_an_interrupt_that_the_shell_ignores_stays_ignored(tmp_path: Path):
    """RELION starts jobs in the background of a shell: Ctrl-C in the GUI's terminal must not end them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        switch = AbortSwitch(ExitMarkers(tmp_path), grace_in_seconds=60)
        with switch.watching():
            os.kill(os.getpid(), signal.SIGINT)
            switch.check()
    finally:
        signal.signal(signal.SIGINT, before)
