"""Everything that is made from one half set: data term, number of steps, Gaussians, and what they say of particles.

A half never sees the other: its random numbers, noise, start, number of Gaussians and steps come from its own
particles and the settings alone.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.config import ReconstructionConfig
from gem_plugin.fit import DataTerm, FitSettings, FitState, GaussianFit, stochastic_settings
from gem_plugin.gaussians.model import Gaussians, averaged
from gem_plugin.gaussians.start import Start, choose_coarse_box, choose_n_gaussians, place_gaussians, start_density
from gem_plugin.half_data import QuarterSets, QuarterSums, read_quarters, solve_quarters
from gem_plugin.image_term import PARTICLES_PER_STEP, ImageTerm
from gem_plugin.imaging import image_planes
from gem_plugin.io.particles import Particles
from gem_plugin.masks import soft_mask
from gem_plugin.noise import noise_power_at
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.particle_results import check_residuals, particle_results
from gem_plugin.prediction import Imaging
from gem_plugin.reconstruction import FitHistory, HalfResult, ParticleResults
from gem_plugin.render import Map, choose_render_box, gaussian_map
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


@dataclass(frozen=True)
class FittedHalf:
    """One half set's map of Gaussians, before it is compared with each particle."""

    data: HalfData
    n_particles: int
    fits: list[Gaussians]
    history: FitHistory


@dataclass(frozen=True)
class Judgement:
    """What it takes to compare a half set's particles with its Gaussians."""

    name: str
    indices: NDArray[np.int64]
    imaging: Imaging
    gaussians: Gaussians


def process_half(particles: Particles, half_set: int, run: Run) -> HalfResult:
    """Make all of one half set's results, in one process.

    Raises
    ------
    InputError
        If images cannot be used.
    JobAborted
        If the monitor was asked to end the run.
    """
    fitted = fit_half(particles, half_set, read_half(particles, half_set, run), run)
    return result_of(half_set, fitted, judge_particles(particles, half_set, judgement_of(fitted), run), run)


def read_half(particles: Particles, half_set: int, run: Run) -> QuarterSums:
    """One pass over a half set's particles; in a team, all members do it together."""
    split_seed, noise_seed, _, _ = _seeds(half_set, run)
    return read_quarters(particles, half_set, run, f"Half {half_set}", split_seed, noise_seed)


