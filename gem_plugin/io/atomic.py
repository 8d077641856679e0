"""Results appear whole or not at all: written under a temporary name, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gem_plugin.errors import OutputError

# Of disks that know no such thing for a folder, or folders that may be entered and written but not read.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR)


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
        sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Check that the folder exists, that you may write "
            "there, and that the disk has space left."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make sure that the bytes are on disk before the name is: a crash must not leave an empty result.

    Raises
    ------
    OSError
        If the disk is full or fails; some disks say so only here.
    """
    _sync(path)


def sync_folder(folder: Path) -> None:
    """Make sure that names given in a folder outlive a crash of the machine, where its disk can do that.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
