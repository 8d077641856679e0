"""Exit markers and the wish to abort, as RELION reads and writes them.

RELION learns how a job ended from empty files in the job directory and from nothing else: neither the exit code nor
the process is looked at. A job that dies without a marker stays 'running' for ever, so every way out writes one.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import FrameType

from gem_plugin.errors import JobAborted
from gem_plugin.io.atomic import sync_folder

ABORT_REQUEST = "RELION_JOB_ABORT_NOW"
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What queueing systems send some time before they end a job: SLURM, Grid Engine, limits of processor time.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
_CLOCKS_DIFFER_BY_SECONDS = 1.0  # a file's time is kept more coarsely, and on network disks by another machine


def _start_of_this_process() -> float:
    """Return when this process was started, in seconds since the epoch; now, where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.time() - age


_STARTED = _start_of_this_process()


class Outcome(Enum):
    """How a job ended: the value is the end of the marker's name."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ABORTED = "ABORTED"

    @property
    def file_name(self) -> str:
        """Name of the marker file."""
        return f"RELION_JOB_EXIT_{self.value}"

    @property
    def exit_code(self) -> int:
        """Exit code of the process that ends so: 0, 1 or 2."""
        return list(Outcome).index(self)


class ExitMarkers:
    """The markers of one job directory. At most one of them stands at any time.

    Parameters
    ----------
    make_without_room : makes an empty file of that path where the disk has no room for another; may raise OSError
    """

    def __init__(self, directory: Path, make_without_room: Callable[[Path], None] | None = None) -> None:
        self.directory = directory
        self._make_without_room = make_without_room
        self._lock = threading.RLock()
        self.outcome: Outcome | None = None  # how this run ended, once it has

    def clear(self) -> None:
        """Remove every marker and the abort request."""
        for name in (*(outcome.file_name for outcome in Outcome), ABORT_REQUEST):
            (self.directory / name).unlink(missing_ok=True)

    def clear_stale(self) -> None:
        """Remove what an earlier run left: its marker, and its abort request unless that came since we started."""
        for outcome in Outcome:
            (self.directory / outcome.file_name).unlink(missing_ok=True)
        request = self.directory / ABORT_REQUEST
        with contextlib.suppress(FileNotFoundError):
            if request.lstat().st_mtime < _STARTED - _CLOCKS_DIFFER_BY_SECONDS:
                request.unlink()

    def is_abort_requested(self) -> bool:
        """Whether RELION's GUI has left its abort request."""
        return (self.directory / ABORT_REQUEST).exists()

    @contextlib.contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Hold off the end of the process: results are renamed and the marker is written in one go."""
        with self._lock:
            yield

    def finish(self, outcome: Outcome) -> Outcome:
        """Leave the marker, once: the first outcome of a run stands. Returns the one that does.

        Raises
        ------
        OSError
            If the marker cannot be written.
        """
        with self._lock:
            if self.outcome is None:
                self.clear()
                self._make(self.directory / outcome.file_name)
                self.outcome = outcome
            return self.outcome

    def _make(self, path: Path) -> None:
        try:
            path.touch()
        except OSError as error:
            if self._make_without_room is None:
                raise
            try:
                self._make_without_room(path)
            except OSError:
                raise error from None
        with contextlib.suppress(OSError):  # it stands; only a crash of the machine could take it away again
            sync_folder(self.directory)


class AbortSwitch:
    """Learns that the run should end, from RELION or from a signal, and sees to it that it does.

    A signal handler and a thread that looks for RELION's abort request set a flag; the computation asks for it with
    `check`. Should it not ask for `grace_in_seconds`, because it is inside one long call of a numerical library, the
    thread calls `when_stuck` and ends the process.

    A run that keeps checkpoints says so with `keep_state_first`. A queueing system's warning, which comes some time
    before the end, then leaves it `state_grace_in_seconds` to keep one more: `wants_state` tells it to, and
    `state_was_kept` ends the run. Without checkpoints a warning ends the run like any other signal, because on some
    clusters nothing but the kill follows, and that could not leave a marker.
    """

    def __init__(
        self,
        markers: ExitMarkers | None = None,
        *,
        when_stuck: Callable[[str], None] = lambda reason: None,
        grace_in_seconds: float = 3.0,
        state_grace_in_seconds: float = 20.0,
        poll_in_seconds: float = 1.0,
    ) -> None:
        self._markers = markers or ExitMarkers(Path())
        self._when_stuck = when_stuck
        self._grace_in_seconds = grace_in_seconds
        self._state_grace_in_seconds = state_grace_in_seconds
        self._poll_in_seconds = poll_in_seconds
        self._reason: str | None = None
        self._keeps_state = False
        self._warning: str | None = None
        self._ended = threading.Event()

    def check(self) -> None:
        """Return at once if all is well. Costs next to nothing.

        Raises
        ------
        JobAborted
            If the run should end.
        """
        if self._reason is not None:
            raise JobAborted(self._reason)

    def attend(self, markers: ExitMarkers, when_stuck: Callable[[str], None]) -> None:
        """Say whose run this is, for a switch that was made before that was known."""
        self._markers, self._when_stuck = markers, when_stuck

    def request(self, reason: str) -> None:
        """Ask the run to end. The first reason is kept."""
        self._reason = self._reason or reason

    @property
    def reason(self) -> str | None:
        """Why the run was asked to end; None as long as it was not."""
        return self._reason

    def keep_state_first(self) -> None:
        """Say that the run looks at `wants_state` and keeps checkpoints."""
        self._keeps_state = True

    @property
    def wants_state(self) -> bool:
        """Whether to keep a checkpoint now and call `state_was_kept`, because the end was announced."""
        return self._warning is not None and self._reason is None

    def state_was_kept(self) -> None:
        """End the run if its end was announced: what it has done is safe."""
        if self._warning is not None:
            self.request(self._warning)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to signals and to RELION inside the ``with`` block."""
        self._ended.clear()
        self._look()
        thread = threading.Thread(target=self._watch, name="abort-watch", daemon=True)
        with self.hearing_signals():
            thread.start()
            try:
                yield
            finally:
                self._ended.set()
                thread.join()

    @contextlib.contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Note signals inside the ``with`` block, for `check` to tell; nothing ends the process there."""
        previous = self._install_handlers()
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _install_handlers(self) -> dict[signal.Signals, "signal._HANDLER"]:
        """Take over the signals that ask a job to end.

        A shell that starts a job with ``&``, as RELION does, ignores the keyboard's interrupt on its behalf, so that
        Ctrl-C in the GUI's terminal does not end every job; nohup ignores the hang-up. Both are left so.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        previous = {}
        for number in (*ENDS, *WARNINGS):
            handler = signal.getsignal(number)
            if number in (signal.SIGINT, signal.SIGHUP) and handler is signal.SIG_IGN:
                continue
            previous[number] = handler
            signal.signal(number, self._on_signal)
        return previous

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        reason = f"ended by signal {signal.Signals(number).name}"
        if number in WARNINGS and self._keeps_state:
            self._warning = self._warning or reason
        else:
            self.request(reason)

    def _watch(self) -> None:
        """Poll the abort request; after one, wait for the run to end, and end the process if it does not."""
        deadline = state_deadline = None
        while not self._ended.wait(self._poll_in_seconds):
            self._look()
            if self._warning is not None:
                state_deadline = state_deadline or time.monotonic() + self._state_grace_in_seconds
                if time.monotonic() >= state_deadline:
                    self.request(self._warning)
            if self._reason is None:
                continue
            deadline = deadline or time.monotonic() + self._grace_in_seconds
            if time.monotonic() >= deadline:
                self._end_process(self._reason)
                return

    def _look(self) -> None:
        """Look for RELION's request."""
        if self._reason is None and self._markers.is_abort_requested():
            self.request(f"ended on RELION's request ({ABORT_REQUEST})")

    def _end_process(self, reason: str) -> None:
        """End the process from this thread, unless it has just ended by itself or is writing its results."""
        with self._markers.uninterrupted():
            if self._ended.is_set() or self._markers.outcome is not None:
                return
            # Whatever goes wrong here, the process must end.
            with contextlib.suppress(Exception):
                self._when_stuck(reason)
            with contextlib.suppress(OSError):
                self._markers.finish(Outcome.ABORTED)
            os._exit(Outcome.ABORTED.exit_code)
