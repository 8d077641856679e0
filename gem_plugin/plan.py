"""What a run would do and what it would take, before it starts."""

from dataclasses import dataclass

import numpy as np

from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import HalfPlane
from gem_plugin.device_plan import gpu_sentence
from gem_plugin.image_cache import SHARE as IN_MEMORY_SHARE
from gem_plugin.imaging import image_kinds, image_planes
from gem_plugin.io.particles import Particles
from gem_plugin.normal_equations import data_band, kernel_box
from gem_plugin.ops.engines import uses_cuda_kernels
from gem_plugin.render import choose_render_box
from gem_plugin.resources import available_memory_bytes
from gem_plugin.spreading import slice_grids
from gem_plugin.symmetry import cosets, point_group

# What benchmarks/speed.py measured on one core of a server CPU; an estimate within a factor of two elsewhere.
POINTS_PER_CORE_SECOND = 1.5e6  # slice points accumulated into b and T
FFT_VOXELS_PER_CORE_SECOND = 0.6e8  # of the doubled box, one T v
FITS_EXPECTED, STEPS_EXPECTED = 4, 30  # of a half: two to eight fits, and the steps of each
CHOOSING_STEPS = 20  # of the half's fit that chooses them, if they are not given
FIXED_SECONDS = 20.0
PROJECTED_PIXELS_PER_CORE_SECOND = 5e6  # of the images that --fit images draws and differentiates
IMAGES_DRAWN_PER_PARTICLE = 20  # by the fits of --fit images
FEWEST_IMAGES_DRAWN = 120_000
AVERAGED_POINTS_PER_CORE_SECOND = 1.5e6  # voxels of t that are read between voxels, for a point group
AVERAGING_BYTES_PER_VOXEL = 48.0  # of the doubled box
AVERAGING_POINT_BYTES = 0.5e9
CHECKPOINT_MAPS = 10  # of the halves that are done; their arrays are kept no longer
FIXED_BYTES = 1.1e9  # Python, torch, Numba, two batches of slices


FITTED_TO = {"collapsed": "all images at once", "images": "a few images a step"}


