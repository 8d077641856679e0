"""What standard error is told: one line for what a user can mend, and a traceback below it for our defects."""

import contextlib
import errno
import re
import sys
import traceback
import warnings
from collections.abc import Iterator

from gem_plugin.errors import GemError, JobAborted
from gem_plugin.monitor import Monitor

# Failures of the machine that are no defect of ours, wherever they are met, and what to do about each.
_OF_THE_SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk, or have the quota raised"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.EROFS), "see that disk and network work"),
    **dict.fromkeys((errno.ENETDOWN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN), "see that the network works"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "have the limit of open files raised (ulimit -n)"),
}
# torch's words for it, and FINUFFT's
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|[Aa]llocation failed|failed to allocate"
)


def say(message: str) -> None:
    """Write one line to standard error."""
    with contextlib.suppress(OSError, ValueError):
        print("gem-external:", " ".join(message.split()), file=sys.stderr, flush=True)


def explain(error: BaseException, *, show_origin: bool, where: str = "") -> str:
    """Tell what went wrong, and return the sentence.

    Parameters
    ----------
    show_origin : whether to show a traceback of errors that a user can mend, too
    where : the process, if there are several
    """
    if isinstance(error, JobAborted):
        sentence = f"aborted: {where}{error}"
    elif isinstance(error, GemError):
        sentence = f"error: {where}{error}"
    elif isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        file = f"{error.filename}: " if error.filename else ""
        sentence = f"error: {where}{file}{error.strerror}: {_OF_THE_SYSTEM[error.errno]}, then run the job again"
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        detail = f" ({str(error).splitlines()[0]})" if str(error) else ""
        remedy = "'gem-external check' says what is needed; --maxres lowers it"
        sentence = f"error: {where}there is not enough memory{detail}: {remedy}"
    else:
        kind = type(error).__name__
        defect = "this is a defect of gem-external, please report it with the lines below"
        sentence = f"error: {where}{defect}: {kind}: {error}"
        show_origin = True
    say(sentence)
    if show_origin:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exception(error)
    return sentence


@contextlib.contextmanager
def warnings_of_libraries_in(monitor: Monitor) -> Iterator[None]:
    """Put what Python's libraries warn of into the log, each once: run.err is for errors alone."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        sentence = f"Note: a library says: {category.__name__}: {' '.join(str(message).split())}"
        if sentence not in told:
            told.add(sentence)
            monitor.note(sentence)

    shown = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
