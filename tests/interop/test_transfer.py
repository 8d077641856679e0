"""Every effect of the microscope and the pipeline: our map is the truth and RELION's, and not so without the effect."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.dataset import stream
from gem_plugin.imaging import image_planes
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from tests.interop import simulated
from tests.interop.microscope import Lens, make_project
from tests.interop.test_model_free import fsc

pytestmark = pytest.mark.relion

BOX = 40
COUNT = 600
LARGEST_ERROR = 5e-4  # of b = T v for the true map v; measured: 2e-4
LARGEST_LOSS = 0.015  # of FSC in any shell beside RELION: what the ridge takes of noise-free images; measured: 0.0125
LEAST_FALL = 0.005  # of the worst shell's FSC where the effect is left out
# RELION 3.1 lets the beam tilt replace terms 3 and 4 instead of adding to them: there our map is the better one
ODD = {0: 9.0, 1: -14.0, 2: 60.0, 3: 4.0, 4: -6.0, 5: 80.0}
EVEN = {0: 0.3, 1: 12.0, 2: 0.5, 3: -10.0, 4: 300.0, 5: 2.0, 6: 0.2, 7: -3.0, 8: -200.0}


@dataclass(frozen=True)
class Effect:
    """What is done to the images, and what a program that knows nothing of it would take them for."""

    lenses: tuple[Lens, ...]
    left_out: dict[str, object] = field(default_factory=dict)  # of the optics groups
    columns_left_out: dict[str, float] = field(default_factory=dict)  # of the particles
    told_of_signal: Callable[[NDArray], dict[str, NDArray]] | None = None  # particles' fields for each image's signal
    fsc_falls: bool = True
    relion_options: tuple[str, ...] = ()


EFFECTS = {
    "beam tilt": Effect((Lens(beam_tilt=(1.5, -0.8)),), {"beam_tilt_mrad": (0.0, 0.0)}),
    "odd Zernike": Effect((Lens(odd=ODD),), {"odd_zernike": ()}),
    "even Zernike": Effect((Lens(even=EVEN),), {"even_zernike": ()}),
    "magnification": Effect((Lens(magnification=(1.03, 0.01, -0.015, 0.98)),), {"magnification": (1.0, 0.0, 0.0, 1.0)}),
    "strong magnification": Effect(
        (Lens(magnification=(1.15, 0.01, -0.015, 0.95)),), {"magnification": (1.0, 0.0, 0.0, 1.0)}
    ),
    "all of these at M k": Effect(
        (Lens((1.5, -0.8), ODD, EVEN, (1.03, 0.01, -0.015, 0.98)),),
        {"beam_tilt_mrad": (0.0, 0.0), "odd_zernike": (), "even_zernike": (), "magnification": (1.0, 0.0, 0.0, 1.0)},
    ),
    "premultiplied": Effect((Lens(state="premultiplied"),), {"ctf_state": "plain"}),
    "phase-flipped": Effect(
        (Lens(state="phase-flipped"),), {"ctf_state": "plain"}, relion_options=("--ctf_phase_flipped",)
    ),
    "MTF": Effect(
        (Lens(mtf="a.star", mtf_slope=0.4), Lens(mtf="b.star", mtf_slope=1.6)), {"mtf_path": None}, fsc_falls=False
    ),
    "phase shift": Effect((Lens(),), columns_left_out={"phase_shift_deg": 0.0}),
    "B-factor": Effect((Lens(),), columns_left_out={"ctf_bfactor_in_angstroms2": 0.0}, fsc_falls=False),
    "scale factor": Effect((Lens(),), columns_left_out={"ctf_scale": 1.0}, fsc_falls=False),
    "group scale": Effect((Lens(),), told_of_signal=lambda signal: {"group_scale": signal}, fsc_falls=False),
    "norm correction": Effect((Lens(),), told_of_signal=lambda signal: {"norm_factor": 1 / signal}, fsc_falls=False),
}
COLUMNS = {
    "phase shift": ("PhaseShift", 0, 120),
    "B-factor": ("CtfBfactor", 0, 200),
    "scale factor": ("CtfScalefactor", 0.3, 1.5),
}


def normal_equations(particles: Particles) -> NormalEquations:
    """(b, T) of all particles, white noise assumed."""
    plane = conventions.half_plane(BOX, BOX / 2)
    planes = image_planes(particles, plane)
    accumulator = Accumulator(plane, [np.full(len(one.kx), BOX**2, dtype=np.float32) for one in planes], 1)
    with ImageReader(particles) as reader:
        for batch in stream(particles, reader, np.arange(len(particles)), planes, 200):
            accumulator.add(batch)
    return accumulator.finish()


def misfit(equations: NormalEquations, truth: NDArray) -> float:
    """||b - T v|| / ||b|| for the true map of noise-free images: 0 if image and model are one."""
    predicted = np.asarray(Operator(equations, 1).apply(truth))
    return float(np.linalg.norm(predicted - equations.right_side) / np.linalg.norm(equations.right_side))


def without(effect: Effect, particles: Particles) -> Particles:
    groups = tuple(dataclasses.replace(group, **effect.left_out) for group in particles.optics_groups)
    columns = {name: np.full(len(particles), value) for name, value in effect.columns_left_out.items()}
    nothing = {"detector_responses": (), "group_scale": None, "norm_factor": None}
    return dataclasses.replace(particles, optics_groups=groups, **nothing, **columns)


def with_state(particles: Particles, lens: Lens) -> Particles:
    """RELION keeps it with the job that phases were flipped, not in the particle table."""

    def stated(group: OpticsGroup) -> OpticsGroup:
        return dataclasses.replace(group, ctf_state=lens.state)

    return dataclasses.replace(particles, optics_groups=tuple(map(stated, particles.optics_groups)))


def seen_by(lenses: tuple[Lens, ...], truth: NDArray) -> NDArray:
    """The map behind the mean of the detectors."""
    slope = np.mean([lens.mtf_slope for lens in lenses])
    k = np.fft.fftfreq(BOX)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, : BOX // 2 + 1] ** 2)
    return np.fft.irfftn(np.fft.rfftn(truth) * (1 - slope * np.minimum(radius, 0.5)), s=truth.shape, axes=(0, 1, 2))


@pytest.mark.parametrize("name", EFFECTS)
def test_the_map_is_the_truth_and_relions_but_not_without_the_effect(tmp_path: Path, name: str) -> None:
    effect = EFFECTS[name]
    columns = simulated.random_columns(COUNT, seed=5)
    if name in COLUMNS:
        label, least, most = COLUMNS[name]
        columns[label] = np.random.default_rng(2).uniform(least, most, COUNT)
    signal = np.random.default_rng(3).uniform(0.4, 1.6, COUNT) if effect.told_of_signal else None
    project = make_project(tmp_path, BOX, columns, effect.lenses, signal=signal)
    particles = with_state(project.particles(), effect.lenses[0])
    if effect.told_of_signal is not None:
        particles = dataclasses.replace(particles, **effect.told_of_signal(signal))
    command = ["relion_reconstruct", "--i", project.table.name, "--o", "relion.mrc", "--ctf", *effect.relion_options]
    simulated.run(tmp_path, *command, "--sym", "C1", "--pad", "2", "--skip_gridding")
    relion = simulated.read_volume(tmp_path / "relion.mrc")
    truth = seen_by(effect.lenses, project.truth)
    right, wrong = normal_equations(particles), normal_equations(without(effect, particles))
    ours, theirs = fsc(solve_model_free(right, 0.45 * BOX, 1), truth), fsc(relion, truth)
    assert misfit(right, truth) < LARGEST_ERROR
    assert misfit(wrong, truth) > 4 * LARGEST_ERROR
    assert np.all(ours > theirs - LARGEST_LOSS), np.round(theirs - ours, 4)
    blind = fsc(solve_model_free(wrong, 0.45 * BOX, 1), truth)
    if effect.fsc_falls:
        assert blind.min() < ours.min() - LEAST_FALL
