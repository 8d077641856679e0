"""Everything that is made from one half set: data term, model-free map, number of steps, Gaussians.

A half never sees the other: its random numbers, noise, start, number of Gaussians and steps come from its own
particles and the settings alone.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions, dataset
from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import InputError
from gem_plugin.fit import FitSettings, FitState, GaussianFit
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.gaussians.start import Start, choose_coarse_box, choose_n_gaussians, place_gaussians, start_density
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.masks import soft_mask
from gem_plugin.model_free import solve_model_free, support_sphere
from gem_plugin.monitor import Monitor
from gem_plugin.noise import Noise, measure_noise, noise_power_at
from gem_plugin.normal_equations import Accumulator, NormalEquations
from gem_plugin.reconstruction import FitHistory, HalfResult
from gem_plugin.render import gaussian_map
from gem_plugin.spreading import fast_even_size
from gem_plugin.stopping import EVALUATE_EVERY, HeldOutScore, StepChoice
from gem_plugin.symmetry import PointGroup, symmetrise
from gem_plugin.symmetry_check import LEAST_AGREEMENT, symmetry_agreement

Map = NDArray[np.floating[Any]]

SCHEDULE_STEPS = 100
LARGEST_EXACT_ORDER = 24  # a mean over a larger group in every iteration would take longer than all else
POINTS_PER_BATCH = 4_000_000  # of the slices of the particles that are in memory at once


@dataclass(frozen=True)
class Run:
    """What both halves share: settings and machinery, no data."""

    config: ReconstructionConfig
    engine: str
    n_threads: int
    plane: conventions.HalfPlane
    render_box_px: int  # voxels on an axis of the grid on which Gaussians are drawn
    radius_px: float  # of the particle sphere
    group: PointGroup
    monitor: Monitor

    @property
    def voxels_per_px(self) -> float:
        """Voxels of the render grid on a pixel of the images."""
        return self.render_box_px / self.plane.box_size_px

    @property
    def last_shell(self) -> int:
        """Last Fourier shell of the map that holds data."""
        return min(int(self.plane.radius.max()), self.plane.box_size_px // 2)


@dataclass(frozen=True)
class QuarterSets:
    """A half set's data in two parts."""

    equations: tuple[NormalEquations, NormalEquations]
    maps: tuple[Map, Map]  # model-free
    noise: Noise


@dataclass(frozen=True)
class StepPlan:
    """How long a half is fitted, and the extra fit that said so."""

    n_steps: int
    schedule_steps: int
    scores: StepChoice | None


