"""relion_reconstruct as the judge of the model-free map: the same particles, the same map, the same greyscale."""

import dataclasses
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from gem_plugin import conventions
from gem_plugin.dataset import stream
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from tests.interop import simulated

pytestmark = pytest.mark.relion

BOX = 48
# RELION divides by the weight of each voxel of its padded transform: with few particles many hold hardly any data, and
# where noise rules its map is noisier than the least-squares one
N_NOISY_PARTICLES = 3000
N_CLEAN_PARTICLES = 1000
FINEST = 0.4  # cycles/px
SMALLEST_FSC = 0.98
Change = Callable[[Particles], Particles]


def accumulate(project: simulated.Project, half: int, change: Change | None = None) -> NormalEquations:
    """(b, T) of one half set, white noise assumed; `change` falsifies the particles."""
    particles = project.particles() if change is None else change(project.particles())
    plane = conventions.half_plane(BOX, BOX / 2)
    accumulator = Accumulator(plane, np.full(len(plane.kx), BOX**2, dtype=np.float32), 1)
    indices = np.flatnonzero(particles.half_set == half)
    with ImageReader(particles) as reader:
        for batch in stream(particles, reader, indices, (plane,), 200):
            accumulator.add(batch)
    return accumulator.finish()


@cache
def model_free(project: simulated.Project, half: int, change: Change | None = None) -> NDArray[np.float32]:
    return solve_model_free(accumulate(project, half, change), 0.45 * BOX, 1)


@cache
def relion_half_map(project: simulated.Project, half: int) -> NDArray[np.float32]:
    path = project.directory / f"relion_half{half}.mrc"
    command = ["relion_reconstruct", "--i", project.table.name, "--o", path.name, "--ctf", "--subset", str(half)]
    simulated.run(project.directory, *command, "--sym", "C1", "--pad", "2", "--skip_gridding")
    return simulated.read_volume(path)


def soft_mask(truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """The molecule and 2 px around it, with an edge of 5 px."""
    blurred = gaussian_filter(truth.astype(np.float64), 1.5)
    distance = distance_transform_edt(blurred < 0.05 * blurred.max())
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 2) / 5, 0, 1))


def shell_products(first: NDArray, second: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Sums of the cross product and both powers over Fourier shells 1 ... 0.4 cycles/px."""
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    shell = conventions.shell_indices(first.shape[0]).ravel()
    last = int(FINEST * first.shape[0])

    def over_shells(values: NDArray) -> NDArray:
        return np.bincount(shell, weights=values.ravel())[1 : last + 1]

    return over_shells((a * b.conj()).real), over_shells(np.abs(a) ** 2), over_shells(np.abs(b) ** 2)


def fsc(first: NDArray, second: NDArray) -> NDArray:
    cross, power_a, power_b = shell_products(first, second)
    return cross / np.sqrt(power_a * power_b)


def slope(ours: NDArray, theirs: NDArray) -> float:
    """Ratio of amplitudes to 0.4 cycles/px: by how much theirs is brighter, noise in both treated alike."""
    _, our_power, their_power = shell_products(ours, theirs)
    return float(np.sqrt(their_power.sum() / our_power.sum()))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> simulated.Project:
    columns = simulated.random_columns(N_CLEAN_PARTICLES, seed=5)
    return simulated.project(tmp_path_factory.mktemp("clean"), simulated.blobs(BOX, seed=8), columns)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> simulated.Project:
    columns = simulated.random_columns(N_NOISY_PARTICLES, seed=6)
    project = simulated.project(tmp_path_factory.mktemp("noisy"), simulated.blobs(BOX, seed=8), columns)
    simulated.add_white_noise(project, signal_to_noise=0.2, seed=1)
    return project


def test_noise_free_map_agrees_with_relion_reconstruct(clean: simulated.Project) -> None:
    ours, theirs = model_free(clean, 1), relion_half_map(clean, 1)
    assert fsc(ours, theirs).min() > 0.995
    assert slope(ours, theirs) == pytest.approx(1.0, abs=0.02)


def test_noise_free_map_is_the_truth(clean: simulated.Project) -> None:
    ours = model_free(clean, 1)
    assert fsc(ours, clean.truth).min() > 0.99
    assert slope(ours, clean.truth) == pytest.approx(1.0, abs=0.01)


def test_right_side_is_what_the_truth_predicts(clean: simulated.Project) -> None:
    """For noise-free images b = T v: the two arrays belong together, in phase and in scale."""
    equations = accumulate(clean, 1)
    predicted = np.asarray(Operator(equations, 1).apply(clean.truth))
    error = np.linalg.norm(predicted - equations.right_side) / np.linalg.norm(equations.right_side)
    assert error < 0.02


@pytest.mark.parametrize("half", [1, 2])
def test_noisy_half_map_agrees_with_relion_reconstruct(noisy: simulated.Project, half: int) -> None:
    mask = soft_mask(noisy.truth)
    ours, theirs = model_free(noisy, half) * mask, relion_half_map(noisy, half) * mask
    assert fsc(ours, theirs).min() > SMALLEST_FSC
    assert slope(ours, theirs) == pytest.approx(1.0, abs=0.02)


def test_halves_are_different_particles(noisy: simulated.Project) -> None:
    """Their noise is independent: in the last shells they agree less with each other than each with RELION's map."""
    halves = [model_free(noisy, half) for half in (1, 2)]
    assert fsc(*halves)[-5:].mean() < 0.9


def negated_shifts(particles: Particles) -> Particles:
    return dataclasses.replace(particles, shifts_in_angstroms=-particles.shifts_in_angstroms)


def negated_tilt(particles: Particles) -> Particles:
    """The other hand, mirrored views."""
    return dataclasses.replace(particles, euler_angles_deg=particles.euler_angles_deg * [1, -1, 1])


def overfocus(particles: Particles) -> Particles:
    u, v = particles.defocus_u_in_angstroms, particles.defocus_v_in_angstroms
    return dataclasses.replace(particles, defocus_u_in_angstroms=-u, defocus_v_in_angstroms=-v)


def astigmatism_along_the_other_axis(particles: Particles) -> Particles:
    return dataclasses.replace(particles, defocus_angle_deg=particles.defocus_angle_deg + 90)


def half_a_pixel_off(particles: Particles) -> Particles:
    shifts = particles.shifts_in_angstroms + np.array([0.5, 0]) * particles.optics.pixel_size_in_angstroms
    return dataclasses.replace(particles, shifts_in_angstroms=shifts)


@pytest.mark.parametrize(
    "mistake", [negated_shifts, negated_tilt, overfocus, astigmatism_along_the_other_axis, half_a_pixel_off]
)
def test_the_comparison_notices_wrong_particles(clean: simulated.Project, mistake: Change) -> None:
    assert fsc(model_free(clean, 1, mistake), relion_half_map(clean, 1)).min() < SMALLEST_FSC


def test_the_comparison_notices_a_mirrored_or_moved_map(clean: simulated.Project) -> None:
    ours, theirs = model_free(clean, 1), relion_half_map(clean, 1)
    assert fsc(np.roll(ours[::-1], 1, axis=0), theirs).min() < 0.9
    assert fsc(np.roll(ours, 1, axis=1), theirs).min() < 0.9
    assert fsc(-ours, theirs).max() < 0
