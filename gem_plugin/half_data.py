"""One half set's particles in one pass: their data in two parts, their noise, and the maps without Gaussians."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import dataset
from gem_plugin.accumulation import Pass
from gem_plugin.contrast import judge_contrast, measure_contrast
from gem_plugin.errors import InputError
from gem_plugin.imaging import image_kinds, image_planes
from gem_plugin.independence import unseen_share
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.map_operators import map_operator
from gem_plugin.model_free import SPHERE_EDGE_PX, solve_model_free, support_sphere
from gem_plugin.noise import Noise, measure_noise_of_groups, noise_power_at
from gem_plugin.normal_equations import NormalEquations, sum_of
from gem_plugin.run import Run
from gem_plugin.shards import accumulate_kept
from gem_plugin.symmetric_equations import symmetric_pair
from gem_plugin.symmetry_check import symmetry_sentence
from gem_plugin.unusable import refuse_unusable_sums

Map = NDArray[np.floating[Any]]

GREYSCALE_ROUNDS = 3  # of images of several kinds; the factors are then fixed to a thousandth


@dataclass(frozen=True)
class QuarterSets:
    """A half set's data in two parts."""

    indices: tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of the particle table
    equations: tuple[NormalEquations, NormalEquations]
    maps: tuple[Map, Map]  # model-free, with the particle's symmetry
    half_map: Map  # the same of both parts together
    noise: tuple[Noise, ...]  # of each optics group
    greyscale: NDArray[np.float64]  # of each optics group's images: times the map's
    digests: tuple[NDArray[np.int64], NDArray[np.uint64]]  # rows of the particle table, and of their images
    unseen_share: float  # of the directions, by the particles' views


@dataclass(frozen=True)
class QuarterSums:
    """What one pass over a half set's particles leaves: the arrays of both parts, apart for each kind of images."""

    name: str  # of the half, for messages
    parts: tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of the particle table
    of_kinds: list[list[NormalEquations]]  # [parts][kinds]
    noise: tuple[Noise, ...]  # of each optics group
    digests: tuple[NDArray[np.int64], NDArray[np.uint64]]  # rows of the particle table, and of their images


def accumulate_quarters(
    particles: Particles,
    half_set: int,
    run: Run,
    name: str,
    split_seed: np.random.SeedSequence,
    noise_seed: np.random.SeedSequence,
) -> QuarterSets:
    """`read_quarters`, then `solve_quarters`."""
    sums = read_quarters(particles, half_set, run, name, split_seed, noise_seed)
    return solve_quarters(particles, sums, run)


def read_quarters(
    particles: Particles,
    half_set: int,
    run: Run,
    name: str,
    split_seed: np.random.SeedSequence,
    noise_seed: np.random.SeedSequence,
) -> QuarterSums:
    """Read a half set's particles once and deal them into two quarter sets.

    In a team, each member reads its share, and the sums are those of all at the half's owner alone.

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
    run.monitor.stage(f"{name}: reading particles", len(indices), "particles")
    parts = (np.sort(shuffled[0::2]), np.sort(shuffled[1::2]))
    with ReaderPool(particles) as readers:
        noise = measure_noise_of_groups(particles, readers.reader(), indices, run.radius_px, noise_seed, run.monitor)
        of_kinds, seen = _accumulate(particles, readers, parts, noise, run)
    owner = run.team.owner_of(half_set)
    for equations in (one for of_part in of_kinds for one in of_part):
        run.team.sum_at(owner, (equations.right_side, equations.spectrum))
    rows, digests = zip(*run.team.gathered(seen), strict=True)
    return QuarterSums(name, parts, of_kinds, noise, (np.concatenate(rows), np.concatenate(digests)))


def solve_quarters(particles: Particles, read: QuarterSums, run: Run) -> QuarterSets:
    """Bring a half set's arrays to one greyscale and symmetry, and solve them without Gaussians."""
    name, parts, noise, seen = read.name, read.parts, read.noise, read.digests
    sums, greyscale = _on_one_greyscale(particles, read.of_kinds, run, name)
    on_pixels = (sums[0].crop(run.plane.box_size_px), sums[1].crop(run.plane.box_size_px))
    run.monitor.stage(f"{name}: maps without Gaussians", 3, "maps")
    plain = (_solved(on_pixels[0], run), _solved(on_pixels[1], run))
    run.monitor.advance(2)
    contrast = judge_contrast(measure_contrast(plain, run.radius_px, run.n_threads), run.config.invert_contrast)
    if contrast:
        run.monitor.warn(f"{name}: {contrast}")
    reach = run.radius_px + SPHERE_EDGE_PX
    symmetric = symmetric_pair(on_pixels, run.group, reach, run.n_threads, lambda: run.monitor.advance(2))
    together = symmetric[0] + symmetric[1]
    whole = _solved(together, run)
    unseen = unseen_share(together.sampling_weight(), run.last_shell)
    run.monitor.advance(3)
    if run.group.order == 1:
        return QuarterSets(parts, sums, plain, whole, noise, greyscale, seen, unseen)
    maps = (_solved(symmetric[0], run), _solved(symmetric[1], run))
    sphere = support_sphere(run.plane.box_size_px, run.radius_px)
    sentence = symmetry_sentence(run.group.name, plain, maps, sphere)
    if sentence:
        run.monitor.warn(f"{name}: {sentence}")
    return QuarterSets(parts, sums, maps, whole, noise, greyscale, seen, unseen)