def process_half(particles: Particles, half_set: int, run: Run) -> HalfResult:
    """Make all of one half set's results.

    Raises
    ------
    InputError
        If images cannot be used.
    JobAborted
        If the monitor was asked to end the run.
    """
    name = f"Half {half_set}"
    seeds = np.random.SeedSequence([run.config.seed, half_set])
    split_seed, noise_seed, quarter_seed, half_seed = seeds.spawn(4)
    quarters = _accumulate(particles, half_set, run, name, split_seed, noise_seed)
    equations = quarters.equations[0] + quarters.equations[1]
    model_free = _model_free(equations, run)
    start = start_density(quarters.maps, run.radius_px)
    n_gaussians = max((run.config.n_gaussians or choose_n_gaussians(start)) // run.group.order, 1)
    plan = _plan_steps(quarters, start, n_gaussians, run, name, np.random.default_rng(quarter_seed))
    run.monitor.note(f"{name}: {n_gaussians} Gaussians, {plan.n_steps} steps{_why(run.config, plan)}")
    fit = GaussianFit(
        _data_term(equations, start, run),
        place_gaussians(start.density, n_gaussians, np.random.default_rng(half_seed), run.group.name, run.group.order),
        FitSettings(plan.n_steps, plan.schedule_steps),
        double=run.engine == "reference",
    )
    gaussians, history = _fit(fit, equations.n_particles, run, f"{name}: fitting {n_gaussians} Gaussians")
    return HalfResult(
        half_set=half_set,
        n_particles=equations.n_particles,
        gaussians=gaussians,
        gaussian_map=gaussian_map(gaussians, run.plane.box_size_px, run.render_box_px, engine=run.engine),
        model_free_map=model_free,
        noise_power=quarters.noise.power,
        history=_with_scores(history, plan.scores),
    )


def _why(config: ReconstructionConfig, plan: StepPlan) -> str:
    if config.steps:
        return " (as asked)"
    if plan.scores is None:
        return " (its quarter sets do not agree beyond chance)"
    return " (chosen on a quarter set held out)"


def _accumulate(
    particles: Particles,
    half_set: int,
    run: Run,
    name: str,
    split_seed: np.random.SeedSequence,
    noise_seed: np.random.SeedSequence,
) -> QuarterSets:
    indices = np.flatnonzero(particles.half_set == half_set)
    if len(indices) < 2:
        raise InputError(
            f"half set {half_set} has {len(indices)} particle(s) and needs at least 2, for the quarter sets that choose"
            " its settings: check rlnRandomSubset and the selection"
        )
    shuffled = np.random.default_rng(split_seed).permutation(indices)
    batch_size = max(POINTS_PER_BATCH // len(run.plane.kx), 1)
    run.monitor.stage(f"{name}: reading particles", len(indices), "particles")
    done = 0
    sums = []
    with ImageReader(particles) as reader:
        noise = measure_noise(particles, reader, indices, run.radius_px, noise_seed, run.monitor)
        for part in (shuffled[0::2], shuffled[1::2]):
            accumulator = Accumulator(run.plane, noise_power_at(noise, run.plane), run.n_threads, run.render_box_px)
            for batch in dataset.stream(particles, reader, np.sort(part), run.plane, batch_size):
                accumulator.add(batch)
                done += len(batch.indices)
                run.monitor.advance(done)
            sums.append(accumulator.finish())
            run.monitor.advance(done)
    plain = tuple(_plain_map(equations, run) for equations in sums)
    run.monitor.advance(done)
    if run.group.order == 1:
        return QuarterSets((sums[0], sums[1]), (plain[0], plain[1]), noise)
    first, second = (_model_free(equations, run) for equations in sums)
    run.monitor.advance(done)
    sphere = support_sphere(run.plane.box_size_px, run.radius_px)
    agreement = symmetry_agreement((plain[0], plain[1]), (first, second), sphere)
    if agreement is not None and agreement < LEAST_AGREEMENT:
        run.monitor.warn(
            f"{name}: the particles do not show symmetry {run.group.name}: averaging over it keeps {agreement:.0%} of"
            " the signal (the right group in RELION's orientation keeps all of it); give another --sym, or C1"
        )
    return QuarterSets((sums[0], sums[1]), (first, second), noise)


def _model_free(equations: NormalEquations, run: Run) -> Map:
    """A model-free map with the particle's symmetry: the exact solution, or a mean where that costs too much."""
    if run.group.order <= LARGEST_EXACT_ORDER:
        on_pixels = equations.crop(run.plane.box_size_px)
        return solve_model_free(on_pixels, run.radius_px, run.n_threads, run.group, run.last_shell)
    return symmetrise(_plain_map(equations, run), run.group, run.n_threads)


def _plain_map(equations: NormalEquations, run: Run) -> Map:
    on_pixels = equations.crop(run.plane.box_size_px)
    return solve_model_free(on_pixels, run.radius_px, run.n_threads, last_shell=run.last_shell)


def _data_term(equations: NormalEquations, start: Start, run: Run) -> CollapsedTerm:
    """The likelihood within the central box that holds the density."""
    window = min(fast_even_size(start.window_px * run.voxels_per_px), run.render_box_px)
    return CollapsedTerm(
        equations.window(window),
        engine=run.engine,
        n_threads=run.n_threads,
        voxels_per_px=run.voxels_per_px,
        coarse_box=choose_coarse_box(start, window, run.render_box_px),
    )


def _plan_steps(
    quarters: QuarterSets, start: Start, n_gaussians: int, run: Run, name: str, generator: np.random.Generator
) -> StepPlan:
    """Fit quarter A, score on quarter B, and give the half its steps."""
    if run.config.steps:
        return StepPlan(run.config.steps, run.config.steps, None)
    mask = soft_mask(start.density, run.radius_px)
    score = HeldOutScore(quarters.maps[0], quarters.maps[1], mask, run.last_shell, run.group.order)
    choice = StepChoice([], [])
    if not score.is_meaningful:
        return StepPlan(choice.for_the_half(SCHEDULE_STEPS), SCHEDULE_STEPS, None)
    run.monitor.stage(f"{name}: choosing the number of steps", SCHEDULE_STEPS, "steps")
    box, fine_box = run.plane.box_size_px, run.render_box_px

    def on_step(state: FitState) -> None:
        run.monitor.advance(state.step, loss=state.loss / quarters.equations[0].n_particles)
        if state.step % EVALUATE_EVERY == 0 and choice.record(
            state.step, score(gaussian_map(state.gaussians(), box, fine_box, engine=run.engine))
        ):
            raise _EnoughError

    fit = GaussianFit(
        _data_term(quarters.equations[0], start, run),
        place_gaussians(start.density, n_gaussians, generator, run.group.name, run.group.order),
        FitSettings(SCHEDULE_STEPS, SCHEDULE_STEPS),
        double=run.engine == "reference",
    )
    with contextlib.suppress(_EnoughError):
        fit.run(on_step)
    return StepPlan(choice.for_the_half(SCHEDULE_STEPS), SCHEDULE_STEPS, choice)


class _EnoughError(Exception):
    """The choice of steps is made."""


def _fit(fit: GaussianFit, n_particles: int, run: Run, stage: str) -> tuple[Gaussians, FitHistory]:
    steps: list[int] = []
    losses: list[float] = []
    boxes: list[int] = []
    run.monitor.stage(stage, fit.settings.n_steps, "steps")

    def on_step(state: FitState) -> None:
        steps.append(state.step)
        losses.append(state.loss / n_particles)
        boxes.append(state.box_size_px)
        run.monitor.advance(state.step, loss=losses[-1])

    gaussians = fit.run(on_step)
    history = FitHistory(np.array(steps), np.array(losses), np.array(boxes), np.full(len(steps), np.nan))
    return gaussians, history


def _with_scores(history: FitHistory, choice: StepChoice | None) -> FitHistory:
    """Put the held-out scores of the quarter's fit beside the half's own steps."""
    if choice is None:
        return history
    scores = history.held_out_score.copy()
    for step, score in zip(choice.steps, choice.scores, strict=True):
        if step <= len(scores):
            scores[step - 1] = score
    return replace(history, held_out_score=scores)
