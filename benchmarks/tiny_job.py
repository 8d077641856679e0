"""A job that takes seconds, for benchmarks/faults.py and soak.py: 12 particles of 24 px, two fits of a few steps."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from relion_external import checkpoint_folder
from relion_external.file_names import ALL_RESULTS, PROGRESS
from relion_external.job import main
from relion_external.progress import PlainProgress
from tests.job.project import make_project

ROOT = Path(__file__).resolve().parents[1]
MARKERS = ("RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED")
SUCCESS, FAILURE, ABORTED = ([name] for name in MARKERS)
TABLE = "Refine3D/job005/run_data.star"
STACK = Path("Extract/job003/particles.mrcs")
SETTINGS = ("--n_gaussians", "20", "--steps", "40", "--j", "1")
LIMIT_S = 600
OFTEN = """import sys
from relion_external import checkpoint_folder, job
checkpoint_folder.INTERVAL_S = 0.0
sys.exit(job.main(sys.argv[1:]))"""  # a run that keeps a checkpoint after each step, as others do after minutes


def keeping_often() -> contextlib.AbstractContextManager[object]:
    """Let runs in this process keep a checkpoint after each step."""
    return mock.patch("relion_external.checkpoint_folder.INTERVAL_S", 0.0)


@dataclass
class Ended:
    """How a run ended."""

    exit_code: int
    err: str
    out: str = ""


@dataclass
class TinyJob:
    """One job directory of a project; paths are relative to the project, which is the current directory."""

    directory: Path = Path("External/job012")

    def words(self) -> list[str]:
        """The command line."""
        return ["--o", f"{self.directory}/", "--in_parts", TABLE, *SETTINGS]

    def run(self) -> Ended:
        """Run it in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), keeping_often():
            exit_code = main(self.words())
        return Ended(exit_code, err.getvalue(), out.getvalue())

    def start(self) -> "subprocess.Popen[str]":
        """Run it as a process of its own; what it prints goes to files, as RELION has it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "run.out").open("a") as out:
            return subprocess.Popen(
                [sys.executable, "-c", OFTEN, *self.words()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            )

    def forget(self) -> None:
        """Remove what an earlier run would be continued from, so that the next one does everything."""
        shutil.rmtree(self.directory / checkpoint_folder.FOLDER, ignore_errors=True)

    def markers(self) -> list[str]:
        """The markers that stand."""
        return [name for name in MARKERS if (self.directory / name).exists()]

    def results(self) -> dict[str, bytes]:
        """All results that are there."""
        return {name: (self.directory / name).read_bytes() for name in ALL_RESULTS if (self.directory / name).exists()}

    def leftovers(self) -> set[str]:
        """What is there beside results, marker and logs."""
        expected = {*ALL_RESULTS, *MARKERS, PROGRESS, "run.out", "run.err"}
        return {path.name for path in self.directory.iterdir()} - expected if self.directory.exists() else set()


def make_tiny_project(directory: Path) -> None:
    """Write the project."""
    make_project(directory, n_particles=12, box_size_px=24, snr=5.0).write()


def processor_seconds(pid: int) -> float:
    """What a process has used; its end: infinite."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return float("inf")
    return float("inf") if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_used(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Wait until a process has used so much processor time, or has ended: the same moment on a busy machine."""
    while process.poll() is None and processor_seconds(process.pid) < seconds:
        time.sleep(0.005)


def stages(job: TinyJob) -> list[str]:
    """The stages of a run, in their order."""
    found: list[str] = []
    with at_stage(lambda index, name: found.append(name)):
        job.run()
    return found


@contextmanager
def at_stage(act: Callable[[int, str], object]) -> Iterator[None]:
    """Call `act` with number and name of each stage as it begins."""
    begin, number = PlainProgress.stage, iter(range(10**6))

    def stage(progress: PlainProgress, name: str, total: int, unit: str) -> None:
        begin(progress, name, total, unit)
        act(next(number), name)
        for _ in range(100 if _must_wait(act) else 0):
            progress._check_abort()  # what every step of the stage does
            time.sleep(0.05)

    with mock.patch.object(PlainProgress, "stage", stage):
        yield


def _must_wait(act: Callable[[int, str], object]) -> bool:
    return bool(getattr(act, "is_waited_for", False))
