"""Results appear whole or not at all: written under a temporary name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gem_plugin.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an error.

    The temporary name is hidden and keeps the extension, because some writers choose their format
    by it. When the block fails, the temporary file is removed and a file already at `path` is
    untouched. The file's mode follows the umask.

    Raises
    ------
    OutputError
        If the file cannot be written: no permission, no space, no such folder.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Check that the folder exists, that you may write "
            "there, and that the disk has space left."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Make sure that the bytes are on disk before the name is: a crash must not leave an empty result."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
