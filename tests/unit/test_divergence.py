"""A fit that diverges goes back to its last good state, goes on with smaller steps, and says so once."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gem_plugin.divergence import MOST_RETREATS, DivergedError
from gem_plugin.errors import JobAborted
from gem_plugin.fit import FitSettings, FitState, GaussianFit
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.ops.replicate import Tensors

STEPS = 30
TARGET = torch.tensor([[2.0, -1.0, 0.5]])
PARTICLES = 4
OFFSET = -50.0  # a likelihood less a constant: its lowest is far below 0

Spoil = Callable[[float, tuple[torch.Tensor, ...]], float]


class Bowl:
    """A data term whose loss is lowest where all centres are at TARGET; calls of a number may be spoilt."""

    voxels_per_px = 1.0
    radius_px = 16.0
    device = torch.device("cpu")
    n_particles = PARTICLES

    def __init__(self, spoilt: dict[int, Spoil] | None = None, always: Spoil | None = None) -> None:
        self.spoilt, self.always = spoilt or {}, always
        self.calls = 0
        self.distances: list[float] = []  # from the target at each call

    def box_size_at(self, step: int, schedule_steps: int) -> int:
        return 32

    def backward(self, unit: Tensors, step: int, schedule_steps: int) -> float:
        drawn = torch.isfinite(unit[0]).all(dim=1)  # an engine draws nothing for what is no number
        loss = ((unit[0][drawn] - TARGET) ** 2).sum() + 0.01 * sum((part[drawn] ** 2).sum() for part in unit[1:])
        loss.backward()
        self.calls += 1
        self.distances.append(float((unit[0].detach() - TARGET).norm()))
        value = float(loss.detach()) + OFFSET
        spoil = self.always if self.always is not None and self.calls > 1 else self.spoilt.get(self.calls)
        return value if spoil is None else spoil(value, tuple(part for part in unit if part.is_leaf))

    def best_scale(self, unit: Tensors) -> float:
        return 1.0


def nan_loss(value: float, leaves: tuple[torch.Tensor, ...]) -> float:
    return float("nan")


def infinite_gradient(value: float, leaves: tuple[torch.Tensor, ...]) -> float:
    """The loss stays a number."""
    assert leaves[0].grad is not None
    leaves[0].grad[1, 2] = float("inf")
    return value


def far_too_high(value: float, leaves: tuple[torch.Tensor, ...]) -> float:
    return 1000.0


def a_little_high(value: float, leaves: tuple[torch.Tensor, ...]) -> float:
    return 100.0


def fit_of(term: Bowl, steps: int = STEPS) -> GaussianFit:
    generator = np.random.default_rng(3)
    start = Gaussians(
        generator.normal(size=(5, 3)).astype(np.float32),
        np.full((5, 3), 0.3, np.float32),
        np.tile(np.float32([1, 0.1, 0, 0]), (5, 1)),
        np.ones(5, np.float32),
        "C1",
    )
    return GaussianFit(term, start, FitSettings(steps, steps))


def run(term: Bowl, steps: int = STEPS) -> tuple[Gaussians, list[FitState], list[str]]:
    states: list[FitState] = []
    said: list[str] = []
    found = fit_of(term, steps).run(states.append, tell=said.append)
    return found, states, said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nan_loss, "at step 13, its loss is nan: it goes on from step 10"),
        (infinite_gradient, "at step 14, its Gaussians are no longer numbers: it goes on from step 10"),
        (far_too_high, "at step 13, its loss rose from -"),
    ],
)
def test_the_fit_goes_back_and_goes_on(spoil: Spoil, words: str) -> None:
    term, plain = Bowl({13: spoil}), Bowl()
    found, states, said = run(term)
    expected, _, _ = run(plain)
    assert len(said) == 1
    assert words in said[0]
    assert [state.step for state in states] == list(range(1, STEPS + 1))
    assert all(np.isfinite(state.loss) and state.loss < 0 for state in states)
    bad = 14 if spoil is infinite_gradient else 13
    assert term.distances[bad] == plain.distances[10], "the state before the 11th step"
    moved = [abs(np.diff(t.distances)[i]) for t, i in ((term, bad), (plain, 10))]
    assert moved[0] == pytest.approx(0.3 * moved[1], rel=0.25), "smaller steps"
    assert np.abs(found.centres_px - TARGET.numpy()).max() < np.abs(fit_of(Bowl()).gaussians().centres_px).max()
    assert not np.array_equal(found.centres_px, expected.centres_px)


def test_a_fit_that_does_not_diverge_is_left_alone() -> None:
    """A loss may rise, as that of a minibatch does: nothing is said, and no step is another."""
    found, _, said = run(Bowl({13: a_little_high}))
    expected, _, _ = run(Bowl())
    assert said == []
    for name in ("centres_px", "log_scales", "quaternions", "amplitudes"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_the_last_step_is_looked_at_too() -> None:
    found, states, said = run(Bowl({STEPS: infinite_gradient}))
    assert len(states) == STEPS
    assert len(said) == 1
    assert np.isfinite(found.centres_px).all()


@pytest.mark.parametrize("spoil", [nan_loss, infinite_gradient])
def test_going_back_ends(spoil: Spoil) -> None:
    term = Bowl(always=spoil)
    said: list[str] = []
    with pytest.raises(DivergedError, match=rf"diverged at step \d+: its .*after {MOST_RETREATS} returns"):
        fit_of(term).run(lambda state: None, tell=said.append)
    assert len(said) == 1
    assert term.calls < 3 * (MOST_RETREATS + 2)


def test_without_a_good_state_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(DivergedError, match=r"diverged at step 1: its loss is nan; look for"):
        run(Bowl({1: nan_loss}))


@pytest.mark.parametrize("stopped_after", [11, 13, 14, 20])
def test_a_fit_that_diverged_is_taken_up_again_as_if_nothing_had_been(stopped_after: int) -> None:
    """Stopped before and after it goes back, and between the bad step and its discovery."""
    expected, _, _ = run(Bowl({14: infinite_gradient, 23: far_too_high}))
    first = fit_of(term := Bowl({14: infinite_gradient, 23: far_too_high}))

    def stop(state: FitState) -> None:
        if state.step == stopped_after:
            raise JobAborted("enough")

    with pytest.raises(JobAborted):
        first.run(stop)
    second = fit_of(term)
    second.restore(first.state())
    found = second.run(lambda state: None, first_step=stopped_after)
    for name in ("centres_px", "log_scales", "quaternions", "amplitudes"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