def fit_half(particles: Particles, half_set: int, read: QuarterSums, run: Run) -> FittedHalf:
    """Fit Gaussians to what was read of a half set."""
    name = read.name
    _, _, quarter_seed, half_seed = _seeds(half_set, run)
    quarters = solve_quarters(particles, read, run)
    equations = quarters.equations[0] + quarters.equations[1]
    start = start_density(quarters.maps, run.radius_px)
    pixel = particles.optics.pixel_size_in_angstroms
    n_gaussians = max((run.config.n_gaussians or choose_n_gaussians(start, pixel)) // run.group.order, 1)
    half = HalfData(name, particles, quarters, start, n_gaussians, run)
    plan = _plan_steps(half, np.random.default_rng(quarter_seed))
    fits_of = "" if _n_fits(run.config) == 1 else f"{_n_fits(run.config)} fits of "
    each = "" if _n_fits(run.config) == 1 else " each"
    run.monitor.note(f"{name}: {fits_of}{n_gaussians} Gaussians, {plan.n_steps} steps{each}{_why(run.config, plan)}")
    fits, history = _fit(half, equations, plan, np.random.default_rng(half_seed))
    return FittedHalf(half, equations.n_particles, fits, _with_scores(history, plan.scores))


def judgement_of(fitted: FittedHalf) -> Judgement:
    """What members of a team need to know of a half that one of them has fitted."""
    half = fitted.data
    return Judgement(half.name, np.sort(np.concatenate(half.quarters.indices)), half.imaging, fitted.fits[0])


def result_of(half_set: int, fitted: FittedHalf, of_particles: ParticleResults, run: Run) -> HalfResult:
    """Bring one half set's results together."""
    quarters, gaussians = fitted.data.quarters, averaged(fitted.fits)
    return HalfResult(
        half_set=half_set,
        n_particles=fitted.n_particles,
        gaussians=gaussians,
        gaussian_map=_drawn(gaussians, run),
        model_free_map=quarters.half_map,
        quarter_maps=quarters.maps,
        noise_power=_on_map_shells(fitted.data),
        history=fitted.history,
        particles=of_particles,
        image_digests=quarters.digests,
        unseen_share=quarters.unseen_share,
    )


def _seeds(half_set: int, run: Run) -> list[np.random.SeedSequence]:
    """Of the split in quarters, the noise's sample, the quarter's fit and the half's."""
    return np.random.SeedSequence([run.config.seed, half_set]).spawn(4)


def _drawn(gaussians: Gaussians, run: Run) -> Map:
    box, fine_box = run.plane.box_size_px, run.render_box_px
    return gaussian_map(gaussians, box, fine_box, engine=run.engine, n_threads=run.n_threads)


def _on_map_shells(half: HalfData) -> NDArray[np.float64]:
    """The noise of the images on whose pixels the map is made, [n // 2 + 1]; an odd box has one shell less."""
    particles = half.particles
    power = half.quarters.noise[particles.optics_groups.index(particles.optics_group_of_the_map)].power
    n_shells = half.run.plane.box_size_px // 2 + 1
    return np.pad(power, (0, max(n_shells - len(power), 0)), mode="edge")[:n_shells]


def _why(config: ReconstructionConfig, plan: StepPlan) -> str:
    if config.steps:
        return " (as asked)"
    if plan.scores is None:
        return " (its quarter sets do not agree beyond chance)"
    return " (chosen on a quarter set held out)"


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
            generator=generator,
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


def _plan_steps(half: HalfData, generator: np.random.Generator) -> StepPlan:
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
    run.monitor.stage(f"{half.name}: choosing the number of steps", steps, "steps")
    every = max(steps // EVALUATIONS, 1)

    def on_step(state: FitState) -> None:
        run.monitor.advance(state.step, loss=state.loss / len(quarters.indices[0]))
        if state.step % every == 0 and choice.record(state.step, score(_drawn(state.gaussians(), run))):
            raise _EnoughError

    with data_term(half, quarters.equations[0], quarters.indices[0], generator) as term:
        settings = _settings(run.config, steps, steps)
        fit = GaussianFit(term, half.place(generator), settings, double=run.engine == "reference")
        with contextlib.suppress(_EnoughError):
            fit.run(on_step, tell=lambda sentence: run.monitor.warn(f"{half.name}: {sentence}"))
    return StepPlan(choice.for_the_half(steps), steps, choice)


class _EnoughError(Exception):
    """The choice of steps is made."""


def _fit(
    half: HalfData, equations: NormalEquations, plan: StepPlan, generator: np.random.Generator
) -> tuple[list[Gaussians], FitHistory]:
    """Fit the half as often as is averaged; the history is that of the first fit."""
    config = half.run.config
    n_fits = _n_fits(config)
    losses: list[float] = []
    boxes: list[int] = []
    monitor = half.run.monitor
    total = n_fits * plan.n_steps
    monitor.stage(f"{half.name}: fitting {n_fits * half.n_gaussians} Gaussians", total, "steps")
    fits: list[Gaussians] = []

    def on_step(state: FitState) -> None:
        loss = state.loss / equations.n_particles
        if not fits:
            losses.append(loss)
            boxes.append(state.box_size_px)
        monitor.advance(len(fits) * plan.n_steps + state.step, loss=loss)

    settings = _settings(config, plan.n_steps, plan.schedule_steps)
    with data_term(half, equations, np.concatenate(half.quarters.indices), generator) as term:
        for _ in range(n_fits):
            start = half.place(generator)
            fit = GaussianFit(term, start, settings, double=half.run.engine == "reference")
            fits.append(fit.run(on_step, tell=lambda sentence: monitor.warn(f"{half.name}: {sentence}")))
    n = len(losses)
    counts = np.full(n, n_fits * half.n_gaussians)
    history = FitHistory(np.arange(1, n + 1), np.array(losses), np.array(boxes), np.full(n, np.nan), counts)
    return fits, history


def _n_fits(config: ReconstructionConfig) -> int:
    """One where the number of Gaussians was given: it is kept to."""
    return 1 if config.n_gaussians or config.fit == "images" else FITS


def _settings(config: ReconstructionConfig, n_steps: int, schedule: int) -> FitSettings:
    return stochastic_settings(n_steps, schedule) if config.fit == "images" else FitSettings(n_steps, schedule)


def judge_particles(particles: Particles, half_set: int, judged: Judgement, run: Run) -> ParticleResults:
    """Compare each particle with the projection of the half's Gaussians; warn of groups that do not fit.

    In a team, all members do it together, and the results are the half's owner's.
    """
    run.monitor.stage(f"{judged.name}: comparing each particle", len(judged.indices), "particles")
    results = particle_results(
        judged.gaussians,
        particles,
        judged.indices,
        judged.imaging,
        engine=run.engine,
        n_threads=run.n_threads,
        monitor=run.monitor,
        team=run.team,
        owner=run.team.owner_of(half_set),
    )
    if run.team.owns(half_set):
        for sentence in check_residuals(results, run.plane):
            run.monitor.warn(f"{judged.name}: {sentence}")
    return results


def _with_scores(history: FitHistory, choice: StepChoice | None) -> FitHistory:
    """Put the held-out scores of the quarter's fit beside the half's own steps."""
    if choice is None:
        return history
    scores = history.held_out_score.copy()
    for step, score in zip(choice.steps, choice.scores, strict=True):
        if step <= len(scores):
            scores[step - 1] = score
    return replace(history, held_out_score=scores)
