"""What a run keeps while it works, so that one that ended early can go on from there.

The science names what it keeps and says what arrays it is; where they lie, for which run, and when it is time again, a
`Store` knows. What is kept follows from particles and settings alone, so whoever finds it again may use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_WARNINGS = "warnings_until_then"


class Store(Protocol):
    """Keeps named sets of arrays from one run of a job to the next."""

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What an earlier run kept under that name; None if there is nothing, or nothing that can be read."""

    def keep(self, name: str, arrays: Arrays) -> None:
        """Keep arrays in place of those of that name. A disk that takes them not ends no run."""

    def drop(self, prefix: str) -> None:
        """Forget what has a name that begins so."""

    def is_due(self) -> bool:
        """Whether enough time has passed since something was kept, or the run's end was announced."""


class NoStore:
    """Keeps nothing."""

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Find nothing."""
        return None

    def keep(self, name: str, arrays: Arrays) -> None:
        """Forget at once."""

    def drop(self, prefix: str) -> None:
        """Nothing is there."""

    def is_due(self) -> bool:
        """Never."""
        return False


class Warned(Protocol):
    """Who was told what there is to be wary of: repeats are dropped."""

    warnings: list[str]

    def warn(self, message: str) -> None:
        """Tell it, unless it was told before."""


@dataclass(frozen=True)
class Checkpoints:
    """A part of a store, by the beginning of its names.

    The warnings of the run until then are kept beside the arrays and told again when these are found: the report of a
    run that was continued is that of one that was not interrupted.
    """

    store: Store
    prefix: str = ""
    warned: Warned | None = None

    def within(self, name: str) -> "Checkpoints":
        """Of a part of the run, such as a half set."""
        return replace(self, prefix=f"{self.prefix}{name}_")

    def telling(self, warned: Warned) -> "Checkpoints":
        """The same, with another who is told."""
        return replace(self, warned=warned)

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """See `Store`."""
        kept = self.store.load(self.prefix + name)
        if kept is not None:
            for sentence in kept.pop(_WARNINGS, np.zeros(0, dtype=str)):
                if self.warned is not None:
                    self.warned.warn(str(sentence))
        return kept

    def keep(self, name: str, arrays: Arrays) -> None:
        """See `Store`."""
        warnings = np.array(self.warned.warnings if self.warned is not None else [], dtype=np.str_)
        self.store.keep(self.prefix + name, {**arrays, _WARNINGS: warnings})

    def drop(self, *names: str) -> None:
        """Forget what has names that begin so."""
        for name in names:
            self.store.drop(self.prefix + name)

    def is_due(self) -> bool:
        """See `Store`."""
        return self.store.is_due()


NO_CHECKPOINTS = Checkpoints(NoStore())
