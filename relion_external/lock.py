"""One run at a time in a job directory."""

import contextlib
import errno
import fcntl
import os
import platform
from pathlib import Path
from types import TracebackType

from gem_plugin.errors import OutputError

LOCK_NAME = ".gem_lock"
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)


class DirectoryInUseError(OutputError):
    """Another run is at work in the directory: nothing in it may change, markers included."""


class DirectoryLock:
    """A file in the job directory that the system keeps locked as long as this process lives, however that ends.

    Where no lock can be had, as on some network disks, the run goes on without; `is_held` is then false.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._path = Path()

    @property
    def is_held(self) -> bool:
        """Whether the lock is ours."""
        return self._descriptor is not None

    def take(self, directory: Path) -> None:
        """Lock the directory, which is made if it is not there; does nothing if it is locked already.

        Raises
        ------
        DirectoryInUseError
            If another process holds the lock.
        """
        while not self.is_held:
            path = directory / LOCK_NAME
            try:
                directory.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except OSError:
                return  # whether the directory can be written is told where results are
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one who held it may have removed the file in between: then this lock keeps nobody out.
                if not _is_still_there(descriptor, path):
                    os.close(descriptor)
                    continue
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
            except OSError as error:
                holder = _text(descriptor)
                os.close(descriptor)
                if error.errno in _HELD_BY_ANOTHER:
                    raise DirectoryInUseError(
                        f"--o {directory} is in use by another run of gem-external ({holder}): nothing was changed "
                        "there; wait until it has ended or name another directory for the results"
                    ) from error
                return
            self._descriptor, self._path = descriptor, path

    def release(self) -> None:
        """Remove the file and give the lock back, if it is held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _text(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "just started"
    return "just started"
