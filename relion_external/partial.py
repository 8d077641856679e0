"""The hidden folder in which results lie until all are complete. Each run has its own."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from gem_plugin.errors import OutputError

_NAME = ".gem_partial"


def choose_partial_folder(directory: Path) -> Path:
    """Return a path in the job directory that no other run has chosen."""
    return directory / f"{_NAME}_{os.getpid()}_{secrets.token_hex(4)}"


@contextlib.contextmanager
def partial_results(folder: Path) -> Iterator[Path]:
    """Make the folder for results that are not complete, yield it, and remove it at the end.

    Raises
    ------
    OutputError
        If the folder cannot be made: then no result could be written either.
    """
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"{folder.parent} cannot be written: {error.strerror or error}. Check that you may write there and that "
            "the disk has space left"
        ) from error
    try:
        yield folder
    finally:
        remove_partial_results(folder)


def remove_partial_results(folder: Path) -> None:
    """Remove the folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_results(directory: Path) -> None:
    """Remove what killed runs have left in a job directory; no other run may be at work there."""
    for folder in directory.glob(f"{_NAME}*"):
        remove_partial_results(folder)
