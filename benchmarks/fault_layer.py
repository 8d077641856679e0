"""A faulty file layer in Python: the operations that a job does on files of one folder fail from some moment on.

For benchmarks/faults.py and the tests. ``LD_PRELOAD`` is not there on every machine; what a library does in C with a
descriptor of its own is not seen here. mrcfile, numpy.savez, matplotlib and our own code all write through Python.
"""

import builtins
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPERATIONS = ("make", "write", "sync", "rename", "read")


@dataclass
class FaultLayer:
    """What fails, where, and from which operation on.

    Parameters
    ----------
    folder : files below it are concerned, no others
    operations : some of `OPERATIONS`
    error : errno of what is raised; 0: nothing fails and operations are counted
    after : so many of them still succeed
    lasts : whether all later ones fail, too, as on a full disk, or only that one
    short_reads : a seed; reads of images then return some bytes of those that were asked for
    """

    folder: Path
    operations: tuple[str, ...]
    error: int = 0
    after: int = 0
    lasts: bool = True
    short_reads: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    n_failed: int = 0

    def __post_init__(self) -> None:
        self._root = os.path.realpath(self.folder) + os.sep
        self._random = random.Random(self.short_reads or 0)

    def meet(self, operation: str, path: Any) -> None:
        """Count an operation, and let it fail if it is its turn."""
        name = _name(path)
        if operation not in self.operations or not self._is_concerned(name):
            return
        self.counts[operation] += 1
        number = sum(self.counts.values())
        if self.error and (number > self.after if self.lasts else number == self.after + 1):
            self.n_failed += 1
            raise OSError(self.error, os.strerror(self.error), name)

    def _is_concerned(self, name: str) -> bool:
        return (os.path.realpath(os.path.dirname(name)) + os.sep).startswith(self._root)

    @contextmanager
    def installed(self) -> Iterator["FaultLayer"]:
        """Put the layer between Python and the files inside the ``with`` block."""
        kept = {(module, name): getattr(module, name) for module, name in self._replacements()}
        try:
            for (module, name), replacement in self._replacements().items():
                setattr(module, name, replacement)
            yield self
        finally:
            for (module, name), original in kept.items():
                setattr(module, name, original)

    def _replacements(self) -> dict[tuple[Any, str], Callable[..., Any]]:
        opened = self._open(io.open)
        return {
            (builtins, "open"): opened,
            (io, "open"): opened,
            (os, "open"): self._os_open(os.open),
            (os, "mkdir"): self._before("make", os.mkdir),
            (os, "write"): self._before("write", os.write),
            (os, "pwrite"): self._before("write", os.pwrite),
            (os, "fsync"): self._before("sync", os.fsync),
            (os, "replace"): self._before("rename", os.replace),
            (os, "rename"): self._before("rename", os.rename),
            (os, "preadv"): self._preadv(os.preadv),
        }

    def _before(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:
            self.meet(operation, path)
            return function(path, *rest, **named)

        return call

    def _os_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            is_new = flags & os.O_CREAT and not os.path.lexists(path)
            self.meet("make" if is_new else "read", path)
            return function(path, flags, *rest, **named)

        return call

    def _preadv(self, function: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, buffers: list[Any], offset: int, *rest: Any) -> int:
            self.meet("read", descriptor)
            if self.short_reads is None or not self._is_concerned(_name(descriptor)):
                return function(descriptor, buffers, offset, *rest)
            self.counts["short"] += 1
            return function(descriptor, [buffers[0][: self._random.randint(1, len(buffers[0]))]], offset, *rest)

        return call

    def _open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if isinstance(path, int) or not self._is_concerned(_name(path)) or buffering == 0:
                return function(path, mode, buffering, *rest, **named)
            self.meet("make" if set(mode) & set("wxa") and not os.path.lexists(path) else "read", path)
            raw = _FaultyFile(self, os.fspath(path), mode.replace("b", "").replace("t", ""))
            if "+" in mode:
                buffered: Any = io.BufferedRandom(raw)
            else:
                buffered = io.BufferedWriter(raw) if set(mode) & set("wxa") else io.BufferedReader(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **named)

        return call


def _name(path: Any) -> str:
    """The name of what a path or a descriptor leads to; empty if it has none."""
    try:
        return os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
    except (OSError, TypeError):
        return ""


class _FaultyFile(io.FileIO):
    """A file whose every read and write passes the layer."""

    def __init__(self, layer: FaultLayer, path: Any, mode: str) -> None:
        self._layer, self._path = layer, path
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        self._layer.meet("write", self._path)
        return super().write(data)

    def readinto(self, buffer: Any) -> int | None:
        self._layer.meet("read", self._path)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._layer.meet("read", self._path)
        return super().readall()
