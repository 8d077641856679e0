"""One half set's particles in one pass: their data in two parts, their noise, and the maps without Gaussians."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import dataset
from gem_plugin.errors import InputError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.model_free import SPHERE_EDGE_PX, solve_model_free, support_sphere
from gem_plugin.noise import Noise, measure_noise, noise_power_at
from gem_plugin.normal_equations import Accumulator, NormalEquations
from gem_plugin.run import Run
from gem_plugin.symmetric_equations import symmetric_equations
from gem_plugin.symmetry_check import symmetry_sentence

Map = NDArray[np.floating[Any]]

POINTS_PER_BATCH = 4_000_000  # of the slices of the particles that are in memory at once


@dataclass(frozen=True)
class QuarterSets:
    """A half set's data in two parts."""

    indices: tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of the particle table
    equations: tuple[NormalEquations, NormalEquations]
    maps: tuple[Map, Map]  # model-free
    noise: Noise


def accumulate_quarters(
    particles: Particles,
    half_set: int,
    run: Run,
    name: str,
    split_seed: np.random.SeedSequence,
    noise_seed: np.random.SeedSequence,
) -> QuarterSets:
    """Read a half set's particles once and deal them into two quarter sets.

    Raises
    ------
    InputError
        If there are too few particles or an image cannot be used.
    """
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
    parts = (np.sort(shuffled[0::2]), np.sort(shuffled[1::2]))
    with ImageReader(particles) as reader:
        noise = measure_noise(particles, reader, indices, run.radius_px, noise_seed, run.monitor)
        for part in parts:
            accumulator = Accumulator(run.plane, noise_power_at(noise, run.plane), run.n_threads, run.render_box_px)
            for batch in dataset.stream(particles, reader, part, run.plane, batch_size):
                accumulator.add(batch)
                done += len(batch.indices)
                run.monitor.advance(done)
            sums.append(accumulator.finish())
            run.monitor.advance(done)
    plain = tuple(_plain_map(equations, run) for equations in sums)
    run.monitor.advance(done)
    if run.group.order == 1:
        return QuarterSets(parts, (sums[0], sums[1]), (plain[0], plain[1]), noise)
    first, second = (model_free_map(equations, run, f"{name}, quarter {q}") for q, equations in enumerate(sums, 1))
    sphere = support_sphere(run.plane.box_size_px, run.radius_px)
    sentence = symmetry_sentence(run.group.name, (plain[0], plain[1]), (first, second), sphere)
    if sentence:
        run.monitor.warn(f"{name}: {sentence}")
    return QuarterSets(parts, (sums[0], sums[1]), (first, second), noise)


def model_free_map(equations: NormalEquations, run: Run, name: str) -> Map:
    """The model-free map of a half or quarter set, with the particle's symmetry."""
    run.monitor.stage(f"{name}: map without Gaussians", 1, "maps")
    on_pixels = equations.crop(run.plane.box_size_px)
    reach = run.radius_px + SPHERE_EDGE_PX
    symmetric = symmetric_equations(on_pixels, run.group, reach, run.n_threads, lambda: run.monitor.advance(0))
    solved = solve_model_free(symmetric, run.radius_px, run.n_threads, run.last_shell)
    run.monitor.advance(1)
    return solved


def _plain_map(equations: NormalEquations, run: Run) -> Map:
    on_pixels = equations.crop(run.plane.box_size_px)
    return solve_model_free(on_pixels, run.radius_px, run.n_threads, run.last_shell)
