"""When a fit goes wrong, and how often it may begin again from where it was right."""

import math
from collections.abc import Sequence

import torch

from gem_plugin.errors import GemError

KEEP_EVERY = 5  # steps between the states to which a fit may go back
SLOWER = 0.3  # what all rates are multiplied by when it does
MOST_RETREATS = 4
# A loss is a negative log-likelihood, about 0 for no map at all. It may rise by this much above the lowest: times the
# size of that, and a particle. Minibatches and new grids change it by far less, and a fit that diverges by far more.
LARGEST_RISE = 10.0
LEAST_OF_STATE = 0.1  # of the largest rise: a state above it is not kept as a good one


class DivergedError(GemError):
    """A fit's loss or its Gaussians are no longer numbers, or far from what they were, and going back does not help."""


class Divergence:
    """Judges a fit's losses, and holds its last good state.

    Parameters
    ----------
    n_particles : that the loss is of
    """

    def __init__(self, n_particles: int) -> None:
        self._n_particles = n_particles
        self._lowest = math.inf
        self._retreats = 0
        self._good_after = 0  # steps
        self._good: list[torch.Tensor] = []

    @property
    def slower(self) -> float:
        """What the rates are multiplied by: 1 for a fit that never diverged."""
        return SLOWER**self._retreats

    def trouble(self, loss: float, are_finite: bool) -> str:
        """What is wrong after a step, in words; empty if nothing is."""
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not are_finite:
            return "its Gaussians are no longer numbers"
        if loss > self._lowest + self._largest_rise():
            return f"its loss rose from {self._lowest:.4g} to {loss:.4g}"
        return ""

    def accept(self, loss: float, step: int) -> bool:
        """Take note of a good loss; whether the state that has it is to be kept, with `keep`."""
        self._lowest = min(self._lowest, loss)
        is_due = not self._good or step >= self._good_after + KEEP_EVERY
        return is_due and loss <= self._lowest + LEAST_OF_STATE * self._largest_rise()

    def keep(self, step: int, state: list[torch.Tensor]) -> None:
        """Keep the state after `step` steps as the last good one."""
        self._good_after, self._good = step, state

    def retreat(self, step: int, trouble: str) -> tuple[list[torch.Tensor], str]:
        """The last good state, from which to go on at `slower` rates, and what to say of it, the first time.

        Raises
        ------
        DivergedError
            If there is none, or if it was gone back to too often.
        """
        self._retreats += 1
        if not self._good or self._retreats > MOST_RETREATS:
            often = f", after {MOST_RETREATS} returns to an earlier state with smaller steps" if self._good else ""
            raise DivergedError(
                f"the fit diverged at step {step + 1}: {trouble}{often}; look for extreme pixel values in the particle"
                " images, or give fewer --n_gaussians"
            )
        said = f"the fit diverged at step {step + 1}, {trouble}: it goes on from step {self._good_after}, more slowly"
        return self._good, said if self._retreats == 1 else ""

    def state(self) -> list[torch.Tensor]:
        """All of it, for `restore`; numbers first."""
        numbers = torch.tensor([self._lowest, self._retreats, self._good_after], dtype=torch.float64)
        return [numbers, *(tensor.clone() for tensor in self._good)]

    def restore(self, kept: Sequence[torch.Tensor], device: torch.device) -> None:
        """Go back to a `state`."""
        lowest, retreats, good_after = kept[0].tolist()
        self._lowest, self._retreats, self._good_after = lowest, int(retreats), int(good_after)
        self._good = [tensor.to(device, copy=True) for tensor in kept[1:]]

    def _largest_rise(self) -> float:
        return LARGEST_RISE * (abs(self._lowest) + self._n_particles)
