"""Everything that is made from one half set: data term, number of steps, Gaussians, and what they say of particles.

A half never sees the other: its random numbers, noise, start, number of Gaussians and steps come from its own
particles and the settings alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gem_plugin.config import ReconstructionConfig
from gem_plugin.gaussians.model import Gaussians, averaged
from gem_plugin.gaussians.start import choose_n_gaussians, start_density
from gem_plugin.half_data import QuarterSums, read_quarters, solve_quarters
from gem_plugin.half_fits import StepPlan, fit_as_often_as_averaged, plan_steps
from gem_plugin.half_problem import HalfData, drawn
from gem_plugin.io.particles import Particles
from gem_plugin.particle_results import check_residuals, particle_results
from gem_plugin.prediction import Imaging
from gem_plugin.reconstruction import FitHistory, HalfResult, ParticleResults
from gem_plugin.resuming import result_arrays, result_from
from gem_plugin.run import Run
from gem_plugin.stopping import StepChoice


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
    """Make all of one half set's results, in one process; what an earlier run kept of them is not made again.

    Raises
    ------
    InputError
        If images cannot be used.
    JobAborted
        If the monitor was asked to end the run.
    """
    checkpoints = run.checkpoints.within(f"half{half_set}")
    kept = checkpoints.load("result")
    if kept is not None:
        run.monitor.note(f"Half {half_set}: was finished before; taken from the checkpoint")
        return result_from(kept)
    fitted = fit_half(particles, half_set, read_half(particles, half_set, run), run)
    result = result_of(half_set, fitted, judge_particles(particles, half_set, judgement_of(fitted), run), run)
    checkpoints.keep("result", result_arrays(result))
    checkpoints.drop("sums", "choice", "fits")
    return result


def read_half(particles: Particles, half_set: int, run: Run) -> QuarterSums:
    """One pass over a half set's particles; in a team, all members do it together."""
    split_seed, noise_seed, _, _ = _seeds(half_set, run)
    own = replace(run, checkpoints=run.checkpoints.within(f"half{half_set}"))
    return read_quarters(particles, half_set, own, f"Half {half_set}", split_seed, noise_seed)


def fit_half(particles: Particles, half_set: int, read: QuarterSums, run: Run) -> FittedHalf:
    """Fit Gaussians to what was read of a half set."""
    run = replace(run, checkpoints=run.checkpoints.within(f"half{half_set}"))
    name = read.name
    _, _, quarter_seed, half_seed = _seeds(half_set, run)
    quarters = solve_quarters(particles, read, run)
    equations = quarters.equations[0] + quarters.equations[1]
    start = start_density(quarters.maps, run.radius_px)
    pixel = particles.optics.pixel_size_in_angstroms
    n_gaussians = max((run.config.n_gaussians or choose_n_gaussians(start, pixel)) // run.group.order, 1)
    half = HalfData(name, particles, quarters, start, n_gaussians, run)
    plan = plan_steps(half, np.random.default_rng(quarter_seed))
    fits_of, each = ("", "") if half.n_fits == 1 else (f"{half.n_fits} fits of ", " each")
    run.monitor.note(f"{name}: {fits_of}{n_gaussians} Gaussians, {plan.n_steps} steps{each}{_why(run.config, plan)}")
    fits, history = fit_as_often_as_averaged(half, equations, plan, np.random.default_rng(half_seed))
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
        gaussian_map=drawn(gaussians, run),
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
