"""What each part of the fit is worth: the same half sets fitted in other ways, by quality and processor time.

``python benchmarks/fits.py DATA`` takes the projects of ``real_particles.py`` from the folder DATA, accumulates each
half set once, and fits it

* as the program does, but once: Adam in large steps, eleven numbers free;
* twice and eight times from other draws, the maps averaged (the program: so often, by the number of Gaussians);
* with the small steps and long memory that suit a noisy gradient, for as many steps and for two and a half times as
  many;
* with round Gaussians, whose three widths stay one number;
* by L-BFGS on all numbers, with as many evaluations of the likelihood;
* with the amplitudes, in which the likelihood is quadratic, solved by conjugate gradients after every tenth step;
* without the prior on the signal's power, and with every shell's residual counted once, as the likelihood has it;
* with centres as dense as the start density itself, and not as its power;
* with density control: twice during the fit the weakest twentieth of the Gaussians goes where the residual b - T v is
  largest.

Every map is scored after each fifth step against the truth; steps are not chosen from the data here, so that what is
compared is the fits alone. Writes ``results/fits.json``.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write_results
from real_particles import PROJECTS, Project, scoring_mask
from score import load_map, score

from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import half_plane
from gem_plugin.fit import FitSettings, FitState, GaussianFit, stochastic_settings
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.gaussians.start import choose_n_gaussians, start_density
from gem_plugin.half_data import accumulate_quarters
from gem_plugin.half_fits import COLLAPSED_SCHEDULE_STEPS
from gem_plugin.half_problem import HalfData, data_term
from gem_plugin.io.particles import read_particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.ops.replicate import Tensors
from gem_plugin.render import choose_render_box, gaussian_map
from gem_plugin.run import Run
from gem_plugin.symmetry import point_group

STEPS = COLLAPSED_SCHEDULE_STEPS
EVERY = 5
SPHERE_SHARE = 0.45  # of the box: the program's default radius
CONTROLLED_SHARE = 0.05
AMPLITUDE_ITERATIONS = 8

Curve = dict[int, Any]  # step -> map
Fit = Callable[[CollapsedTerm, Gaussians, "Recorder"], None]


class Recorder:
    """Keeps the map after every fifth step; the time that drawing it takes is not the fit's."""

    def __init__(self, run: Run) -> None:
        self.maps: Curve = {}
        self._run = run
        self._start = time.process_time()
        self._own = 0.0

    def __call__(self, step: int, gaussians: Callable[[], Gaussians]) -> None:
        """Keep a step."""
        if step % EVERY:
            return
        begin = time.process_time()
        run = self._run
        self.maps[step] = gaussian_map(gaussians(), run.plane.box_size_px, run.render_box_px, engine=run.engine)
        self._own += time.process_time() - begin

    @property
    def seconds(self) -> float:
        """Of the fit, processor time."""
        return time.process_time() - self._start - self._own


def adam(settings: FitSettings, change: Callable[[GaussianFit, int], None] = lambda fit, step: None) -> Fit:
    """The program's own optimiser; `change` may do more after a step."""

    def run(term: CollapsedTerm, start: Gaussians, keep: Recorder) -> None:
        fit = GaussianFit(term, start, settings)

        def on_step(state: FitState) -> None:
            change(fit, state.step)
            keep(state.step, state.gaussians)

        fit.run(on_step)

    return run


def make_round(fit: GaussianFit, step: int) -> None:
    """Give each Gaussian one width."""
    with torch.no_grad():
        fit.log_scales.copy_(fit.log_scales.mean(dim=1, keepdim=True).expand(-1, 3))


def solve_amplitudes(fit: GaussianFit, step: int) -> None:
    """Minimise the likelihood over the amplitudes alone, from where they are; negative ones become small."""
    if step % 10 == 0:
        fit.set_amplitudes(_solved(fit))


def _solved(fit: GaussianFit) -> torch.Tensor:
    """Conjugate gradients on H a = c, H the Hessian in the amplitudes, scaled by each Gaussian's own norm."""
    amplitudes = fit.unit()[3].detach().clone()
    scale = amplitudes.clamp_min(float(amplitudes.mean()) * 1e-3)

    def gradient(values: torch.Tensor) -> torch.Tensor:
        return scale * _amplitude_gradient(fit, scale * values)

    values = amplitudes / scale
    zero = gradient(torch.zeros_like(values))
    residual = -gradient(values)
    direction = residual.clone()
    power = float(residual @ residual)
    for _ in range(AMPLITUDE_ITERATIONS):
        applied = gradient(direction) - zero
        step = power / float(direction @ applied)
        values += step * direction
        residual -= step * applied
        power, previous = float(residual @ residual), power
        direction = residual + (power / previous) * direction
    return (scale * values).clamp_min(1e-3 * float(amplitudes.mean()))


