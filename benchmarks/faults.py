"""Faults put into tiny jobs: killed at random, full and failing disks, changed files, aborts, second starts, clocks.

``PYTHONPATH=. python benchmarks/faults.py --kills 30 --disks 40`` writes results/faults.json and exits 1 if one run
ended with a wrong marker or exit code, lost a result, left something behind, or gave another map when it was continued.
The unit of time is the processor second of the job, so that the moments of a seed are the same on a busy machine.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from fault_layer import FaultLayer
from machine import write_results
from tiny_job import (
    ABORTED,
    FAILURE,
    STACK,
    SUCCESS,
    Ended,
    TinyJob,
    at_stage,
    make_tiny_project,
    stages,
    wait_until_used,
)

from relion_external import checkpoint_folder
from relion_external.file_names import PROGRESS
from relion_external.markers import ABORT_REQUEST

WRITES = ("make", "write", "sync")  # what needs room; a rename needs none
A_DAY_S = 86400.0
CONTINUED = "Checkpoints: continuing"  # in run.out


@dataclass
class Tally:
    """What became of the runs."""

    reference: dict[str, bytes]
    ends: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    n_cases: Counter[str] = field(default_factory=Counter)

    def ended(self, case: str, job: TinyJob, ended: Ended, exit_codes: tuple[int, ...], *allowed: list[str]) -> None:
        """Judge a run that met a fault: what is there must be an uninterrupted run's, whole."""
        found = job.markers()
        kind = case.split(":")[0]
        self.n_cases[kind] += 1
        self.ends[f"{kind}: exit code {ended.exit_code}, {' '.join(found) or 'no marker'}"] += 1
        if found not in allowed or ended.exit_code not in exit_codes:
            self.defects.append(f"{case}: exit code {ended.exit_code}, markers {found}: {ended.err[-500:]}")
        if any(data != self.reference[name] for name, data in job.results().items()):
            self.defects.append(f"{case}: a result was damaged")
        if ended.exit_code == 1 and "defect of gem-external" in ended.err:
            self.defects.append(f"{case}: told as a defect of ours: {ended.err[:500]}")

    def continued(self, case: str, job: TinyJob) -> None:
        """Run again without faults, as RELION's Continue does: everything must be as if nothing had been."""
        again = job.run()
        results = job.results()
        if CONTINUED in again.out:
            self.ends[f"{case.split(':')[0]}, continued from a checkpoint"] += 1
        different = [name for name in self.reference if results.get(name) != self.reference[name]]
        if (again.exit_code, job.markers()) != (0, SUCCESS) or different or again.err:
            self.defects.append(f"{case}, continued: {again.exit_code} {job.markers()} {different} {again.err[-500:]}")
        if job.leftovers():
            self.defects.append(f"{case}, continued: left {sorted(job.leftovers())}")


def kills(tally: Tally, job: TinyJob, number: int, seed: int) -> None:
    """SIGKILL at random moments of a process, then again in this one."""
    chance = random.Random(seed)
    whole_s = _processor_seconds_of_a_process(job)
    for index in range(number):
        _empty(job)
        moment_s = chance.uniform(0.02, 1.0) * whole_s
        process = job.start()
        wait_until_used(process, moment_s)
        process.kill()
        _, err = process.communicate()  # its guardian, too, has let go of the pipe then
        case = f"kill -9: {index}, after {moment_s:.2f} of {whole_s:.2f} processor seconds"
        has_begun = (job.directory / PROGRESS).exists()  # before that, nothing was promised; success: it had ended
        allowed = (FAILURE, SUCCESS) if has_begun else ([],)
        tally.ended(case, job, Ended(process.returncode, err), (-signal.SIGKILL, 0), *allowed)
        tally.continued(case, job)


def _processor_seconds_of_a_process(job: TinyJob) -> float:
    _empty(job)
    before = os.times()
    process = job.start()
    process.communicate()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def disks(tally: Tally, job: TinyJob, number: int, seed: int) -> None:
    """A disk that is full, and one that fails, from a random operation on, with results of an earlier run there."""
    chance = random.Random(seed)
    job.run()
    for name, code, operations, allowed in (
        ("disk full", errno.ENOSPC, WRITES, (FAILURE, SUCCESS)),
        ("disk fails", errno.EIO, (*WRITES, "rename"), ([], FAILURE, SUCCESS)),
    ):
        with FaultLayer(job.directory, operations).installed() as layer:
            job.run()
        n_operations = sum(layer.counts.values())
        for after in sorted(chance.sample(range(2, n_operations), min(number, n_operations - 2))):
            job.forget()
            with FaultLayer(job.directory, operations, code, after).installed():
                ended = job.run()
            case = f"{name}: from operation {after} of {n_operations} on"
            tally.ended(case, job, ended, (0,) if job.markers() == SUCCESS else (1,), *allowed)
            if after % 5 == 0:
                tally.continued(case, job)
        tally.continued(name, job)


