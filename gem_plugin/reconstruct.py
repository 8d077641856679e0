"""Two half sets -> a Reconstruction: arrays, curves and numbers."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.calibrated import calibrated_pair
from gem_plugin.checkpoints import Checkpoints, NoStore, Store
from gem_plugin.config import ReconstructionConfig
from gem_plugin.curve_checks import check_curve
from gem_plugin.device_plan import plane_with_room
from gem_plugin.engine_choice import engine_of
from gem_plugin.errors import ResourceError
from gem_plugin.fsc import Shells
from gem_plugin.halves import process_halves
from gem_plugin.honest import mask_halves
from gem_plugin.image_checks import box_sentences
from gem_plugin.independence import refuse_shared_images, views_sentences
from gem_plugin.io.particles import Particles
from gem_plugin.local_curve import choose_radius_px, measure_locally
from gem_plugin.masks import soft_mask
from gem_plugin.model_free import support_sphere
from gem_plugin.monitor import Monitor
from gem_plugin.noise_control import control_halves, run_noise_control
from gem_plugin.particle_list import list_particles
from gem_plugin.particle_results import caveat
from gem_plugin.plan import Plan, frequencies_used, make_plan
from gem_plugin.preparation import geometry, prepared
from gem_plugin.reconstruction import HalfResult, Reconstruction
from gem_plugin.reference_check import check_reference
from gem_plugin.resolution import resolution_curve
from gem_plugin.resources import available_memory_bytes
from gem_plugin.run import Run
from gem_plugin.symmetry import point_group
from gem_plugin.team import SOLO, Team
from gem_plugin.viewing import viewing_maps

Map = NDArray[np.floating[Any]]

NO_STORE = NoStore()
RIM_PX = 3.0
LARGEST_RIM_SHARE = 0.5
LEAST_MASKED_SHARE = 0.3
MASK_LOWPASS_SHELLS = 8.0  # a mask follows the particle's outline, not its detail


def plan(particles: Particles, config: ReconstructionConfig, *, n_threads: int) -> Plan:
    """What would be run, and the memory, disk and time it would take.

    Raises
    ------
    InputError, OptionError
        As `reconstruct` would.
    ResourceError
        If the machine has not the memory.
    """
    engine, reason = engine_of(config, SOLO)
    point_group(config.sym)
    plane, radius_px = geometry(particles, config)
    plane, left_out = plane_with_room(engine, plane, particles.optics.pixel_size_in_angstroms)
    planned = make_plan(particles, config, plane, radius_px, engine, reason, n_threads)
    available = available_memory_bytes()
    if available is not None and planned.memory_bytes > available:
        raise ResourceError(
            f"a box of {plane.box_size_px} px takes about {planned.memory_bytes / 1e9:.1f} GB of memory and"
            f" {available / 1e9:.1f} GB are free: run it on a larger machine, or re-extract the particles with a"
            " smaller box or larger pixels"
        )
    return replace(planned, sentences=(*planned.sentences, left_out)) if left_out else planned


def reconstruct(
    particles: Particles,
    config: ReconstructionConfig,
    *,
    n_threads: int,
    mask: Map | None,
    reference: Map | None,
    monitor: Monitor,
    team: Team = SOLO,
    store: Store = NO_STORE,
) -> Reconstruction:
    """Fit Gaussians to each half set and judge the result honestly.

    Parameters
    ----------
    n_threads : >= 1
    mask : [n, n, n], 0 to 1, or None to make one from the Gaussians
    reference : [n, n, n] for a check of hand, sign and greyscale, or None
    team : of which this process is member 0; the others call `assist`
    store : keeps what is done, for a run that has to begin again; what it has of an earlier one is not done again

    Raises
    ------
    InputError, OptionError, JobAborted, TeamError
    """
    messages = _KeepWarnings(monitor)
    particles, run = prepared(particles, config, n_threads, messages, team)
    run = replace(run, checkpoints=Checkpoints(store, warned=messages))
    halves = process_halves(particles, run)
    if halves is None:
        raise ValueError(f"this is member {team.rank} of a team: only member 0 has results")
    first, second = (half.image_digests for half in halves)
    refuse_shared_images((first[1], second[1]), (first[0], second[0]))
    return _combine(particles, halves, run, mask, reference, messages)


def assist(
    particles: Particles,
    config: ReconstructionConfig,
    *,
    n_threads: int,
    monitor: Monitor,
    team: Team,
    store: Store = NO_STORE,
) -> None:
    """Do a member's share of what member 0 reconstructs, from the same particles and settings.

    Parameters
    ----------
    store : of this member alone

    Raises
    ------
    InputError, OptionError, JobAborted, TeamError
    """
    particles, run = prepared(particles, config, n_threads, monitor, team)
    run = replace(run, checkpoints=Checkpoints(store))
    process_halves(particles, run)
    control_halves(particles, run)


def _combine(
    particles: Particles,
    halves: tuple[HalfResult, HalfResult],
    run: Run,
    mask: Map | None,
    reference: Map | None,
    messages: "_KeepWarnings",
) -> Reconstruction:
    run.monitor.stage("Measuring the resolution", 3, "steps")
    box_size_px, radius_px = run.plane.box_size_px, run.radius_px
    gaussian_maps = (halves[0].gaussian_map, halves[1].gaussian_map)
    model_free_maps = (halves[0].model_free_map, halves[1].model_free_map)
    mean = (gaussian_maps[0] + gaussian_maps[1]) / 2
    shells = Shells(box_size_px, run.n_threads)
    mask_origin = "given (--in_mask)"
    if mask is None:
        outline = np.exp(-0.5 * (np.arange(shells.last + 1) / MASK_LOWPASS_SHELLS) ** 2)
        mask = soft_mask(shells.filter(mean, outline), radius_px)
        mask_origin = "made from the Gaussians: low-passed, thresholded, extended, soft edge"
    else:
        _warn_where_the_mask_misses(mean, mask, run.monitor)
    if reference is not None:
        for sentence in check_reference(reference, (model_free_maps[0] + model_free_maps[1]) / 2, mask):
            run.monitor.warn(sentence)
    _warn_where_the_sphere_cuts(mean, radius_px, run.monitor)
    run.monitor.advance(1)
    masked = mask_halves(gaussian_maps, model_free_maps, mask, run.n_threads)
    curve = resolution_curve(
        gaussian_maps,
        model_free_maps,
        mask,
        support_sphere(box_size_px, radius_px),
        particles.optics.pixel_size_in_angstroms,
        last_shell=run.last_shell,
        half_sets_are_refined=particles.half_sets_are_refined,
        symmetry_order=run.group.order,
        quarter_maps=(halves[0].quarter_maps, halves[1].quarter_maps),
        seed=run.config.seed,
        n_threads=run.n_threads,
        halves=masked,
    )
    beware = caveat([half.particles for half in halves], run.plane)
    curve = replace(curve, statement=f"{curve.statement}{beware}")
    of_views = views_sentences(max(half.unseen_share for half in halves))
    for sentence in (*check_curve(curve), *of_views, *box_sentences(particles, run, curve.resolution_in_angstroms)):
        run.monitor.warn(sentence)
    run.monitor.advance(2)
    pixel = particles.optics.pixel_size_in_angstroms
    radius = run.config.locres_radius / pixel or choose_radius_px(curve, mask)
    local = measure_locally(gaussian_maps, model_free_maps, mask, curve, radius, run.n_threads, masked)
    pair = calibrated_pair(gaussian_maps, model_free_maps, mask, curve, local, run.n_threads)
    control = run_noise_control(particles, halves, curve, mask, run)
    run.monitor.advance(3)
    return Reconstruction(
        box_size_px=box_size_px,
        pixel_size_in_angstroms=particles.optics.pixel_size_in_angstroms,
        halves=halves,
        combined_map=shells.filter(mean, curve.filter_weight),
        calibrated_half_maps=pair,
        viewing=viewing_maps(mean, mask, curve, local, pixel, run.config, run.n_threads, run.monitor),
        mask=mask,
        mask_origin=mask_origin,
        curve=curve,
        particle_list=list_particles(particles),
        symmetry=run.group.name,
        settings=_settings(run, halves, mask_origin, particles),
        warnings=tuple(messages.warnings),
        noise_control=control,
    )


def _warn_where_the_mask_misses(mean: Map, mask: Map, monitor: Monitor) -> None:
    """A given mask that leaves the particle out measures something else."""
    density = np.maximum(mean, 0)
    share = float((density * mask).sum() / max(float(density.sum()), 1e-30))
    if share < LEAST_MASKED_SHARE:
        monitor.warn(
            f"the mask (--in_mask) holds {share:.0%} of the map's density, and the resolution of that part is stated:"
            " is it the mask of this particle, on the same grid and in the same place?"
        )


def _warn_where_the_sphere_cuts(mean: Map, radius_px: float, monitor: Monitor) -> None:
    """A sphere that cuts the particle makes a better number of a worse map."""
    distance = conventions.radius_from_centre_px(mean.shape[0])
    rim = (distance > radius_px - RIM_PX) & (distance <= radius_px)
    share = float(mean[rim].mean() / max(mean[distance <= radius_px].mean(), 1e-30))
    if share > LARGEST_RIM_SHARE:
        monitor.warn(
            f"the particle reaches the sphere that --particle_diameter names (density at its rim is {share:.0%} of the"
            " mean inside): if that is not solvent noise, the sphere cuts the particle; give a larger diameter or box"
        )


def _settings(
    run: Run, halves: tuple[HalfResult, HalfResult], mask_origin: str, particles: Particles
) -> dict[str, str]:
    pixel = particles.optics.pixel_size_in_angstroms
    return {
        "particles": f"{halves[0].n_particles} + {halves[1].n_particles}",
        "box": f"{run.plane.box_size_px} px of {pixel:g} Angstrom",
        "frequencies used": frequencies_used(run.plane, pixel),
        "particle diameter": f"{2 * run.radius_px * pixel:.1f} Angstrom",
        "threads": f"{run.n_threads} of {os.cpu_count()} processors",
        "engine": run.engine_reason,
        "symmetry": run.group.name,
        "Gaussians": f"{len(halves[0].gaussians)} + {len(halves[1].gaussians)}"
        + (" of one asymmetric unit" if run.group.order > 1 else ""),
        "steps": f"{len(halves[0].history.step)} + {len(halves[1].history.step)}",
        "mask": mask_origin,
        "seed": str(run.config.seed),
    }


class _KeepWarnings:
    """Passes everything on to a monitor and keeps the warnings for the report."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.warnings: list[str] = []

    def stage(self, name: str, total: int, unit: str) -> None:
        self._monitor.stage(name, total, unit)

    def advance(self, done: int, **figures: float) -> None:
        self._monitor.advance(done, **figures)

    def note(self, message: str) -> None:
        self._monitor.note(message)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self._monitor.warn(message)
