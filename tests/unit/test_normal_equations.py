"""b and T against the direct sum over every Fourier point of every image."""

import dataclasses

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch, fourier_batch
from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from tests.helpers import NUFFT, relative_error

N = 16
COUNT = 12


@pytest.fixture(scope="module")
def batch() -> FourierBatch:
    optics = OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1)
    particles = random_particles(COUNT, optics, seed=1)
    images = simulate_images(make_phantom(N, 1), particles, snr=0.5, seed=2).images
    return fourier_batch(particles, images, np.arange(COUNT), conventions.half_plane(N, N / 2 - 0.5))


def accumulate(batch: FourierBatch, noise: np.ndarray) -> NormalEquations:
    accumulator = Accumulator(conventions.half_plane(N, N / 2 - 0.5), noise, n_threads=1)
    accumulator.add(batch)
    return accumulator.finish()


def noise_power() -> np.ndarray:
    plane = conventions.half_plane(N, N / 2 - 0.5)
    return (100 + 10 * plane.radius).astype(np.float32)


def slice_points(batch: FourierBatch) -> np.ndarray:
    return conventions.slice_points(batch.slices, conventions.half_plane(N, N / 2 - 0.5)).astype(np.float64)


def slices(volume: np.ndarray, batch: FourierBatch) -> np.ndarray:
    """The map's transform at the slice points, by the defining sum."""
    axis = np.arange(N) - N // 2
    x, y, z = (np.exp(-2j * np.pi * np.outer(points.ravel(), axis) / N) for points in slice_points(batch))
    values = np.einsum("zyx,pz,py,px->p", volume, z, y, x, optimize=True)
    return values.reshape(batch.observed.shape)


def log_likelihood(volume: np.ndarray, batch: FourierBatch) -> float:
    """1/2 sum |CTF X - Y|^2 / sigma^2 over the whole plane: each point of the half plane stands for two."""
    plane = conventions.half_plane(N, N / 2 - 0.5)
    residual = batch.ctf * slices(volume, batch) - batch.observed
    return float((plane.weight * np.abs(residual) ** 2 / noise_power()).sum())


def test_gradient_of_the_likelihood_is_t_v_minus_b(batch: FourierBatch) -> None:
    """Difference quotients of the per-image likelihood, computed without b and T."""
    equations = accumulate(batch, noise_power())
    operator = Operator(equations, 1)
    rng = np.random.default_rng(3)
    volume = rng.normal(size=(N, N, N)).astype(np.float32)
    direction = rng.normal(size=(N, N, N)).astype(np.float32)
    _, gradient = operator.loss_and_gradient(volume)
    quotient = (log_likelihood(volume + direction, batch) - log_likelihood(volume - direction, batch)) / 2
    assert abs(float(np.vdot(gradient, direction)) / quotient - 1) < NUFFT


def test_loss_is_the_likelihood_but_for_a_constant(batch: FourierBatch) -> None:
    operator = Operator(accumulate(batch, noise_power()), 1)
    rng = np.random.default_rng(4)
    first, second = (rng.normal(size=(N, N, N)).astype(np.float32) for _ in range(2))
    found = operator.loss_and_gradient(first)[0] - operator.loss_and_gradient(second)[0]
    expected = log_likelihood(first, batch) - log_likelihood(second, batch)
    scale = log_likelihood(first, batch)
    assert abs(found - expected) < NUFFT * scale


def test_right_side_is_the_direct_sum(batch: FourierBatch) -> None:
    plane = conventions.half_plane(N, N / 2 - 0.5)
    strengths = 2 * plane.weight * batch.ctf * batch.observed / noise_power()
    axis = np.arange(N) - N // 2
    x, y, z = (np.exp(2j * np.pi * np.outer(axis, p.ravel()) / N) for p in slice_points(batch))
    expected = np.einsum("zp,yp,xp,p->zyx", z, y, x, strengths.ravel(), optimize=True).real
    assert relative_error(accumulate(batch, noise_power()).right_side, expected) < NUFFT


