"""What the fits of one half set are given: the half's data, what they say of it beforehand, and its likelihood."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.fit import DataTerm
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.gaussians.start import START_SCALE_PX, Start, choose_coarse_box, place_gaussians, start_scale_px
from gem_plugin.half_data import QuarterSets
from gem_plugin.image_term import ImageTerm
from gem_plugin.imaging import image_planes
from gem_plugin.io.particles import Particles
from gem_plugin.noise import noise_power_at
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.prediction import Imaging
from gem_plugin.render import Map, choose_render_box, gaussian_map
from gem_plugin.run import Run
from gem_plugin.signal_prior import prior_weight, reach_of_signal, shell_emphasis, with_emphasis, with_prior
from gem_plugin.spreading import fast_even_size

# fits of a half, from other random draws, whose maps are averaged: what only one of them made is mostly noise. Few
# Gaussians scatter most and take the least time: this many are fitted once, half of them four times
FEWEST_FITS, MOST_FITS = 2, 8
FITTED_ONCE = 50_000
START_POWER = 1.25  # of the start density, as which Gaussians are as dense: thin density is the least certain


@dataclass(frozen=True)
class HalfData:
    """What the fits of one half need: its particles, their two arrays, and where its Gaussians start."""

    name: str
    particles: Particles
    quarters: QuarterSets
    start: Start
    n_gaussians: int
    run: Run

    start_power = START_POWER

    @functools.cached_property
    def signal_prior(self) -> NDArray[np.float64]:
        """1 / tau^2 of each shell, for a part of the half too: the signal's power does not depend on the data."""
        first, second = self.quarters.equations
        return prior_weight(first + second, self.start, self.run.last_shell)

    @functools.cached_property
    def reach(self) -> float:
        """How far the signal reaches, 0 to 1."""
        return reach_of_signal(self.start, self.run.last_shell)

    @functools.cached_property
    def emphasis(self) -> NDArray[np.float64]:
        """How often each shell's residual counts in the fit, for a part of the half too."""
        return shell_emphasis(self.start, self.run.last_shell)

    @property
    def n_fits(self) -> int:
        """How many fits are averaged; one where the number of Gaussians was given: it is kept to."""
        config = self.run.config
        if config.n_gaussians or config.fit == "images":
            return 1
        return choose_n_fits(self.n_gaussians * self.run.group.order)

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
        density, scale_px = self.start.density, START_SCALE_PX
        if self.run.config.fit == "collapsed":  # small noisy steps were not tried with others
            density = (density / density.max()) ** self.start_power  # of 0 to 1, whatever the greyscale: no overflow
            density *= self.start.density.sum(dtype=np.float64) / density.sum(dtype=np.float64)
            scale_px = start_scale_px(self.particles.optics.pixel_size_in_angstroms)
        return place_gaussians(density, self.n_gaussians, generator, group.name, group.order, scale_px=scale_px)


@contextlib.contextmanager
def data_term(
    half: HalfData, equations: NormalEquations, indices: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[DataTerm]:
    """The likelihood of some particles of the half: image by image, or collapsed in the box that holds the density.

    Collapsed, the signal's power that the half itself shows is a prior on the map, and shells count the more the more
    signal they show.
    """
    run = half.run
    if run.config.fit == "images":
        with ImageTerm(
            half.particles,
            indices,
            half.imaging,
            engine=run.engine,
            generator=generator.spawn(1)[0],  # its thread draws while Gaussians are placed
            group=run.group,
            scratch=run.config.scratch,
            tell=lambda sentence: run.monitor.note(f"{half.name}: {sentence}"),
        ) as term:
            yield term
        return
    window = min(fast_even_size(half.start.window_px * run.voxels_per_px), run.render_box_px)
    emphasised = with_emphasis(equations, half.emphasis, run.n_threads)
    yield CollapsedTerm(
        with_prior(emphasised.window(window), half.signal_prior, run.render_box_px),
        engine=run.engine,
        n_threads=run.n_threads,
        voxels_per_px=run.voxels_per_px,
        coarse_box=choose_coarse_box(half.start, window, run.render_box_px),
        group=run.group,
    )


def choose_n_fits(n_gaussians: int) -> int:
    """How many fits of so many Gaussians, copies by symmetry counted, are averaged."""
    return int(np.clip(round((FITTED_ONCE / n_gaussians) ** 2), FEWEST_FITS, MOST_FITS))


def drawn(gaussians: Gaussians, run: Run) -> Map:
    """The map of some Gaussians on the images' pixels, [n, n, n]."""
    box, fine_box = run.plane.box_size_px, run.render_box_px
    return gaussian_map(gaussians, box, fine_box, engine=run.engine, n_threads=run.n_threads)
