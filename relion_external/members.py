"""One job in several processes: who this process is among them, and the processes that this program starts itself.

``torchrun`` and ``srun`` start every process and say to each which one it is, in the environment. Process 0 is the
job that RELION knows: it alone writes, prints and leaves a marker. For several GPUs of one machine it starts the
others itself.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gem_plugin.errors import GemError, OptionError
from relion_external.markers import WARNINGS
from relion_external.messages import explain

if TYPE_CHECKING:
    from gem_plugin.monitor import Monitor
    from gem_plugin.team import DistributedTeam, Team
    from relion_external.options import JobOptions

_SHARED_THREADS = "GEM_EXTERNAL_SHARED_THREADS"
_STARTED_BY = "GEM_EXTERNAL_STARTED_BY"
_PATIENCE_S = 10.0  # for a process that was asked to end
_POLL_S = 0.5


@dataclass(frozen=True)
class Membership:
    """Which of several processes this is, and where process 0 listens."""

    rank: int
    size: int
    rank_on_machine: int
    address: str
    port: int
    has_meeting_place: bool = False  # something else (torchrun) listens there already
    shares_threads: bool = False  # --j counts the threads of all processes, not of each
    others: tuple["subprocess.Popen[bytes]", ...] = ()  # that this one has started, as far as it knows
    started_by: int = 0  # the process whose end is to be this one's, too; 0: something else sees to that

    def threads_of(self, n_threads: int) -> int:
        """Threads of this process where so many were asked for."""
        return max(n_threads // self.size, 1) if self.shares_threads else n_threads

    def environment(self) -> dict[str, str]:
        """The words by which `find_membership` finds it."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.rank_on_machine),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            _SHARED_THREADS: "1" if self.shares_threads else "",
            _STARTED_BY: str(self.started_by),
        }

    def join(self) -> "DistributedTeam":
        """Meet the others.

        Raises
        ------
        TeamError
            If they cannot be reached.
        """
        from gem_plugin.team import DistributedTeam

        hosts = self.rank == 0 and not self.has_meeting_place
        return DistributedTeam(
            self.rank,
            self.size,
            self.address,
            self.port,
            rank_on_machine=self.rank_on_machine,
            hosts=hosts,
            may_wait=lambda: all(process.poll() is None for process in self.others),
        )


def find_membership(environment: Mapping[str, str]) -> Membership | None:
    """Which of several processes the environment says this is; None for one that runs alone.

    torchrun's words come first. Of srun's, those of the job step count alone: a batch script that was given several
    tasks and starts one program is one process.

    Raises
    ------
    OptionError
        If it says so only in part.
    """
    if "RANK" in environment and _number(environment, "WORLD_SIZE", 1) > 1:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_ID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return None
    rank, size, on_machine = (_number(environment, name, 0) for name in names)
    if rank >= size:
        raise OptionError(f"{names[0]} is {rank} and {names[1]} is {size} in the environment: expected 0 to {size - 1}")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise OptionError(
            f"this is process {rank + 1} of {size}, and the environment lacks {' and '.join(missing)}: set MASTER_ADDR"
            " to the name of the first machine and MASTER_PORT to a free port there, as"
            " relion_external/templates/gem-external-nodes.sh does, or start the program with torchrun; for a run of"
            f" one process, unset {names[1]}"
        )
    return Membership(
        rank,
        size,
        on_machine,
        environment["MASTER_ADDR"],
        _number(environment, "MASTER_PORT", 0),
        environment.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() == "true",
        environment.get(_SHARED_THREADS) == "1",
        started_by=_number(environment, _STARTED_BY, 0),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default)).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise OptionError(f"{name} is '{text}' in the environment: expected a whole number, or nothing of that name")
    return int(text)


@contextlib.contextmanager
def start_members(argv: Sequence[str], size: int) -> Iterator[Membership]:
    """Start the other processes of a job on this machine; this one is process 0.

    They end with the block, whatever happens.

    Parameters
    ----------
    argv : the command line, which is theirs, too
    size : processes in all
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = Membership(0, size, 0, "127.0.0.1", port, shares_threads=True, started_by=os.getpid())
    command = [sys.executable, "-m", "relion_external.job", *argv]
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, size):
            told = replace(own, rank=rank, rank_on_machine=rank).environment()
            others.append(subprocess.Popen(command, env={**os.environ, **told}, stdin=subprocess.DEVNULL))
        yield replace(own, others=tuple(others))
    finally:
        for process in others:
            process.terminate()
        for process in others:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def membership_of(options: "JobOptions", argv: Sequence[str], found: Membership | None) -> Iterator[Membership | None]:
    """Which of several this first process is: of those started with it or, for several GPUs, those that it starts."""
    # not by the engine's own parser, which would import the numerical libraries before their threads are limited
    n_gpus = len(set(options.gpu.replace(":", ",").split(",")))
    if found is not None or n_gpus == 1:
        yield found
        return
    with start_members(argv, n_gpus) as started:
        yield started


@contextlib.contextmanager
def team_of(membership: Membership | None, monitor: "Monitor") -> Iterator["Team"]:
    """The processes that share the job's work, of which this is the first."""
    from gem_plugin.team import SOLO

    if membership is None:
        yield SOLO
        return
    team = membership.join()
    try:
        machines = team.gathered(socket.gethostname())
        monitor.note(f"{team.size} processes share the work, on {', '.join(dict.fromkeys(machines))}")
        yield team
    finally:
        team.close()


def assist_job(argv: Sequence[str], membership: Membership) -> int:
    """Be a process other than 0: do a share of the work, write nothing; return the exit code.

    What goes wrong here, process 0 says.
    """
    from relion_external.options import parse_command_line
    from relion_external.startup import limit_threads, within_processors

    if membership.started_by:
        _end_with(membership.started_by)
    for number in WARNINGS:  # a queueing system may send them to all processes: the first decides what they mean
        signal.signal(number, signal.SIG_IGN)
    try:
        options, _ = within_processors(parse_command_line(argv))
    except GemError:
        return 1  # process 0 reads the same words and says what is wrong with them
    options = options.model_copy(update={"n_threads": membership.threads_of(options.n_threads)})
    limit_threads(options.n_threads)
    team = membership.join()
    try:
        _assist(options, team)
    except BaseException as error:
        with contextlib.suppress(Exception):
            what = str(error) if isinstance(error, GemError) else f"{type(error).__name__}: {error}"
            team.tell_error(what)
        if not isinstance(error, GemError | KeyboardInterrupt):
            explain(error, show_origin=True, where=f"process {membership.rank + 1} of {membership.size}: ")
        return 1
    finally:
        team.close()
    return 0


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, however it did: killed outright, it could tell nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _assist(options: "JobOptions", team: "DistributedTeam") -> None:
    from gem_plugin.monitor import SilentMonitor
    from gem_plugin.reconstruct import assist
    from relion_external.checkpoint_folder import CheckpointFolder, made_from
    from relion_external.inputs import read_inputs
    from relion_external.optimiser import resolve_optimiser

    team.gathered(socket.gethostname())
    options, refinement_files, _ = resolve_optimiser(options)
    monitor = SilentMonitor()
    particles = read_inputs(options, refinement_files).particles
    source = made_from(options.effective_settings(), options.particle_table, particles, team.size)
    assist(
        particles,
        options.reconstruction_config(),
        n_threads=options.n_threads,
        monitor=monitor,
        team=team,
        store=CheckpointFolder(options.directory, source, monitor, member=team.rank),  # the first process opens it
    )