@dataclass(frozen=True)
class Plan:
    """Estimates of a run."""

    sentences: tuple[str, ...]
    memory_bytes: float
    disk_bytes: float  # of results
    checkpoint_bytes: float  # at most, while it runs
    scratch_bytes: float  # in the scratch folder; 0: none is needed
    seconds: float

    def lines(self) -> list[str]:
        """The plan for a person."""
        return [
            *self.sentences,
            f"memory: about {self.memory_bytes / 1e9:.1f} GB",
            f"disk: about {self.disk_bytes / 1e6:.0f} MB of results, and up to {self.checkpoint_bytes / 1e6:.0f} MB of"
            " checkpoints until they are there",
            *([f"scratch: about {self.scratch_bytes / 1e9:.1f} GB"] if self.scratch_bytes else []),
            f"time: about {_duration(self.seconds)}",
        ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def frequencies_used(plane: HalfPlane, pixel_size_in_angstroms: float) -> str:
    """How far the images' frequencies are used, in words."""
    if plane.radius.max() > plane.box_size_px / 2 - 1:
        return "all frequencies of the images up to Nyquist"
    finest = plane.box_size_px * pixel_size_in_angstroms / plane.radius.max()
    return f"frequencies of the images up to {finest:.2f} Angstrom"


def _made_even(particles: Particles) -> str:
    own = particles.optics_group_of_the_map.box_size_px
    return f"; the images' box of {own} px is odd, and the map's is the next even one" if own % 2 else ""


def _averaging_bytes(box_size_px: int, symmetry: str) -> float:
    """Memory of averaging t over a group: its series, finufft's finer grid, and the points that are read."""
    if len(cosets(point_group(symmetry).operators)[1]) == 1:
        return 0.0
    doubled = (2.0 * box_size_px) ** 3
    return AVERAGING_BYTES_PER_VOXEL * doubled + AVERAGING_POINT_BYTES


def _averaging_seconds(box_size_px: int, symmetry: str) -> float:
    """Processor time of averaging b and t over a group, for the quarter sets and the whole of both halves."""
    interpolated = len(cosets(point_group(symmetry).operators)[1]) - 1
    return 6 * interpolated * (2.0 * box_size_px) ** 3 * 0.2 / AVERAGED_POINTS_PER_CORE_SECOND


def _of_the_gpu(particles: Particles, engine: str, plane: HalfPlane, render_box_px: int) -> list[str]:
    if not uses_cuda_kernels(engine):
        return []
    return [gpu_sentence(engine, plane, image_planes(particles, plane), render_box_px)]


def _scratch_bytes(particles: Particles, config: ReconstructionConfig, engine: str) -> float:
    """Room that one half's images take in the scratch folder, where they fit into no memory; a GPU's is not asked."""
    if config.fit != "images" or config.scratch is None or uses_cuda_kernels(engine):
        return 0.0
    boxes = np.array([group.box_size_px for group in particles.optics_groups])
    one_each = 4.0 * boxes[particles.group_of_particle] ** 2
    largest = max(float(one_each[particles.half_set == half].sum()) for half in (1, 2))
    return largest if largest > IN_MEMORY_SHARE * (available_memory_bytes() or 0) else 0.0


def make_plan(
    particles: Particles,
    config: ReconstructionConfig,
    plane: HalfPlane,
    radius_px: float,
    engine: str,
    reason: str,
    n_threads: int,
) -> Plan:
    """Estimate a run; see `Plan`.

    The time is that of the CPU engine: a GPU is faster, and none has been measured yet.
    """
    n, count = particles.optics.box_size_px, len(particles)
    pixel = particles.optics.pixel_size_in_angstroms
    box, reach = choose_render_box(plane), float(plane.radius.max())
    modes = reach, box, 2 * kernel_box(data_band(plane, box), box)
    grids = sum(4.0 * parts * np.prod(grid.shape) for parts, grid in zip((2, 1), slice_grids(*modes), strict=True))
    doubled = 4.0 * (2 * box) ** 3
    # the grids, and one of them as it is transformed; b and T's spectrum of both quarter sets, for each kind of images
    n_kinds = int(image_kinds(particles).max()) + 1
    spectra = n_kinds * 2 * 4.0 * ((4 * reach) ** 2 * 2 * reach + float(box) ** 3)
    memory = FIXED_BYTES + max(2 * grids, grids + doubled, _averaging_bytes(n, config.sym)) + spectra
    fits = 1 if config.n_gaussians else FITS_EXPECTED
    steps = 2 * (fits * config.steps if config.steps else fits * STEPS_EXPECTED + CHOOSING_STEPS)
    accumulate = count * len(plane.kx) / (POINTS_PER_CORE_SECOND * n_threads)
    fit = steps * (2 * box) ** 3 / (FFT_VOXELS_PER_CORE_SECOND * n_threads)
    if config.fit == "images":
        fit = max(IMAGES_DRAWN_PER_PARTICLE * count, FEWEST_IMAGES_DRAWN) * box**2
        fit /= PROJECTED_PIXELS_PER_CORE_SECOND * n_threads
    accumulate += _averaging_seconds(n, config.sym) / n_threads
    slow = 300 if engine == "reference" else 1
    repeats = 2 if config.noise_control else 1
    return Plan(
        (
            f"particles: {int((particles.half_set == 1).sum())} in half 1, {int((particles.half_set == 2).sum())} in"
            f" half 2, from {len(particles.stack_paths)} image stack(s)",
            f"box: {n} px of {pixel:g} Angstrom; {frequencies_used(plane, pixel)};"
            f" particle sphere {2 * radius_px * pixel:.0f} Angstrom across{_made_even(particles)}",
            f"Gaussians: {config.n_gaussians or 'chosen from the data'};"
            f" steps: {config.steps or 'chosen from the data'}; fitted to {FITTED_TO[config.fit]};"
            f" threads: {n_threads}",
            f"engine: {engine} ({reason})",
            *_of_the_gpu(particles, engine, plane, box),
        ),
        memory,
        12 * 4.0 * n**3 + 1e6 + 300.0 * count,
        spectra + CHECKPOINT_MAPS * 4.0 * n**3 + 1e6,
        _scratch_bytes(particles, config, engine),
        FIXED_SECONDS + repeats * (accumulate + fit * slow),
    )
