"""The fits of one half set: the one to a quarter set that says how many steps they take, and those that are averaged.

A fit is kept now and then; one that an earlier run has begun goes on where it was.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.coarse_scale import to_coarse_density
from gem_plugin.config import ReconstructionConfig
from gem_plugin.fit import FitSettings, FitState, GaussianFit, stochastic_settings
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.half_problem import HalfData, data_term, drawn
from gem_plugin.image_term import PARTICLES_PER_STEP
from gem_plugin.masks import soft_mask
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.reconstruction import FitHistory
from gem_plugin.resuming import fit_arrays, gaussian_arrays, gaussians_of, resume
from gem_plugin.stopping import EVALUATIONS, FEWEST_SHARE, HeldOutScore, StepChoice, most_steps_of_the_quarter

COLLAPSED_SCHEDULE_STEPS = 40
# of the schedule, where there is signal: a collapsed fit moves the shells that count little last, and the mean of
# several gains nothing at the end
STEP_SHARES = {"collapsed": (0.5, 0.75), "images": (FEWEST_SHARE, 1.0)}
LOG_SCALE_RATES = 0.02, 0.05  # where the signal does not reach far, and where all shells show it
IMAGES_SCHEDULE_EPOCHS = 10
FEWEST_IMAGES_SCHEDULE_STEPS = 300


@dataclass(frozen=True)
class StepPlan:
    """How long a half is fitted, and the extra fit that said so."""

    n_steps: int
    schedule_steps: int
    scores: StepChoice | None


def schedule_steps(config: ReconstructionConfig, n_particles: int) -> int:
    """Steps of a whole schedule for a half set of some particles."""
    if config.steps:
        return config.steps
    if config.fit == "images":
        epochs = IMAGES_SCHEDULE_EPOCHS * n_particles // PARTICLES_PER_STEP
        return max(epochs, FEWEST_IMAGES_SCHEDULE_STEPS)
    return COLLAPSED_SCHEDULE_STEPS


def plan_steps(half: HalfData, generator: np.random.Generator) -> StepPlan:
    """Fit quarter A, score on quarter B, and give the half its steps."""
    run, quarters = half.run, half.quarters
    steps = schedule_steps(run.config, sum(len(part) for part in quarters.indices))
    if run.config.steps:
        return StepPlan(steps, steps, None)
    mask = soft_mask(half.start.density, run.radius_px)
    score = HeldOutScore(quarters.maps[0], quarters.maps[1], mask, run.last_shell, run.group.order)
    choice = StepChoice([], [])
    if not score.is_meaningful:
        return StepPlan(choice.for_the_half(steps), steps, None)
    kept = run.checkpoints.load("choice") or {}
    if kept:
        choice = StepChoice(kept["evaluated"].tolist(), kept["scores"].tolist())
    if not (kept and kept["is_made"]):
        run.monitor.stage(f"{half.name}: choosing the number of steps", _most_steps(half, steps), "steps")
        _fit_a_quarter(half, steps, score, choice, kept, generator)
    return StepPlan(choice.for_the_half(steps, *STEP_SHARES[run.config.fit]), steps, choice)


def _most_steps(half: HalfData, schedule: int) -> int:
    """Steps of the quarter's fit at most."""
    return most_steps_of_the_quarter(schedule, STEP_SHARES[half.run.config.fit][1])


