"""Leaves the marker of a run that was killed and could not: by `kill -9`, for want of memory, by a crash of a library.

Run as a program it is a second, tiny process that waits for the end of the first on a pipe. Such an end takes the
program that computes, which is the large one, and RELION would show its job as running for ever.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

_GOODBYE = b"."
_PATIENCE_S = 1.0
_MARKERS = tuple(f"RELION_JOB_EXIT_{ending}" for ending in ("SUCCESS", "FAILURE", "ABORTED"))
_SENTENCE = (
    "gem-external: error: the run was killed and could not say why (kill -9, want of memory, or a crash): 'gem-external"
    " check' says what memory it needs, and the system's log what was killed; run or continue the job to take it up"
    " again\n"
)


class Guardian:
    """Has a process wait for the end of this one, from `guard` to the end of the ``with`` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def guard(self, lock_path: Path, partial_folder: Path) -> None:
        """Start the process; where none can be started the run goes on without."""
        command = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(lock_path), str(partial_folder)]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [*command, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0
            )

    def __enter__(self) -> "Guardian":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye to it: this run has left its marker itself."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(_GOODBYE)
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait()


def main(lock_path: Path, partial_folder: Path, process: str) -> None:
    """Wait for the other process' end; if it came without a goodbye and without a marker, leave one."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # a queueing system sends its signals to all; the end is heard anyway
    if os.read(0, 1):
        return
    directory = lock_path.parent
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW)
        _lock(lock)
        owner = os.pread(lock, 300, 0).decode(errors="replace").split()
        if owner[1:2] != [process] or not os.path.samestat(os.fstat(lock), lock_path.lstat()):
            return  # a run that came after it is at work
        if any((directory / name).exists() for name in _MARKERS):
            return
        (directory / "RELION_JOB_EXIT_FAILURE").touch()
        lock_path.unlink()
    except OSError:
        return
    shutil.rmtree(partial_folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.write(2, _SENTENCE.encode())


def _lock(descriptor: int) -> None:
    """Lock the file, which the dead may hold for a moment more, unless the disk knows no locks.

    Raises
    ------
    BlockingIOError
        If another run has it.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        except OSError:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
