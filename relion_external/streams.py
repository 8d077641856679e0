"""Standard output and standard error, which may be closed, stop being read, or know few letters."""

import contextlib
import io
import os
import sys

_LAST_STANDARD_DESCRIPTOR = 2


def make_streams_safe() -> None:
    """Make sure that there are streams to write to, and that no letter in a file name can end a run.

    A stream that was closed when the program started is replaced by one that swallows everything; its descriptor too,
    or the next file that is opened would get its number, and with it what libraries print.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= _LAST_STANDARD_DESCRIPTOR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_closed_streams() -> None:
    """Flush; a stream whose reader has gone is let go, or Python would end with an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