def test_operator_is_symmetric(batch: FourierBatch) -> None:
    operator = Operator(accumulate(batch, noise_power()), 1)
    rng = np.random.default_rng(5)
    u, v = (rng.normal(size=(N, N, N)).astype(np.float32) for _ in range(2))
    forward, backward = np.vdot(operator.apply(u), v), np.vdot(u, operator.apply(v))
    assert abs(forward - backward) < 1e-5 * np.linalg.norm(operator.apply(u)) * np.linalg.norm(v)


def test_parts_add_up(batch: FourierBatch) -> None:
    def part(selection: slice) -> NormalEquations:
        return accumulate(
            dataclasses.replace(
                batch,
                indices=batch.indices[selection],
                slices=batch.slices[selection],
                observed=batch.observed[selection],
                ctf=batch.ctf[selection],
                adjoint=batch.adjoint[selection],
                digests=batch.digests[selection],
            ),
            noise_power(),
        )

    whole, parts = accumulate(batch, noise_power()), part(slice(0, 5)) + part(slice(5, None))
    assert parts.n_particles == COUNT
    assert relative_error(parts.right_side, whole.right_side) < 1e-4
    assert relative_error(parts.spectrum, whole.spectrum) < 1e-4


def test_cropping_keeps_the_likelihood_of_a_coarse_map(batch: FourierBatch) -> None:
    """A band-limited map near the centre has the same linear and quadratic term on the coarse grid."""
    coarse = 12
    equations = accumulate(batch, noise_power())
    axis = np.arange(coarse) - coarse // 2
    radius2 = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    small = np.exp(-0.5 * radius2 / 1.4**2).astype(np.float32) * (1 + axis[:, None, None] * 0.3).astype(np.float32)
    transform = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(small)))
    wide = np.zeros((N, N, N), dtype=complex)
    edge = (N - coarse) // 2
    wide[edge:-edge, edge:-edge, edge:-edge] = transform
    fine = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(wide)).real).astype(np.float32)
    assert abs(fine.sum() / small.sum() - 1) < 1e-5  # one greyscale: the projections' total is the same
    cropped = Operator(equations.crop(coarse), 1)
    full = Operator(equations, 1)
    assert abs(np.vdot(small, cropped.right_side) / np.vdot(fine, full.right_side) - 1) < 0.02
    assert abs(np.vdot(small, cropped.apply(small)) / np.vdot(fine, full.apply(fine)) - 1) < 0.02


def test_a_window_keeps_the_likelihood_of_maps_inside_it(batch: FourierBatch) -> None:
    equations = accumulate(batch, noise_power())
    small = np.random.default_rng(6).normal(size=(10, 10, 10)).astype(np.float32)
    padded = np.pad(small, 3)
    loss, gradient = Operator(equations, 1).loss_and_gradient(padded)
    window_loss, window_gradient = Operator(equations.window(10), 1).loss_and_gradient(small)
    assert abs(window_loss - loss) < 1e-4 * abs(loss)
    assert relative_error(window_gradient, gradient[3:-3, 3:-3, 3:-3]) < 1e-4


def test_saved_equations_come_back(batch: FourierBatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    equations = accumulate(batch, noise_power())
    equations.save(tmp_path / "half1.npz")
    loaded = NormalEquations.load(tmp_path / "half1.npz")
    np.testing.assert_array_equal(loaded.right_side, equations.right_side)
    np.testing.assert_array_equal(loaded.spectrum, equations.spectrum)
    assert loaded.n_particles == COUNT
    (tmp_path / "other.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"other\.npz"):
        NormalEquations.load(tmp_path / "other.npz")


def test_two_threads_repeat_themselves_bit_by_bit(batch: FourierBatch) -> None:
    def once() -> NormalEquations:
        accumulator = Accumulator(conventions.half_plane(N, N / 2 - 0.5), noise_power(), n_threads=2)
        accumulator.add(batch)
        return accumulator.finish()

    first = once()
    for _ in range(5):
        again = once()
        np.testing.assert_array_equal(again.right_side, first.right_side)
        np.testing.assert_array_equal(again.spectrum, first.spectrum)
