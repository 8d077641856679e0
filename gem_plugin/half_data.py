"""One half set's particles in one pass: their data in two parts, their noise, and the maps without Gaussians."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import dataset
from gem_plugin.errors import InputError
from gem_plugin.independence import unseen_share
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.model_free import SPHERE_EDGE_PX, solve_model_free, support_sphere
from gem_plugin.noise import Noise, measure_noise, noise_power_at
from gem_plugin.normal_equations import Accumulator, NormalEquations
from gem_plugin.run import Run
from gem_plugin.symmetric_equations import symmetric_pair
from gem_plugin.symmetry_check import symmetry_sentence

Map = NDArray[np.floating[Any]]

POINTS_PER_BATCH = 4_000_000  # of the slices of the particles that are in memory at once


@dataclass(frozen=True)
class QuarterSets:
    """A half set's data in two parts."""

    indices: tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of the particle table
    equations: tuple[NormalEquations, NormalEquations]
    maps: tuple[Map, Map]  # model-free, with the particle's symmetry
    half_map: Map  # the same of both parts together
    noise: Noise
    digests: tuple[NDArray[np.int64], NDArray[np.uint64]]  # rows of the particle table, and of their images
    unseen_share: float  # of the directions, by the particles' views


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
    rows: list[NDArray[np.int64]] = []
    digests: list[NDArray[np.uint64]] = []
    parts = (np.sort(shuffled[0::2]), np.sort(shuffled[1::2]))
    with ImageReader(particles) as reader:
        noise = measure_noise(particles, reader, indices, run.radius_px, noise_seed, run.monitor)
        for part in parts:
            accumulator = Accumulator(run.plane, noise_power_at(noise, run.plane), run.n_threads, run.render_box_px)
            for batch in dataset.stream(particles, reader, part, run.plane, batch_size):
                accumulator.add(batch)
                rows.append(batch.indices)
                digests.append(batch.digests)
                done += len(batch.indices)
                run.monitor.advance(done)
            sums.append(accumulator.finish())
            run.monitor.advance(done)
    on_pixels = (sums[0].crop(run.plane.box_size_px), sums[1].crop(run.plane.box_size_px))
    run.monitor.stage(f"{name}: maps without Gaussians", 3, "maps")
    plain = (_solved(on_pixels[0], run), _solved(on_pixels[1], run))
    run.monitor.advance(2)
    reach = run.radius_px + SPHERE_EDGE_PX
    symmetric = symmetric_pair(on_pixels, run.group, reach, run.n_threads, lambda: run.monitor.advance(2))
    together = symmetric[0] + symmetric[1]
    whole = _solved(together, run)
    unseen = unseen_share(together.sampling_weight(), run.last_shell)
    seen = (np.concatenate(rows), np.concatenate(digests))
    run.monitor.advance(3)
    if run.group.order == 1:
        return QuarterSets(parts, (sums[0], sums[1]), plain, whole, noise, seen, unseen)
    maps = (_solved(symmetric[0], run), _solved(symmetric[1], run))
    sphere = support_sphere(run.plane.box_size_px, run.radius_px)
    sentence = symmetry_sentence(run.group.name, plain, maps, sphere)
    if sentence:
        run.monitor.warn(f"{name}: {sentence}")
    return QuarterSets(parts, (sums[0], sums[1]), maps, whole, noise, seen, unseen)


def _solved(equations: NormalEquations, run: Run) -> Map:
    return solve_model_free(equations, run.radius_px, run.n_threads, run.last_shell)