def reads(tally: Tally, job: TinyJob, number: int, seed: int) -> None:
    """Reads of the stack that fail, of a disk or a network, and reads that return less than was asked for."""
    chance = random.Random(seed)
    with FaultLayer(STACK.parent, ("read",)).installed() as layer:
        job.run()
    for index in range(number):
        after = chance.randrange(layer.counts["read"])
        code = (errno.EIO, errno.ESTALE)[index % 2]
        job.forget()
        with FaultLayer(STACK.parent, ("read",), code, after, lasts=index % 4 < 2).installed():
            ended = job.run()
        case = f"read fails: {errno.errorcode[code]} after {after} reads"
        tally.ended(case, job, ended, (1,), FAILURE)
        if STACK.name not in ended.err:
            tally.defects.append(f"{case}: the file is not named: {ended.err}")
    tally.continued("read fails", job)
    for index in range(max(number // 4, 1)):
        with FaultLayer(STACK.parent, ("read",), short_reads=seed + index).installed() as layer:
            ended = job.run()
        tally.ended(f"short reads: {layer.counts['short']}", job, ended, (0,), SUCCESS)
        if not layer.counts["short"]:
            tally.defects.append("short reads: there were none")


def aborts(tally: Tally, job: TinyJob) -> None:
    """RELION's request and SIGTERM during each stage."""
    for wanted, name in enumerate(stages(job)):
        for how in ("request", "SIGTERM"):

            def ask(index: int, _: str, wanted: int = wanted, how: str = how) -> None:
                ask.is_waited_for = index == wanted  # type: ignore[attr-defined]
                if index == wanted and how == "request":
                    (job.directory / ABORT_REQUEST).touch()
                elif index == wanted:
                    os.kill(os.getpid(), signal.SIGTERM)

            job.forget()
            with at_stage(ask):
                ended = job.run()
            tally.ended(f"abort: {how} in stage {wanted}, {name}", job, ended, (2,), ABORTED)
            if (job.directory / ABORT_REQUEST).exists():
                tally.defects.append(f"abort: the request stands after stage {name}")
        tally.continued(f"abort: stage {wanted}, {name}", job)


def changed_stacks(tally: Tally, job: TinyJob) -> None:
    """A stack that is replaced, cut short or removed as each stage begins; as long as images are read it matters."""
    whole, kept = STACK.read_bytes(), STACK.with_name("kept.mrcs")
    os.link(STACK, kept)
    for how in ("replaced", "cut", "removed"):
        for wanted, name in enumerate(stages(job)):

            def change(index: int, _: str, wanted: int = wanted, how: str = how) -> None:
                if index != wanted:
                    return
                STACK.unlink()
                if how != "removed":
                    STACK.write_bytes(whole[:1024] + bytes(len(whole) - 1024) if how == "replaced" else whole[:2000])

            job.forget()
            with at_stage(change):
                ended = job.run()
            tally.ended(f"stack {how}: as stage {wanted} begins, {name}", job, ended, (0, 1), FAILURE, SUCCESS)
            if ended.exit_code == 0 and job.results() != tally.reference:
                tally.defects.append(f"stack {how}: not seen in stage {name}")
            STACK.write_bytes(whole)
            _require_refusal(tally, job, f"stack {how}: put back later, in stage {wanted}, {name}")
            os.replace(kept, STACK)  # the file that it was
            os.link(STACK, kept)
        tally.continued(f"stack {how}", job)
    kept.unlink()


def _require_refusal(tally: Tally, job: TinyJob, case: str) -> None:
    """A stack that was written since: what was kept of the old one is not for it, and is not lost."""
    if not (job.directory / checkpoint_folder.FOLDER).exists():
        return
    before = sorted((job.directory / checkpoint_folder.FOLDER).iterdir())
    ended = job.run()
    tally.ended(case, job, ended, (1,), FAILURE)
    if STACK.name not in ended.err or "--restart" not in ended.err:
        tally.defects.append(f"{case}: not refused: {ended.err}")
    if sorted((job.directory / checkpoint_folder.FOLDER).iterdir()) != before:
        tally.defects.append(f"{case}: what was kept has gone")


def clocks(tally: Tally, job: TinyJob) -> None:
    """The clock jumps by a day to and fro as stages begin; an abort request bears another day's date."""
    for jump_s in (A_DAY_S, -A_DAY_S):
        offset = [0.0]
        now = time.time

        def jump(index: int, _: str, offset: list[float] = offset, jump_s: float = jump_s) -> None:
            offset[0] = jump_s * (index % 2)

        with mock.patch("time.time", lambda now=now, offset=offset: now() + offset[0]), at_stage(jump):
            ended = job.run()
        tally.ended(f"clock: jumps by {jump_s:g} s", job, ended, (0,), SUCCESS)
        if job.results() != tally.reference:
            tally.defects.append("clock: other results")

        job.forget()

        def ask(index: int, _: str, jump_s: float = jump_s) -> None:
            ask.is_waited_for = index == 1  # type: ignore[attr-defined]
            if index == 1:
                (job.directory / ABORT_REQUEST).touch()
                os.utime(job.directory / ABORT_REQUEST, (time.time() + jump_s,) * 2)

        with at_stage(ask):
            ended = job.run()
        tally.ended(f"clock: a request of {jump_s:g} s from now", job, ended, (2,), ABORTED)
    tally.continued("clock", job)


def second_starts(tally: Tally, job: TinyJob) -> None:
    """A second run in the directory of one that is at work, as each of its stages begins."""
    _empty(job)
    process = job.start()
    seen = Counter[str]()
    while process.poll() is None:
        if not (job.directory / ".gem_lock").exists():
            time.sleep(0.01)
            continue
        before = job.results()
        ended = job.run()
        if process.poll() is not None:
            break  # it may have ended first
        tally.n_cases["second start"] += 1
        seen[f"second start: exit code {ended.exit_code}"] += 1
        if ended.exit_code != 1 or f"process {process.pid} on" not in ended.err or job.results().keys() < before.keys():
            tally.defects.append(f"second start: {ended}")
    _, err = process.communicate()
    tally.ends.update(seen)
    tally.ended("first of two", job, Ended(process.returncode, err), (0,), SUCCESS)
    if job.results() != tally.reference or job.leftovers():
        tally.defects.append(f"first of two: disturbed, left {job.leftovers()}")


def _empty(job: TinyJob) -> None:
    shutil.rmtree(job.directory, ignore_errors=True)


def faults(n_kills: int, n_disks: int, seed: int, workdir: Path, only: tuple[str, ...] = ()) -> Tally:
    """Put all faults into the jobs of a project made in `workdir`; return what became of them."""
    os.chdir(workdir)
    make_tiny_project(workdir)
    job = TinyJob()
    first = job.run()
    tally = Tally(job.results())
    if first.exit_code or job.markers() != SUCCESS:
        raise SystemExit(f"the job without faults failed: {first.err}")
    parts: dict[str, Callable[[], None]] = {
        "disks": lambda: disks(tally, job, n_disks, seed),
        "reads": lambda: reads(tally, job, n_disks, seed),
        "aborts": lambda: aborts(tally, job),
        "changed": lambda: changed_stacks(tally, job),
        "clocks": lambda: clocks(tally, job),
        "second": lambda: second_starts(tally, job),
        "kills": lambda: kills(tally, job, n_kills, seed),
    }
    for name, part in parts.items():
        if not only or name in only:
            part()
            print(f"{name}: {dict(tally.n_cases)}; {len(tally.defects)} defects", flush=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--disks", type=int, default=40, help="random moments for each kind of failing disk")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="disks reads aborts changed clocks second kills")
    parser.add_argument("--output", type=Path, help="instead of results/faults.json")
    options = parser.parse_args()
    begun = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="gem-faults-") as folder:
        tally = faults(options.kills, options.disks, options.seed, Path(folder), tuple(options.only))
        os.chdir(begun)
    figures = {
        "command": " ".join(["PYTHONPATH=. python", *sys.argv]),
        "cases": dict(tally.n_cases),
        "ends": dict(sorted(tally.ends.items())),
        "defects": tally.defects,
    }
    write_results("faults", figures, options.output)
    print(json.dumps(figures, indent=2))
    return 1 if tally.defects else 0


if __name__ == "__main__":
    sys.exit(main())
