"""Fixtures of the job tests: a project directory to run in, and the job as RELION would start it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relion_external.job import main
from tests.job import fake
from tests.job.project import Project, make_project

JOB = Path("External/job012")
REPOSITORY = Path(__file__).resolve().parents[2]
MARKERS = ("RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED")


@dataclass
class Run:
    """How a job ended."""

    exit_code: int
    out: str
    err: str
    markers: list[str]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("gem-external: error:")]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is not written yet; it is the current directory."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the science by the stand-in."""
    # first where it was imported to: an import after the next line would keep the stand-in for the tests that follow
    monkeypatch.setattr("relion_external.check.plan", fake.plan)
    monkeypatch.setattr("gem_plugin.reconstruct.plan", fake.plan)
    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", fake.reconstruct)
    monkeypatch.setattr("relion_external.outputs.write_report", fake.write_report)


def names_in(directory: Path) -> set[str]:
    """What lies in a job directory besides the story of the last run and what that had done, if it did not succeed."""
    return {path.name for path in directory.iterdir()} - {"gem_progress.jsonl", "gem_checkpoint"}


def standing_markers(directory: Path) -> list[str]:
    return [name for name in MARKERS if (directory / name).exists()]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run the job in this process with more words on its command line; the inputs are there unless replaced."""

    def run_job(*words: str, parts: str = "Refine3D/job005/run_data.star", job: Path = JOB) -> Run:
        capfd.readouterr()
        exit_code = main(["--o", f"{job}/", "--in_parts", parts, "--j", "1", *words])
        captured = capfd.readouterr()
        return Run(exit_code, captured.out, captured.err, standing_markers(job))

    return run_job


def _listen_to_interrupts() -> None:
    """Tests in a background are deaf to SIGINT, those under nohup to SIGHUP, and so would be what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the job with the stand-in as a process of its own."""

    def start_job(*words: str, behaviour: str, before: str = "") -> subprocess.Popen[str]:
        command = f"{before}exec {sys.executable} -m tests.job.fake --o {JOB}/ --in_parts Refine3D/job005/run_data.star"
        return subprocess.Popen(
            ["/bin/sh", "-c", " ".join([command, *words])],
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                "GEM_FAKE": behaviour,
            },
            stdin=subprocess.DEVNULL,
            preexec_fn=_listen_to_interrupts,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_job