def _fit_a_quarter(
    half: HalfData,
    steps: int,
    score: HeldOutScore,
    choice: StepChoice,
    kept: dict[str, NDArray[Any]],
    generator: np.random.Generator,
) -> None:
    """Fit quarter A until its scores on quarter B say that it is enough; go on where an earlier run was."""
    run, quarters = half.run, half.quarters
    every = max(steps // EVALUATIONS, 1)

    def keep(**more: NDArray[Any]) -> None:
        scores = {"evaluated": np.array(choice.steps, dtype=np.int64), "scores": np.array(choice.scores)}
        run.checkpoints.keep("choice", {**more, **scores, "is_made": np.array("step" not in more)})

    def on_step(state: FitState) -> None:
        run.monitor.advance(state.step, loss=state.loss / len(quarters.indices[0]))
        if state.step % every == 0 and choice.record(state.step, score(drawn(state.gaussians(), run))):
            raise _EnoughError
        if run.checkpoints.is_due():
            keep(**fit_arrays(fit, state.step))

    with data_term(half, quarters.equations[0], quarters.indices[0], generator) as term:
        settings = fit_settings(half, _most_steps(half, steps), steps)
        fit = GaussianFit(term, half.place(generator), settings, double=run.engine == "reference")
        first_step = _resumed(fit, kept, half)
        with contextlib.suppress(_EnoughError):
            fit.run(on_step, first_step, lambda sentence: run.monitor.warn(f"{half.name}: {sentence}"))
    keep()


def _resumed(fit: GaussianFit, kept: dict[str, NDArray[Any]], half: HalfData) -> int:
    """Take a fit up where an earlier run kept it, if it did; return the steps that it has taken."""
    if "step" not in kept:
        return 0
    step = resume(fit, kept)
    half.run.monitor.note(f"{half.name}: going on after step {step}, from the checkpoint")
    return step


class _EnoughError(Exception):
    """The choice of steps is made."""


def fit_as_often_as_averaged(
    half: HalfData, equations: NormalEquations, plan: StepPlan, generator: np.random.Generator
) -> tuple[list[Gaussians], FitHistory]:
    """Fit the half as often as is averaged; the history is that of the first fit."""
    run = half.run
    n_fits = half.n_fits
    kept = run.checkpoints.load("fits") or {}
    fits = gaussians_of(kept)
    losses: list[float] = kept["losses"].tolist() if kept else []
    boxes: list[int] = kept["boxes"].tolist() if kept else []
    run.monitor.stage(f"{half.name}: fitting {n_fits * half.n_gaussians} Gaussians", n_fits * plan.n_steps, "steps")

    def keep(**more: NDArray[Any]) -> None:
        history = {"losses": np.array(losses), "boxes": np.array(boxes, dtype=np.int64)}
        run.checkpoints.keep("fits", {**more, **gaussian_arrays(fits), **history})

    def on_step(state: FitState) -> None:
        loss = state.loss / equations.n_particles
        if not fits:
            losses.append(loss)
            boxes.append(state.box_size_px)
        run.monitor.advance(len(fits) * plan.n_steps + state.step, loss=loss)
        if run.checkpoints.is_due():
            keep(**fit_arrays(fit, state.step))

    settings = fit_settings(half, plan.n_steps, plan.schedule_steps)
    with data_term(half, equations, np.concatenate(half.quarters.indices), generator) as term:
        starts = [half.place(generator) for _ in range(n_fits)]
        for start in starts[len(fits) :]:
            fit = GaussianFit(term, start, settings, double=run.engine == "reference")
            first_step, kept = _resumed(fit, kept, half), {}
            fitted = fit.run(on_step, first_step, lambda sentence: run.monitor.warn(f"{half.name}: {sentence}"))
            fits.append(finished(fitted, half))
            keep()
    n = len(losses)
    counts = np.full(n, n_fits * half.n_gaussians)
    history = FitHistory(np.arange(1, n + 1), np.array(losses), np.array(boxes), np.full(n, np.nan), counts)
    return fits, history


def fit_settings(half: HalfData, n_steps: int, schedule: int) -> FitSettings:
    """Widths move the slower the less of the signal there is to move them: what does is noise."""
    if half.run.config.fit == "images":
        return stochastic_settings(n_steps, schedule)
    slow, fast = LOG_SCALE_RATES
    return FitSettings(n_steps, schedule, log_scale_rate=slow + (fast - slow) * half.reach**2)


def finished(fitted: Gaussians, half: HalfData) -> Gaussians:
    """A fit, its coarse density made the data's as far as few steps have not, where the signal does not reach far."""
    run, quarters = half.run, half.quarters
    if run.config.fit == "images":
        return fitted
    model_free = (quarters.maps[0] + quarters.maps[1]) / 2
    return to_coarse_density(fitted, drawn(fitted, run), model_free, half.start.quarter_fsc, 1 - half.reach)