def _accumulate(
    particles: Particles,
    readers: ReaderPool,
    parts: tuple[NDArray[np.int64], NDArray[np.int64]],
    noise: tuple[Noise, ...],
    run: Run,
) -> tuple[list[list[NormalEquations]], tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """The arrays of what this member reads of both parts, apart for each kind of images, and the images' digests."""
    planes = image_planes(particles, run.plane)
    noise_power = [noise_power_at(one, plane) for one, plane in zip(noise, planes, strict=True)]
    kinds = image_kinds(particles)
    total = sum(len(part) for part in parts)
    passes: list[Pass] = []
    sums = []
    for part in parts:
        of_kinds = []
        for kind in range(int(kinds.max()) + 1):
            chosen = part[kinds[particles.group_of_particle[part]] == kind]
            own = run.team.share(dataset.read_order(particles, chosen))
            before = sum(len(one.rows) for one in passes)

            def on_progress(done: int, before: int = before) -> None:
                run.monitor.advance(min((before + done) * run.team.size, total))

            name = f"sums{len(passes)}"
            passes.append(accumulate_kept(particles, readers, own, planes, noise_power, run, on_progress, name))
            refuse_unusable_sums(passes[-1].equations, particles, readers, own, planes)
            of_kinds.append(replace(passes[-1].equations, n_particles=len(chosen)))
        sums.append(of_kinds)
    run.monitor.advance(total)
    return sums, (np.concatenate([one.rows for one in passes]), np.concatenate([one.digests for one in passes]))


def _on_one_greyscale(
    particles: Particles, sums: list[list[NormalEquations]], run: Run, name: str
) -> tuple[tuple[NormalEquations, NormalEquations], NDArray[np.float64]]:
    """Add the arrays of images of different pixels, each brought to the greyscale of the map's own.

    The factor f on the map that fits a kind of images best is <b, v> / <v, T v> for the map v of all.
    """
    kinds = image_kinds(particles)
    wholes = [first + second for first, second in zip(*sums, strict=True)]
    own = int(kinds[particles.optics_groups.index(particles.optics_group_of_the_map)])
    factors = np.ones(len(wholes))
    for _ in range(GREYSCALE_ROUNDS if len(wholes) > 1 else 0):
        together = sum_of([whole.scaled(factor) for whole, factor in zip(wholes, factors, strict=True)])
        solved = _solved(together.crop(run.plane.box_size_px), run)
        found = np.array([_best_factor(whole.crop(run.plane.box_size_px), solved, run) for whole in wholes])
        factors = np.where(found > 0, found / found[own], 1.0) if found[own] > 0 else np.ones(len(wholes))
    if len(wholes) > 1:
        words = ", ".join(f"{factor:.3f}" for factor in factors)
        run.monitor.note(
            f"{name}: images of {len(wholes)} kinds (pixel, box, CTF), of greyscales {words} beside the map's"
        )
    parts = [sum_of([one.scaled(f) for one, f in zip(of_kinds, factors, strict=True)]) for of_kinds in sums]
    return (parts[0], parts[1]), factors[kinds]


def _best_factor(equations: NormalEquations, volume: Map, run: Run) -> float:
    operator = map_operator(equations, run.engine, run.n_threads)
    there = operator.given(volume)
    power = operator.inner(there, operator.apply(there))
    return operator.inner(operator.right_side, there) / power if power > 0 else 0.0


def _solved(equations: NormalEquations, run: Run) -> Map:
    return solve_model_free(equations, run.radius_px, run.n_threads, run.last_shell, engine=run.engine)
