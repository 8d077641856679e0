"""The map without Gaussians, from exact images of a phantom; relion_reconstruct judges it in tests/interop."""

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.dataset import fourier_batch
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.model_free import solve_model_free, support_sphere
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.phantom import density, make_phantom, random_particles, simulate_images
from tests.helpers import relative_error

N = 32


def equations_of(images: np.ndarray, particles, scale: float = 1.0) -> NormalEquations:  # type: ignore[no-untyped-def]
    plane = conventions.half_plane(N, N / 2 - 0.5)
    accumulator = Accumulator(plane, np.full(len(plane.kx), scale * N * N, dtype=np.float32), 2)
    accumulator.add(fourier_batch(particles, images, np.arange(len(particles)), plane))
    return accumulator.finish()


@pytest.fixture(scope="module")
def noise_free() -> tuple[NormalEquations, np.ndarray]:
    particles = random_particles(400, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    phantom = make_phantom(N, 0)
    return equations_of(simulate_images(phantom, particles, snr=None).images, particles), density(phantom)


def test_noise_free_images_give_the_truth(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    equations, truth = noise_free
    found = solve_model_free(equations, 0.45 * N, 2)
    assert fourier_shell_correlation(found, truth)[1:14].min() > 0.99
    slope = float(np.vdot(found, truth) / np.vdot(truth, truth))
    assert abs(slope - 1) < 0.02, slope


def test_right_side_is_what_the_truth_predicts(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    """b = T v for noise-free images of v: all signs and the greyscale at once."""
    equations, truth = noise_free
    inside = support_sphere(N, 0.45 * N)
    assert relative_error(inside * Operator(equations, 2).apply(truth), inside * equations.right_side) < 0.02


def test_the_map_does_not_depend_on_the_noise_level_assumed(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    equations, _ = noise_free
    other = NormalEquations(equations.right_side / 7, equations.spectrum / 7, equations.n_particles)
    assert relative_error(solve_model_free(other, 14, 1), solve_model_free(equations, 14, 1)) < 1e-3


def test_the_map_is_linear_in_the_images(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    """What the honest resolution rests on: no positivity, no support made from the data."""
    equations, _ = noise_free
    rng = np.random.default_rng(0)
    other = rng.normal(size=(N, N, N)).astype(np.float32) * equations.right_side.std()

    def solve(right_side: np.ndarray) -> np.ndarray:
        return solve_model_free(NormalEquations(right_side, equations.spectrum, 1), 14, 1)

    both = solve(equations.right_side - 2 * other)
    separate = solve(equations.right_side) - 2 * solve(other)
    # ten steps of conjugate gradients are linear up to what is left to solve
    assert relative_error(both, separate) < 0.05


def test_nothing_lies_outside_the_sphere(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    equations, _ = noise_free
    found = solve_model_free(equations, 8.0, 1)
    assert not found[conventions.radius_from_centre_px(N) > 8.0 + 3.0].any()


def test_sampling_weight_counts_the_slices(noise_free: tuple[NormalEquations, np.ndarray]) -> None:
    """T's diagonal in the Fourier basis, against T applied to plane waves."""
    equations, _ = noise_free
    weight = equations.sampling_weight()
    operator = Operator(equations, 1)
    axis = np.arange(N) - N // 2
    for kz, ky, kx in ((0, 0, 5), (3, 2, 4), (0, 9, 1)):
        phase = 2 * np.pi / N * (kz * axis[:, None, None] + ky * axis[None, :, None] + kx * axis[None, None, :])
        energy = sum(float(np.vdot(w, operator.apply(w))) for w in (np.cos(phase), np.sin(phase))) / N**3
        assert abs(weight[kz, ky, kx] / energy - 1) < 0.01


def test_no_data_make_an_empty_map() -> None:
    empty = NormalEquations(np.zeros((8, 8, 8), np.float32), np.zeros((16, 16, 9), np.float32), 0)
    assert not solve_model_free(empty, 3.0, 1).any()
