"""Several processes that make one reconstruction: what they share out, and how they bring it together again.

Every member runs the same program on the same particles and settings, so all of them choose the same random numbers.
They read disjoint particles; sums are added up; each half set is fitted by one member. Member 0 is the one that
writes results. Arrays travel through torch.distributed's gloo, which needs nothing but a network.
"""

import datetime
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.errors import GemError

Item = TypeVar("Item")

LONGEST_WAIT = datetime.timedelta(days=7)  # for a member that fits: a member that died is noticed at once
LONGEST_JOINING = datetime.timedelta(minutes=10)
JOINING_POLL_S = 0.05
_ERROR, _HERE = "error of member", "here is member"


class TeamError(GemError):
    """Another process of the run ended, or cannot be reached."""


class Team:
    """One process alone: nothing to share out, nothing to bring together."""

    rank = 0
    size = 1
    rank_on_machine = 0  # which of the members on one machine this is

    def owner_of(self, half_set: int) -> int:
        """The member that fits a half set, 1 or 2."""
        return (half_set - 1) % self.size

    def owns(self, half_set: int) -> bool:
        """Whether this process fits a half set."""
        return self.rank == self.owner_of(half_set)

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part of some particles that this member takes: a run of them in their order, which may be empty."""
        begin, end = (len(indices) * member // self.size for member in (self.rank, self.rank + 1))
        return indices[begin:end]

    def sum_at(self, owner: int, arrays: Sequence[NDArray[Any]]) -> None:
        """Add the members' arrays up, in place, at one of them; elsewhere they are spent."""

    def gathered(self, value: Item) -> list[Item]:
        """What each member has, in their order, for all of them."""
        return [value]

    def told_by(self, owner: int, value: Item | None) -> Item:
        """What one member has, for all of them."""
        if value is None:
            raise ValueError(f"member {owner} has nothing to tell")
        return value

    def sent(self, sender: int, receiver: int, value: Item | None) -> Item | None:
        """What one member has, for one other; None for those that are neither."""
        return value

    def close(self) -> None:
        """Leave the team."""


class DistributedTeam(Team):
    """A member of several, which find each other at one address.

    Parameters
    ----------
    rank, size : which member this is, 0 to size - 1, and how many there are
    address, port : where the members meet
    rank_on_machine : which of the members on one machine this is
    hosts : whether this member listens there, as one of them has to if nothing else does
    may_wait : asked now and then while not all are there; False where one of them will never come

    Raises
    ------
    TeamError
        If the members do not find each other.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        address: str,
        port: int,
        *,
        rank_on_machine: int,
        hosts: bool,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        import torch.distributed as network

        self.rank, self.size, self.rank_on_machine = rank, size, rank_on_machine
        self._network = network
        try:
            self._store = network.TCPStore(  # type: ignore[attr-defined]
                address, port, is_master=hosts, timeout=LONGEST_JOINING
            )
            self._await_all(may_wait)  # the group itself would wait as long for one that died as for one that fits
            network.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
        except (RuntimeError, ValueError) as error:
            raise TeamError(
                f"process {rank + 1} of {size} cannot reach the others at {address}, port {port} ({error}): are all"
                " of them running, and may they open connections to each other?"
            ) from error

    def _await_all(self, may_wait: Callable[[], bool]) -> None:
        """Wait until all members have come to the meeting place.

        Raises
        ------
        RuntimeError
            If they do not.
        """
        self._store.set(f"{_HERE} {self.rank}", "")
        others = [f"{_HERE} {member}" for member in range(self.size)]
        deadline = time.monotonic() + LONGEST_JOINING.total_seconds()
        while not self._store.check(others):
            if not may_wait():
                raise RuntimeError("another process ended before it joined")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all of them came within {LONGEST_JOINING.total_seconds():.0f} s")
            time.sleep(JOINING_POLL_S)

    def sum_at(self, owner: int, arrays: Sequence[NDArray[Any]]) -> None:
        """See `Team`."""
        for array in arrays:
            self._do(self._network.reduce, torch.from_numpy(array), dst=owner)

    def gathered(self, value: Item) -> list[Item]:
        """See `Team`."""
        found: list[Any] = [None] * self.size
        self._do(self._network.all_gather_object, found, value)
        return found

    def told_by(self, owner: int, value: Item | None) -> Item:
        """See `Team`."""
        box = [value]
        self._do(self._network.broadcast_object_list, box, src=owner)
        return super().told_by(owner, box[0])

    def sent(self, sender: int, receiver: int, value: Item | None) -> Item | None:
        """See `Team`."""
        if sender == receiver or self.rank not in (sender, receiver):
            return value if self.rank == receiver else None
        if self.rank == sender:
            self._do(self._network.send_object_list, [value], dst=receiver)
            return None
        box: list[Item | None] = [None]
        self._do(self._network.recv_object_list, box, src=sender)
        return box[0]

    def tell_error(self, sentence: str) -> None:
        """Leave word of why this member ends, for those that will miss it."""
        self._store.set(f"{_ERROR} {self.rank}", sentence)

    def close(self) -> None:
        """See `Team`."""
        if self._network.is_initialized():
            self._network.destroy_process_group()

    def _do(self, act: Any, *arguments: Any, **named: Any) -> None:
        try:
            act(*arguments, **named)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TeamError(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        for member in range(self.size):
            key = f"{_ERROR} {member}"
            try:
                if self._store.check([key]):
                    return f"process {member + 1} of {self.size} ended: {self._store.get(key).decode()}"
            except RuntimeError:
                break
        return (
            f"another of the {self.size} processes ended without a word, or the network between them failed"
            f" ({str(error).splitlines()[0]}): was it killed, for its memory perhaps? Its own log may say"
        )


SOLO = Team()
