"""The hidden folder in which results lie until all are complete."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from gem_plugin.errors import OutputError

_NAME = ".gem_partial"


@contextlib.contextmanager
def partial_results(directory: Path) -> Iterator[Path]:
    """Yield an empty hidden folder in the job directory for results that are not complete; remove it at the end.

    Raises
    ------
    OutputError
        If the folder cannot be made: then no result could be written either.
    """
    folder = directory / _NAME
    remove_partial_results(directory)  # left by a run that was killed
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"{directory} cannot be written: {error.strerror or error}. Check that you may write there and that the "
            "disk has space left"
        ) from error
    try:
        yield folder
    finally:
        remove_partial_results(directory)


def remove_partial_results(directory: Path) -> None:
    """Remove the folder, if it is there."""
    shutil.rmtree(directory / _NAME, ignore_errors=True)
