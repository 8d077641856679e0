"""The fits of one half set: the one to a quarter set that says how many steps they take, and those that are averaged.

A fit is kept now and then; one that an earlier run has begun goes on where it was.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.config import ReconstructionConfig
from gem_plugin.fit import DataTerm, FitSettings, FitState, GaussianFit, stochastic_settings
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.gaussians.start import Start, choose_coarse_box, place_gaussians
from gem_plugin.half_data import QuarterSets
from gem_plugin.image_term import PARTICLES_PER_STEP, ImageTerm
from gem_plugin.imaging import image_planes
from gem_plugin.io.particles import Particles
from gem_plugin.masks import soft_mask
from gem_plugin.noise import noise_power_at
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.prediction import Imaging
from gem_plugin.reconstruction import FitHistory
from gem_plugin.render import Map, choose_render_box, gaussian_map
from gem_plugin.resuming import fit_arrays, gaussian_arrays, gaussians_of, resume
from gem_plugin.run import Run
from gem_plugin.signal_prior import prior_weight, with_prior
from gem_plugin.spreading import fast_even_size
from gem_plugin.stopping import EVALUATIONS, HeldOutScore, StepChoice

COLLAPSED_SCHEDULE_STEPS = 40
FITS = 2  # of a half, from other random draws, whose maps are averaged: what only one of them made is mostly noise
IMAGES_SCHEDULE_EPOCHS = 10
FEWEST_IMAGES_SCHEDULE_STEPS = 300


@dataclass(frozen=True)
class StepPlan:
    """How long a half is fitted, and the extra fit that said so."""

    n_steps: int
    schedule_steps: int
    scores: StepChoice | None


@dataclass(frozen=True)
class HalfData:
    """What the fits of one half need: its particles, their two arrays, and where its Gaussians start."""

    name: str
    particles: Particles
    quarters: QuarterSets
    start: Start
    n_gaussians: int
    run: Run

    @functools.cached_property
    def signal_prior(self) -> NDArray[np.float64]:
        """1 / tau^2 of each shell, for a part of the half too: the signal's power does not depend on the data."""
        first, second = self.quarters.equations
        return prior_weight(first + second, self.start, self.run.last_shell)

    @functools.cached_property
    def imaging(self) -> Imaging:
        """How the half's images are compared with Gaussians."""
        run, quarters = self.run, self.quarters
        planes = image_planes(self.particles, run.plane)
        return Imaging(
            run.plane,
            planes,
            tuple(noise_power_at(noise, plane) for noise, plane in zip(quarters.noise, planes, strict=True)),
            quarters.greyscale,
            tuple(run.render_box_px if plane is run.plane else choose_render_box(plane) for plane in planes),
        )

    def place(self, generator: np.random.Generator) -> Gaussians:
        """A random draw of Gaussians on the start density."""
        group = self.run.group
        return place_gaussians(self.start.density, self.n_gaussians, generator, group.name, group.order)


@contextlib.contextmanager
def data_term(
    half: HalfData, equations: NormalEquations, indices: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[DataTerm]:
    """The likelihood of some particles of the half: image by image, or collapsed in the box that holds the density.

    Collapsed, the signal's power that the half itself shows is a prior on the map.
    """
    run = half.run
    if run.config.fit == "images":
        with ImageTerm(
            half.particles,
            indices,
            half.imaging,
            engine=run.engine,
            generator=generator.spawn(1)[0],  # its thread draws while Gaussians are placed
            group=run.group,
            scratch=run.config.scratch,
            tell=lambda sentence: run.monitor.note(f"{half.name}: {sentence}"),
        ) as term:
            yield term
        return
    window = min(fast_even_size(half.start.window_px * run.voxels_per_px), run.render_box_px)
    yield CollapsedTerm(
        with_prior(equations.window(window), half.signal_prior, run.render_box_px),
        engine=run.engine,
        n_threads=run.n_threads,
        voxels_per_px=run.voxels_per_px,
        coarse_box=choose_coarse_box(half.start, window, run.render_box_px),
        group=run.group,
    )


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
        run.monitor.stage(f"{half.name}: choosing the number of steps", steps, "steps")
        _fit_a_quarter(half, steps, score, choice, kept, generator)
    return StepPlan(choice.for_the_half(steps), steps, choice)


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
        settings = _settings(run.config, steps, steps)
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
    n_fits = n_fits_of(run.config)
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

    settings = _settings(run.config, plan.n_steps, plan.schedule_steps)
    with data_term(half, equations, np.concatenate(half.quarters.indices), generator) as term:
        starts = [half.place(generator) for _ in range(n_fits)]
        for start in starts[len(fits) :]:
            fit = GaussianFit(term, start, settings, double=run.engine == "reference")
            first_step, kept = _resumed(fit, kept, half), {}
            fits.append(fit.run(on_step, first_step, lambda sentence: run.monitor.warn(f"{half.name}: {sentence}")))
            keep()
    n = len(losses)
    counts = np.full(n, n_fits * half.n_gaussians)
    history = FitHistory(np.arange(1, n + 1), np.array(losses), np.array(boxes), np.full(n, np.nan), counts)
    return fits, history


def n_fits_of(config: ReconstructionConfig) -> int:
    """One where the number of Gaussians was given: it is kept to."""
    return 1 if config.n_gaussians or config.fit == "images" else FITS


def _settings(config: ReconstructionConfig, n_steps: int, schedule: int) -> FitSettings:
    return stochastic_settings(n_steps, schedule) if config.fit == "images" else FitSettings(n_steps, schedule)


def drawn(gaussians: Gaussians, run: Run) -> Map:
    """The map of some Gaussians on the images' pixels, [n, n, n]."""
    box, fine_box = run.plane.box_size_px, run.render_box_px
    return gaussian_map(gaussians, box, fine_box, engine=run.engine, n_threads=run.n_threads)
