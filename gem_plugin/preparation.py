"""What every process of a run finds out before it reads a half set: sizes, frequencies, engine, repaired images."""

import os

import numba
import torch

from gem_plugin import conventions
from gem_plugin.config import ReconstructionConfig
from gem_plugin.device_plan import plane_with_room
from gem_plugin.engine_choice import ready_engine
from gem_plugin.errors import InputError, OptionError
from gem_plugin.image_checks import prepare_images, table_sentences
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.noise_control import control_radius
from gem_plugin.render import choose_render_box
from gem_plugin.run import Run
from gem_plugin.symmetry import point_group
from gem_plugin.team import Team

DEFAULT_DIAMETER = 0.9  # of the box
LEAST_DIAMETER_PX = 12
LARGEST_BOX_PX = 2048
LEAST_WINDOW_PX = 2.0
LEAST_SHELLS = 6  # fewer cannot shape a map


def prepared(
    particles: Particles, config: ReconstructionConfig, n_threads: int, monitor: Monitor, team: Team
) -> tuple[Particles, Run]:
    """What every member of a team finds out for itself."""
    plane, radius_px = geometry(particles, config)
    engine, reason = ready_engine(config, team, monitor)
    _set_threads(n_threads, engine)
    pixel = particles.optics.pixel_size_in_angstroms
    plane, left_out = plane_with_room(engine, plane, pixel)
    plane = _plane_of_all(plane, team)
    if left_out:
        monitor.warn(left_out)
    for sentence in table_sentences(particles):
        monitor.warn(sentence)
    particles = prepare_images(particles, config, radius_px * pixel, monitor)
    group = point_group(config.sym)
    run = Run(config, engine, n_threads, plane, choose_render_box(plane), radius_px, group, monitor, team, reason)
    return particles, run


def _plane_of_all(plane: conventions.HalfPlane, team: Team) -> conventions.HalfPlane:
    """The frequencies for which every member of a team has room: they add up their sums."""
    reach = min(team.gathered(float(plane.radius.max())))
    return plane if reach == float(plane.radius.max()) else conventions.half_plane(plane.box_size_px, reach)


def geometry(particles: Particles, config: ReconstructionConfig) -> tuple[conventions.HalfPlane, float]:
    """The Fourier points of the map's images, and the radius of the particle's sphere in pixels.

    Raises
    ------
    InputError, OptionError
        If box, pixel size and settings leave nothing to make a map of, or contradict each other.
    """
    n = particles.optics.box_size_px
    pixel = particles.optics.pixel_size_in_angstroms
    if n > LARGEST_BOX_PX:
        raise InputError(f"the box is {n} px and this program takes at most {LARGEST_BOX_PX} px: is the table right?")
    k_max = n / 2 - 0.5
    if config.maxres:
        k_max = min(k_max, n * pixel / config.maxres)
    if n / 2 - 0.5 < LEAST_SHELLS:
        raise InputError(
            f"the box of {n} px holds too few Fourier shells for a map: re-extract the particles with a larger box or"
            " smaller pixels"
        )
    if k_max < LEAST_SHELLS:
        raise OptionError(
            f"--maxres {config.maxres:g} leaves {k_max:.2f} Fourier shells of a box of {n} px at {pixel:g} Angstrom a"
            f" pixel, fewer than {LEAST_SHELLS}: give a value below {n * pixel / LEAST_SHELLS:.0f} Angstrom"
        )
    diameter_px = config.particle_diameter / pixel if config.particle_diameter else DEFAULT_DIAMETER * n
    if diameter_px < LEAST_DIAMETER_PX:
        raise OptionError(
            f"--particle_diameter {config.particle_diameter:g} Angstrom is {diameter_px:.1f} px, fewer than the"
            f" {LEAST_DIAMETER_PX} px that a map needs: give the particle's own diameter in Angstrom"
        )
    if diameter_px > n:
        raise OptionError(
            f"--particle_diameter {config.particle_diameter:g} Angstrom is wider than the box"
            f" ({n * pixel:.1f} Angstrom): give the particle's own diameter"
        )
    if config.locres_radius and not LEAST_WINDOW_PX <= config.locres_radius / pixel <= n / 2:
        raise OptionError(
            f"--locres_radius {config.locres_radius:g} Angstrom is {config.locres_radius / pixel:.3g} px: give a radius"
            f" between {LEAST_WINDOW_PX * pixel:.1f} and {n * pixel / 2:.1f} Angstrom, or 0 to have it chosen"
        )
    plane = conventions.half_plane(n, k_max)
    control_radius(config, plane, pixel)
    return plane, diameter_px / 2


def _set_threads(n_threads: int, engine: str) -> None:
    numba.set_num_threads(min(n_threads, numba.get_num_threads()))
    # torch holds a few numbers a Gaussian: on the CPU engine more threads only wait for each other
    torch.set_num_threads(min(n_threads, os.cpu_count() or 1) if engine == "reference" else 1)
