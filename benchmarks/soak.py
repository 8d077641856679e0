"""Tiny jobs in a row and several at a time: what grows from job to job leaks, and what is left behind stays for ever.

``PYTHONPATH=. python benchmarks/soak.py --jobs 200 --processes 20 --at_a_time 4`` writes results/soak.json and exits 1
if memory, threads, open files or children grow, if a file or a semaphore is left in the temporary folder or in shared
memory, or if one result of one job differs from the first job's. Jobs in a row are run in one process, which would keep
what they leak; those at a time are processes of their own in one project.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_results
from tiny_job import SUCCESS, TinyJob, make_tiny_project

from relion_external.file_names import REPORT

WARM_UP = 5  # jobs until caches of libraries are filled
LARGEST_GROWTH_KB = 50.0  # of the memory, a job
SHARED = Path("/dev/shm")
PDF_BYTES = 8  # "%PDF-1.4"


@dataclass(frozen=True)
class State:
    """What a process holds after a job."""

    memory_kb: int
    threads: int
    system_threads: int
    files: int
    children: int

    @classmethod
    def now(cls) -> "State":
        """Of this process."""
        words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        return cls(
            int(words["VmRSS"].split()[0]),
            threading.active_count(),
            int(words["Threads"]),
            len(os.listdir("/proc/self/fd")),
            len(children.read_text().split()) if children.exists() else 0,
        )


def names_outside(project: Path) -> set[str]:
    """Files that jobs could leave outside their project: temporary ones, shared memory, semaphores."""
    folders = (Path(tempfile.gettempdir()), SHARED)
    return {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()} - {str(project)}


@dataclass
class Soak:
    """Runs the jobs, and keeps what is wrong with them."""

    project: Path

    def __post_init__(self) -> None:
        os.chdir(self.project)
        make_tiny_project(self.project)
        self.outcomes: Counter[str] = Counter()
        self.defects: list[str] = []
        self.states: list[State] = []
        self.job = TinyJob()
        self.job.run()
        self.reference = self.job.results()
        self.reference[REPORT] = self.reference[REPORT][:PDF_BYTES]

    def in_a_row(self, number: int) -> None:
        """One after the other in this process, every other one in a directory that holds results."""
        for index in range(number):
            job = TinyJob(Path(f"External/job{100 + index // 2:03d}"))
            ended = job.run()
            self._judge("in a row", job, ended.exit_code, ended.err)
            self.states.append(State.now())
            if index % 2:
                _remove(job.directory)

    def at_a_time(self, number: int, together: int) -> None:
        """Processes of their own, several at work in one project."""
        for first in range(0, number, together):
            jobs = [TinyJob(Path(f"External/job{500 + index:03d}")) for index in range(min(together, number - first))]
            started = [(job, job.start()) for job in jobs]
            for job, process in started:
                _, err = process.communicate()
                self._judge(f"{together} at a time", job, process.returncode, err)
                _remove(job.directory)

    def _judge(self, kind: str, job: TinyJob, exit_code: int, err: str) -> None:
        self.outcomes[f"{kind}: exit code {exit_code}, {' '.join(job.markers())}"] += 1
        results = job.results()
        different = [name for name, data in self.reference.items() if _comparable(name, job, results) != data]
        if (exit_code, job.markers(), err) != (0, SUCCESS, "") or different or job.leftovers():
            self.defects.append(f"{kind}, {job.directory}: {exit_code} {different} {job.leftovers()} {err[-300:]}")

    def growth(self) -> dict[str, float]:
        """What each job in a row adds, by the slope of a line, after those that warm up."""
        states = self.states[WARM_UP:]
        if len(states) < 3:
            return {}
        number = np.arange(len(states))
        return {
            name: round(float(np.polyfit(number, [asdict(state)[name] for state in states], 1)[0]), 4)
            for name in asdict(states[0])
        }

    def judge_growth(self) -> None:
        """Compare what a process holds at the end with what it held when it was warm."""
        growth = self.growth()
        if growth and growth["memory_kb"] > LARGEST_GROWTH_KB:
            self.defects.append(f"memory grows by {growth['memory_kb']:.0f} kB a job")
        warm, last = self.states[min(WARM_UP, len(self.states) - 1)], self.states[-1]
        for name in ("threads", "system_threads", "files", "children"):
            if asdict(last)[name] > asdict(warm)[name]:
                self.defects.append(f"{name}: {asdict(warm)[name]} when warm, {asdict(last)[name]} at the end")


def _comparable(name: str, job: TinyJob, results: dict[str, bytes]) -> bytes | None:
    """A result with the job's own name in it replaced by the reference's; of the report, which is packed, the begin."""
    data = results.get(name)
    if data is None or name == REPORT:
        return data and data[:PDF_BYTES]
    return data.replace(str(job.directory).encode(), b"External/job012")


def _remove(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def soak(n_jobs: int, n_processes: int, together: int, project: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the jobs in a project made in a folder; return figures and defects."""
    run = Soak(project)
    before = names_outside(project)
    run.in_a_row(n_jobs)
    run.at_a_time(n_processes, together)
    run.judge_growth()
    left = {name for name in names_outside(project) - before if os.path.lexists(name) and "gem" in name.lower()}
    left |= {name for name in names_outside(project) - before if name.startswith(str(SHARED))}
    if left:
        run.defects.append(f"left outside the project: {sorted(left)}")
    figures = {
        "jobs": dict(sorted(run.outcomes.items())),
        "growth_per_job": run.growth(),
        "when_warm": asdict(run.states[min(WARM_UP, len(run.states) - 1)]),
        "at_the_end": asdict(run.states[-1]),
        "left_behind": sorted(left),
        "defects": run.defects,
    }
    return figures, run.defects


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="in a row")
    parser.add_argument("--processes", type=int, default=20, help="jobs that run several at a time")
    parser.add_argument("--at_a_time", type=int, default=4)
    parser.add_argument("--output", type=Path, help="instead of results/soak.json")
    options = parser.parse_args()
    begun = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        figures, defects = soak(options.jobs, options.processes, options.at_a_time, Path(folder))
        os.chdir(begun)
    figures = {"command": " ".join(["PYTHONPATH=. python", *sys.argv]), **figures}
    write_results("soak", figures, options.output)
    print(json.dumps(figures, indent=2))
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
