"""``gem_progress.jsonl``: what a run is doing, for scripts. One JSON object a line; docs/outputs.md describes them."""

import contextlib
import datetime
import json
import math
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gem_plugin import __version__
from gem_plugin.monitor import Monitor
from relion_external.file_names import PROGRESS
from relion_external.markers import Outcome

INTERVAL_S = 5.0  # least time between two lines of progress, at first
LINES_PER_INTERVAL = 2000  # of progress, before the interval doubles: hours; a week's run ends at some minutes
LARGEST_BYTES = 8_000_000  # beyond which only the end is written
LONGEST_TEXT = 2000


class ProgressFile:
    """A monitor that writes lines into a job directory, each at once and whole.

    Nothing that goes wrong with the file is of any consequence for the run. Before `open` nothing is written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._descriptor: int | None = None
        self._room = LARGEST_BYTES
        self._opened = 0.0
        self._interval_s, self._lines = INTERVAL_S, 0
        self._warned: set[str] = set()
        self._stage: dict[str, object] | None = None
        self._total = 0
        self._next_line = 0.0
        self._untold: tuple[int, dict[str, float]] | None = None  # the last progress that was not written

    def open(self, directory: Path, argv: Sequence[str]) -> None:
        """Begin the file, in the place of an earlier run's; a link of that name is replaced and not followed.

        Parameters
        ----------
        argv : the command line
        """
        path = directory / PROGRESS
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._opened = self._clock()
        self._write(
            "start",
            program=f"gem-external {__version__}",
            command=shlex.join(["gem-external", *argv]),
            machine=platform.node(),
            process=os.getpid(),
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a file to write to."""
        return self._descriptor is not None

    def settings(self, settings: dict[str, str | int | float | bool | None]) -> None:
        """Write all options with their values."""
        self._write("settings", options=settings)

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage; the last one's end is written if it was not yet."""
        self._complete()
        self._stage = {"stage": _cut(name), "total": total, "unit": unit}
        self._total = total
        self._next_line = self._clock() + self._interval_s
        self._write("stage", **self._stage)

    def advance(self, done: int, **figures: float) -> None:
        """Write a line if the last one is old enough or the stage is complete."""
        was_complete = self._untold is None and self._next_line == math.inf
        if self._stage is None or was_complete:
            return
        self._untold = done, figures
        now = self._clock()
        if done >= self._total:
            self._complete()
            self._next_line = math.inf
        elif now >= self._next_line:
            self._complete()
            self._next_line = now + self._interval_s

    def note(self, message: str) -> None:
        """Write a line that the log has, too."""
        self._write("note", message=_cut(message))

    def warn(self, message: str) -> None:
        """Write a warning, the first time it is said."""
        if message not in self._warned:
            self._warned.add(message)
            self._write("warning", message=_cut(message))

    def end(self, outcome: Outcome, message: str) -> None:
        """Write how the run ended, and close the file; only the first time.

        Parameters
        ----------
        message : the sentence that standard error has of a run that did not succeed
        """
        self._complete()
        self._room = LARGEST_BYTES  # a script waits for this line
        self._write("end", outcome=outcome.name.lower(), exit_code=outcome.exit_code, message=_cut(message))
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _complete(self) -> None:
        """Write the last progress that was reported, if it is not there yet."""
        if self._stage is None or self._untold is None:
            return
        done, figures = self._untold
        self._untold = None
        self._write("progress", **self._stage, done=done, **{name: _finite(value) for name, value in figures.items()})
        self._lines += 1
        if self._lines % LINES_PER_INTERVAL == 0:
            self._interval_s *= 2

    def _write(self, event: str, **values: object) -> None:
        if self._descriptor is None or self._room < 0:
            return
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        record = {"time": now, "elapsed_s": round(self._clock() - self._opened, 3), "event": event, **values}
        with contextlib.suppress(OSError, ValueError, TypeError):
            line = (json.dumps(record, allow_nan=False) + "\n").encode()
            self._room -= len(line)
            os.write(self._descriptor, line)  # in one call, so that a reader never sees half a line


class ClosableMonitor(Monitor, Protocol):
    """A monitor that holds on to something."""

    def close(self) -> None:
        """Let go of it."""


class BothMonitors:
    """Tells several monitors everything."""

    def __init__(self, monitors: Sequence[ClosableMonitor]) -> None:
        self._monitors = monitors

    def stage(self, name: str, total: int, unit: str) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.stage(name, total, unit)

    def advance(self, done: int, **figures: float) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.advance(done, **figures)

    def note(self, message: str) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.note(message)

    def warn(self, message: str) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.warn(message)


def _finite(value: float) -> float | None:
    """A number as JSON has them, which knows neither nan nor inf."""
    return float(value) if math.isfinite(value) else None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
