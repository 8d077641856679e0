"""Progress as RELION users read it: a live bar on a terminal, plain lines in run.out."""

import contextlib
import io
import math
import sys
import time
from collections.abc import Callable
from typing import IO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class _Talk:
    """What both kinds of progress share: lines, warnings once, an output that may go away, the wish to abort."""

    def __init__(self, stream: IO[str], check_abort: Callable[[], None], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._check_abort = check_abort
        self._clock = clock
        self._warned: set[str] = set()
        self._name = ""
        self._unit = ""
        self._total = 0
        self._started = clock()

    def note(self, message: str) -> None:
        """Write one line."""
        self._line(message)

    def warn(self, message: str) -> None:
        """Write one line that begins with WARNING, the first time it is said."""
        if message not in self._warned:
            self._warned.add(message)
            self._line(f"WARNING: {message}")

    def close(self) -> None:
        """End the stage that is shown."""

    def _complete(self) -> None:
        """Show that the stage is done, though it may have taken fewer steps than it could have."""

    def _begin(self, name: str, total: int, unit: str) -> None:
        self._check_abort()
        self._complete()
        self.close()
        self._name, self._total, self._unit = name, total, unit
        self._started = self._clock()

    def _line(self, text: str) -> None:
        write_line(self._stream, text)

    def _figures(self, done: int, figures: dict[str, float]) -> list[str]:
        """Rate and figures in words: ``["350 particles/s", "loss 1.234"]``."""
        elapsed = self._clock() - self._started
        words = [f"{_three_digits(done / elapsed)} {self._unit}/s"] if elapsed > 0 and done > 0 else []
        return words + [f"{name.replace('_', ' ')} {value:.6g}" for name, value in figures.items()]


class PlainProgress(_Talk):
    """Whole lines, a few a minute, each flushed: for run.out and for queueing systems.

    Parameters
    ----------
    stream
        Where to write.
    check_abort
        Called at every step; raises `JobAborted` when the run should end.
    interval_in_seconds
        Least time between two lines of one stage. The first and the last step of a stage are always shown.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        stream: IO[str],
        check_abort: Callable[[], None] = lambda: None,
        interval_in_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, check_abort, clock)
        self._interval_in_seconds = interval_in_seconds
        self._next_line = 0.0
        self._is_complete = True
        self._done = 0
        self._last_figures: dict[str, float] = {}

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage with a line of its own."""
        self._begin(name, total, unit)
        self._is_complete = False
        self._done, self._last_figures = 0, {}
        self._next_line = self._started + self._interval_in_seconds
        self._line(f"{name} ({total} {unit})")

    def advance(self, done: int, **figures: float) -> None:
        """Write a line if the last one is old enough or the stage is complete."""
        self._check_abort()
        self._done, self._last_figures = done, figures
        now = self._clock()
        is_last = done >= self._total
        if self._is_complete or (now < self._next_line and not is_last):
            return
        self._is_complete = is_last
        self._next_line = now + self._interval_in_seconds
        words = [f"{done}/{self._total} {self._unit}", *self._figures(done, figures)]
        elapsed = now - self._started
        if is_last:
            words.append(f"done in {duration(elapsed)}")
        elif done > 0:
            words.append(f"about {duration(elapsed / done * (self._total - done))} left")
        self._line(f"  {self._name}: {', '.join(words)}")

    def _complete(self) -> None:
        """Write the last line of a stage that ended before its last step."""
        if self._is_complete:
            return
        self._is_complete = True
        words = [f"{self._done}/{self._total} {self._unit}", *self._figures(self._done, self._last_figures)]
        elapsed = self._clock() - self._started
        self._line(f"  {self._name}: {', '.join([*words, f'done in {duration(elapsed)}'])}")


class LiveProgress(_Talk):
    """A bar that moves, on a terminal."""

    def __init__(
        self,
        stream: IO[str],
        check_abort: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, check_abort, clock)
        self._console = Console(file=cast(IO[str], _Forgiving(stream)), highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._task = TaskID(0)

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage with a bar of its own; the last stage's bar stays on the screen, complete."""
        self._begin(name, total, unit)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[words]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bars.add_task(name, total=total, words=unit)
        self._bars.start()

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar."""
        self._check_abort()
        if self._bars is not None:
            words = ", ".join([self._unit, *self._figures(done, figures)])
            self._bars.update(self._task, completed=done, words=words)
            if done >= self._total:
                self.close()

    def _complete(self) -> None:
        """Fill the bar of a stage that ended before its last step."""
        if self._bars is not None:
            self._bars.update(self._task, total=self._bars.tasks[0].completed)

    def close(self) -> None:
        """Let go of the terminal."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False)


class _Forgiving(io.TextIOBase):
    """A stream that goes on in silence when what is behind it has gone: rich would end the program."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # rich chooses between Unicode and ASCII bars by it
        return getattr(self._stream, "encoding", None) or "ascii"


def make_progress(*, verbose: bool, check_abort: Callable[[], None] = lambda: None) -> PlainProgress | LiveProgress:
    """Return the progress that suits standard output: a live bar on a terminal, else plain lines."""
    if sys.stdout.isatty():
        return LiveProgress(sys.stdout, check_abort)
    return PlainProgress(sys.stdout, check_abort, interval_in_seconds=3.0 if verbose else 15.0)


def write_line(stream: IO[str], text: str) -> None:
    """Write and flush a line in ASCII; a closed pipe or a full disk behind the stream never ends a run."""
    with contextlib.suppress(OSError, ValueError):
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii") + "\n")
        stream.flush()


def duration(seconds: float) -> str:
    """Return a time in words: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _three_digits(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
