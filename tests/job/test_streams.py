"""Standard output or standard error closed from the start: the exit code and the marker are those of the run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.job.conftest import JOB, REPOSITORY, standing_markers
from tests.job.project import Project


def job(words: str, closed: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = f"exec {sys.executable} -m relion_external.job {words} {closed}"
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, closed: str):
    version = job("--version", closed, tmp_path)
    assert version.returncode == 0
    assert ("gem-external" in version.stdout) == (closed == "2>&-")
    assert version.stderr == ""
    refused = job("--o External/job001/ --no_such_option 5", closed, tmp_path)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert standing_markers(tmp_path / "External/job001") == ["RELION_JOB_EXIT_FAILURE"]


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_whole_run_with_a_closed_stream(project: Project, start: Callable[..., "subprocess.Popen[str]"], closed: str):
    project.write()
    process = start(closed, behaviour="")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert standing_markers(JOB) == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.parametrize("words", [["--help"], ["check", "--help"], ["--version"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, words: list[str]):
    """As in ``gem-external --help | head -1``."""
    program = "import time; time.sleep(0.3); from relion_external.job import main; import sys; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), said) == (0, b"")