def _amplitude_gradient(fit: GaussianFit, amplitudes: torch.Tensor) -> torch.Tensor:
    centres, log_scales, quaternions, _ = (tensor.detach() for tensor in fit.unit())
    free = amplitudes.detach().clone().requires_grad_(True)
    fit.term.backward((centres, log_scales, quaternions, free), STEPS, STEPS)
    assert free.grad is not None
    return free.grad


def control_density(fit: GaussianFit, step: int) -> None:
    """Move the weakest Gaussians to where the data want more density than there is."""
    if step not in (STEPS // 4, STEPS // 2):
        return
    term = fit.term
    assert isinstance(term, CollapsedTerm)
    missing = np.maximum(-term.residual(tuple(tensor.detach() for tensor in fit.unit())), 0)  # type: ignore[arg-type]
    amplitudes = fit.unit()[3].detach()
    weakest = torch.argsort(amplitudes)[: max(int(CONTROLLED_SHARE * len(amplitudes)), 1)]
    voxels = np.argsort(missing.ravel())[::-1][: len(weakest)].copy()
    zyx = np.stack(np.unravel_index(voxels, missing.shape), axis=1) - missing.shape[0] // 2
    with torch.no_grad():
        fit.centres[weakest] = torch.from_numpy((zyx[:, ::-1] / term.voxels_per_px).astype(np.float32))
        fit.log_scales[weakest] = math.log(0.9)
    changed = amplitudes.clone()
    changed[weakest] = amplitudes.median()
    fit.set_amplitudes(changed)


def l_bfgs(term: CollapsedTerm, start: Gaussians, keep: Recorder) -> None:
    """L-BFGS on centres, log-scales, quaternions and the logarithm of the amplitudes, each scaled to a typical step."""
    unit = float(start.amplitudes.mean()) * term.best_scale(_tensors(start))
    scales = (1.0, 0.25, 0.25, 0.25)
    first = [*_tensors(start)[:3], torch.zeros(len(start))]
    free = [torch.zeros_like(tensor, requires_grad=True) for tensor in first]

    def now() -> Tensors:
        centres, log_scales, quaternions, logs = (
            a + scale * b for a, b, scale in zip(first, free, scales, strict=True)
        )
        return centres, log_scales.clamp(math.log(0.5), math.log(4.0)), quaternions, unit * torch.exp(logs)

    optimiser = torch.optim.LBFGS(free, max_iter=1, history_size=10, line_search_fn="strong_wolfe")
    evaluations = 0

    def closure() -> float:
        nonlocal evaluations
        evaluations += 1
        optimiser.zero_grad()
        loss = term.backward(now(), STEPS, STEPS) / term.n_particles
        for tensor in free:
            assert tensor.grad is not None
            tensor.grad /= term.n_particles
        return loss

    kept = 0
    while evaluations < STEPS:
        before = evaluations
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        if evaluations == before:
            break
        while kept + EVERY <= evaluations:
            kept += EVERY
            keep(kept, lambda: _gaussians(now(), start.symmetry))


def _tensors(gaussians: Gaussians) -> Tensors:
    return (
        torch.from_numpy(gaussians.centres_px),
        torch.from_numpy(gaussians.log_scales),
        torch.from_numpy(gaussians.quaternions),
        torch.from_numpy(gaussians.amplitudes),
    )


def _gaussians(unit: Tensors, symmetry: str) -> Gaussians:
    centres, log_scales, quaternions, amplitudes = (tensor.detach().numpy().copy() for tensor in unit)
    return Gaussians(centres, log_scales, quaternions, amplitudes, symmetry)


@dataclass(frozen=True)
class Way:
    """A way to fit, and how many fits are averaged."""

    name: str
    fit: Fit
    n_fits: int = 1
    half: type[HalfData] = HalfData


class WithoutPrior(HalfData):
    """A half whose fits know nothing of the signal's power."""

    signal_prior = np.zeros(1)


class WithoutEmphasis(HalfData):
    """A half whose fits count the residuals of all shells once."""

    emphasis = np.ones(1)


class AsDense(HalfData):
    """A half whose Gaussians start as dense as the density."""

    start_power = 1.0


WAYS = (
    Way("Adam, once", adam(FitSettings(STEPS, STEPS))),
    Way("Adam, twice, averaged", adam(FitSettings(STEPS, STEPS)), 2),
    Way("Adam, eight times, averaged", adam(FitSettings(STEPS, STEPS)), 8),
    Way("small steps", adam(stochastic_settings(STEPS, STEPS))),
    Way("small steps, 2.5 times as many", adam(stochastic_settings(5 * STEPS // 2, 5 * STEPS // 2))),
    Way("without the prior on the power", adam(FitSettings(STEPS, STEPS)), half=WithoutPrior),
    Way("every shell counted once", adam(FitSettings(STEPS, STEPS)), half=WithoutEmphasis),
    Way("as dense as the start", adam(FitSettings(STEPS, STEPS)), half=AsDense),
    Way("round Gaussians", adam(FitSettings(STEPS, STEPS), make_round)),
    Way("L-BFGS", l_bfgs),
    Way("amplitudes solved", adam(FitSettings(STEPS, STEPS), solve_amplitudes)),
    Way("density control", adam(FitSettings(STEPS, STEPS), control_density)),
)


def halves(project: Project, directory: Path, n_threads: int) -> list[tuple[HalfData, NormalEquations]]:
    """Both half sets, read and accumulated as the program does."""
    back = Path.cwd()
    os.chdir(directory)
    try:
        particles = read_particles(Path(project.table))
        n = particles.optics.box_size_px
        plane, group = half_plane(n, n / 2 - 0.5), point_group(project.symmetry)
        config = ReconstructionConfig(sym=project.symmetry)
        monitor = SilentMonitor()
        run = Run(config, "cpu", n_threads, plane, choose_render_box(plane), SPHERE_SHARE * n, group, monitor)
        result = []
        for number in (1, 2):
            seeds = np.random.SeedSequence([0, number]).spawn(2)
            quarters = accumulate_quarters(particles, number, run, f"Half {number}", *seeds)
            start = start_density(quarters.maps, run.radius_px)
            n_gaussians = choose_n_gaussians(start, particles.optics.pixel_size_in_angstroms) // group.order
            half = HalfData(f"Half {number}", particles, quarters, start, max(n_gaussians, 1), run)
            result.append((half, quarters.equations[0] + quarters.equations[1]))
        return result
    finally:
        os.chdir(back)


def try_way(way: Way, data: list[tuple[HalfData, NormalEquations]]) -> tuple[dict[int, list[Any]], float]:
    """Maps of both halves after every fifth step, and the processor time of the fits."""
    maps: dict[int, list[Any]] = {}
    seconds = 0.0
    for number, (half, equations) in enumerate(data, start=1):
        generator = np.random.default_rng(number)
        curves = []
        half = way.half(half.name, half.particles, half.quarters, half.start, half.n_gaussians, half.run)
        with data_term(half, equations, np.zeros(0, dtype=np.int64), generator) as term:
            assert isinstance(term, CollapsedTerm)
            for _ in range(way.n_fits):
                keep = Recorder(half.run)
                way.fit(term, half.place(generator), keep)
                seconds += keep.seconds
                curves.append(keep.maps)
        for step in curves[0]:
            maps.setdefault(step, []).append(np.mean([curve[step] for curve in curves], axis=0))
    return maps, seconds


def compare(project: Project, data: Path, n_threads: int) -> Iterator[dict[str, Any]]:
    """Fit one project in every way and print a table."""
    directory = data / project.name
    mask = scoring_mask(project, directory)
    truth, pixel_size = load_map(directory / project.truth)
    both = halves(project, directory, n_threads)
    print(f"\n{project.label}: {both[0][0].n_gaussians} + {both[1][0].n_gaussians} Gaussians a fit")
    print(" best  at step    last  processor s")
    for way in WAYS:
        maps, seconds = try_way(way, both)
        curve = {
            step: score(truth, *(m.astype(np.float64) for m in pair), mask, pixel_size).mean_fsc_to_truth
            for step, pair in maps.items()
            if len(pair) == 2
        }
        best, last = max(curve, key=lambda step: curve[step]), max(curve)
        print(f"{curve[best]:.4f}  {best:4d}  {curve[last]:.4f}  {seconds:6.1f}  {way.name}", flush=True)
        yield {
            "project": project.label,
            "way": way.name,
            "seconds": seconds,
            "mean_fsc_to_truth": {str(step): value for step, value in curve.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the two projects")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for project in PROJECTS for row in compare(project, arguments.data.resolve(), arguments.threads)]
    print(f"\nwritten: {write_results('fits', {'threads': arguments.threads, 'ways': rows})}")


if __name__ == "__main__":
    main()
