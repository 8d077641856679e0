"""How the science tells its caller what it is doing, and asks whether to go on."""

from typing import Protocol


class Monitor(Protocol):
    """What a long computation calls while it runs. Implementations must be cheap: calls are frequent."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage, e.g. ``("Half 1: reading particles", 2000, "particles")``."""

    def advance(self, done: int, **figures: float) -> None:
        """`done` of the stage's `total` units are finished; `figures` (e.g. ``loss=...``) are shown beside it.

        Raises
        ------
        JobAborted
            If the run was asked to end.
        """

    def note(self, message: str) -> None:
        """One line for the log: a choice that was made, a result."""

    def warn(self, message: str) -> None:
        """One line for the log and the report: something that the user should know. Repeats are dropped."""


class SilentMonitor:
    """Says nothing and never stops: for scripts and tests. Keeps warnings and notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def stage(self, name: str, total: int, unit: str) -> None:
        """Ignore the stage."""

    def advance(self, done: int, **figures: float) -> None:
        """Ignore the progress."""

    def note(self, message: str) -> None:
        """Keep the note."""
        self.notes.append(message)

    def warn(self, message: str) -> None:
        """Keep the warning, once."""
        if message not in self.warnings:
            self.warnings.append(message)
