"""One run at a time in a job directory, also where several machines share the disk."""

import contextlib
import errno
import fcntl
import os
import platform
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gem_plugin.errors import OutputError

LOCK_NAME = ".gem_lock"
BEAT_S = 5.0  # how often the owner shows that it lives
PATIENCE_S = 30.0  # for a beat of an owner whom the system cannot vouch for
_HANDOVER_S = 2.0  # for the guardian of a killed run to leave its marker
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)
_OWNER = re.compile(r"process (\d+) on (\S+)")


class DirectoryInUseError(OutputError):
    """Another run is at work in the directory: nothing in it may change, markers included."""


class DirectoryLock:
    """A file in the job directory that the system keeps locked as long as this process lives, however that ends.

    It names its owner and, while the owner lives, changes every few seconds. Some network disks know no locks, and on
    some a lock holds on its own machine alone. So an owner for whom the system does not vouch is watched for a while:
    if its file changes, it is at work.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._path = Path()
        self._kept_by_system = False
        self._released = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether the lock is ours and the system keeps others out; false where no lock can be had."""
        return self._descriptor is not None and self._kept_by_system

    def take(self, directory: Path, check_abort: Callable[[], None] = lambda: None) -> None:
        """Lock the directory, which is made if it is not there; does nothing if it is locked already.

        Parameters
        ----------
        check_abort : is called while an owner is watched; may raise

        Raises
        ------
        DirectoryInUseError
            If another process is at work there.
        """
        path, begun = directory / LOCK_NAME, time.monotonic()
        while self._descriptor is None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except OSError:
                return  # whether the directory can be written is told where results are
            try:
                is_ours = self._claim(descriptor, path, check_abort)
            except BlockingIOError:
                holder = owner_of(descriptor)
                os.close(descriptor)
                if time.monotonic() - begun >= _HANDOVER_S:
                    raise _in_use(path, holder) from None
                time.sleep(0.05)
                continue
            except OSError:
                os.close(descriptor)
                return
            except BaseException:
                os.close(descriptor)
                raise
            if is_ours:
                self._descriptor, self._path = descriptor, path
            else:
                os.close(descriptor)
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, name="lock-beat", daemon=True)
            self._beating.start()

    def _claim(self, descriptor: int, path: Path, check_abort: Callable[[], None]) -> bool:
        """Lock the open file and write our name into it; False if it was removed in between.

        Raises
        ------
        BlockingIOError
            If the system says that another holds it.
        DirectoryInUseError
            If another shows that it does.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._kept_by_system = True
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                raise BlockingIOError from error
            self._kept_by_system = False
        owner = owner_of(descriptor)
        if owner and not _is_known_dead(owner, self._kept_by_system) and _changes(path, check_abort):
            raise _in_use(path, owner)
        if not _is_still_there(descriptor, path):
            return False
        with contextlib.suppress(OSError):  # a full disk: the system's lock is as good without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _own_line(), 0)
        return True

    def _beat(self) -> None:
        number = 0
        while not self._released.wait(BEAT_S):
            number += 1
            with contextlib.suppress(OSError):
                if self._descriptor is not None:
                    os.pwrite(self._descriptor, f"beat {number}\n".encode(), len(_own_line()))

    def turn_into(self, path: Path) -> None:
        """Rename the lock's file, emptied, to `path`: a disk that has room for no other file has room for that.

        Raises
        ------
        OSError
            If there is no such file, or it cannot be renamed.
        """
        if self._descriptor is None or not _is_still_there(self._descriptor, self._path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._stop_beating()
        os.ftruncate(self._descriptor, 0)
        os.replace(self._path, path)

    def release(self) -> None:
        """Remove the file and give the lock back, if it is held."""
        self._stop_beating()
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if _is_still_there(self._descriptor, self._path):  # not a file that another has put in its place
                    self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _stop_beating(self) -> None:
        self._released.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _own_line() -> bytes:
    return f"process {os.getpid()} on {platform.node()}\n".encode()


def owner_of(descriptor: int) -> str:
    """What an open lock file says of its owner: ``process 123 on host``; empty if it says nothing yet."""
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, 300, 0).decode(errors="replace")
        return text.partition("\n")[0].strip()
    return ""


def _in_use(path: Path, holder: str) -> DirectoryInUseError:
    return DirectoryInUseError(
        f"--o {path.parent} is in use by another run of gem-external ({holder or 'just started'}): nothing was changed "
        "there; wait until it has ended or name another directory for the results; if it is certain that no such "
        f"process is left, remove {path}"
    )


def _is_known_dead(owner: str, is_kept_by_system: bool) -> bool:
    """Whether the owner that a file names has ended: the system would keep a lock of its own machine's."""
    found = _OWNER.match(owner)
    if found is None or found[2] != platform.node():
        return False
    if is_kept_by_system:
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _changes(path: Path, check_abort: Callable[[], None]) -> bool:
    """Whether the file changes while we look: no clock is compared with another machine's."""
    before, deadline = _content(path), time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        check_abort()
        time.sleep(min(0.5, PATIENCE_S / 10))
        if _content(path) != before:
            return True
    return False


def _content(path: Path) -> bytes:
    """Content, opened anew each time: then network disks ask the server."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(300)
    return b""


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
