"""Both half sets' results, by one process or by a team."""

from dataclasses import replace

from gem_plugin.half import (
    FittedHalf,
    Judgement,
    fit_half,
    judge_particles,
    judgement_of,
    process_half,
    read_half,
    result_of,
)
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.ops import engines
from gem_plugin.reconstruction import HalfResult
from gem_plugin.run import Run

HALF_SETS = (1, 2)


def process_halves(particles: Particles, run: Run) -> tuple[HalfResult, HalfResult] | None:
    """Make both half sets' results.

    A team reads each half set together, fits the two side by side, and compares particles together. A half's fit
    still sees nothing of the other half.

    Returns
    -------
    the results, for member 0 of a team alone; the others return None

    Raises
    ------
    InputError
        If images cannot be used.
    JobAborted
        If the monitor was asked to end the run.
    TeamError
        If another member ended.
    GpuMemoryError
        If a GPU has no room.
    """
    with engines.memory_explained(run.engine):
        if run.team.size == 1:
            return process_half(particles, 1, run), process_half(particles, 2, run)
        return _by_a_team(particles, run)


def _by_a_team(particles: Particles, run: Run) -> tuple[HalfResult, HalfResult] | None:
    team = run.team
    kept = SilentMonitor()  # what a member other than 0 has to say waits until it is asked
    own = run if team.rank == 0 else replace(run, monitor=kept, checkpoints=run.checkpoints.telling(kept))
    fitted: dict[int, FittedHalf] = {}
    read = {half_set: read_half(particles, half_set, own) for half_set in HALF_SETS}
    for half_set in HALF_SETS:
        sums = read.pop(half_set)
        if team.owns(half_set):
            fitted[half_set] = fit_half(particles, half_set, sums, own)
    results = [_judged(particles, half_set, fitted.get(half_set), own) for half_set in HALF_SETS]
    _retell(kept, run)
    first, second = results
    return None if first is None or second is None else (first, second)


def _judged(particles: Particles, half_set: int, fitted: FittedHalf | None, run: Run) -> HalfResult | None:
    """Compare a half's particles together, and send its results to member 0."""
    team = run.team
    owner = team.owner_of(half_set)
    judged: Judgement = team.told_by(owner, None if fitted is None else judgement_of(fitted))
    of_particles = judge_particles(particles, half_set, judged, run)
    return team.sent(owner, 0, None if fitted is None else result_of(half_set, fitted, of_particles, run))


def _retell(kept: SilentMonitor, run: Run) -> None:
    """Let member 0 say what the others had to say of the half that they fitted."""
    for notes, warnings in run.team.gathered((kept.notes, kept.warnings)):
        if run.team.rank == 0:
            for note in notes:
                run.monitor.note(note)
            for warning in warnings:
                run.monitor.warn(warning)
