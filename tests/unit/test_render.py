"""The render grid: how well samples stand for a Gaussian, and the data on voxels finer than the images' pixels."""

import numpy as np
import pytest
import torch

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch, fourier_batch
from gem_plugin.fit import FitSettings
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.ops import voxelize
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.render import FINEST_FREQUENCY, choose_render_box, fourier_crop, gaussian_map
from tests.helpers import NUFFT, relative_error

N = 24
FLOOR = FitSettings(1, 1).smallest_scale_voxels
# docs/method.md states it: of a coefficient at the finest frequency, for a round Gaussian of the smallest width
WORST_ALIASING = 0.32  # of the narrowest Gaussian, at the finest frequency (docs/method.md)


def exact_transform(gaussians: Gaussians, points: np.ndarray, box_size_px: int) -> np.ndarray:
    """The Fourier transform of Gaussians at points [3, m] in cycles a box, by the formula."""
    w, x, y, z = gaussians.quaternions.astype(np.float64).T
    rotations = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    k = points.astype(np.float64) / box_size_px
    along = np.einsum("jia,ip->jap", rotations, k)
    envelope = np.exp(-2 * np.pi**2 * (np.exp(gaussians.log_scales)[:, :, None] ** 2 * along**2).sum(axis=1))
    waves = np.exp(-2j * np.pi * gaussians.centres_px.astype(np.float64) @ k)
    return np.asarray((gaussians.amplitudes[:, None] * envelope * waves).sum(axis=0))


def some_gaussians(smallest_px: float, n: int = 20) -> Gaussians:
    random = np.random.default_rng(3)
    quaternions = random.normal(size=(n, 4))
    return Gaussians(
        random.uniform(-4, 4, (n, 3)).astype(np.float32),
        np.log(random.uniform(smallest_px, 1.6, (n, 3))).astype(np.float32),
        (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).astype(np.float32),
        random.uniform(0.5, 1.5, n).astype(np.float32),
    )


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_aliasing_at_the_finest_frequency_is_what_the_formula_says(offset: float) -> None:
    """The samples' transform against the exact one, for the smallest width, at the frequency where the data end."""
    box = 40
    frequency = round(FINEST_FREQUENCY * box)
    volume = voxelize(
        torch.tensor([[offset, 0, 0]]).double(),
        torch.full((1, 3), np.log(FLOOR)).double(),
        torch.tensor([[1.0, 0, 0, 0]]).double(),
        torch.ones(1).double(),
        box,
        cutoff_sigmas=12,
        engine="reference",
    ).numpy()
    sampled = np.fft.fftn(np.fft.ifftshift(volume))[0, 0, frequency]
    exact = np.exp(-2 * np.pi**2 * FLOOR**2 * FINEST_FREQUENCY**2) * np.exp(-2j * np.pi * frequency * offset / box)
    error = abs(sampled - exact) / abs(exact)
    folded = np.exp(-2 * np.pi**2 * FLOOR**2 * ((1 - FINEST_FREQUENCY) ** 2 - FINEST_FREQUENCY**2))
    across = (1 + 2 * np.exp(-2 * np.pi**2 * FLOOR**2)) ** 2  # what the samples' sums along the other two axes add
    expected = abs((1 + folded * (1 if offset == 0 else -1)) * across - 1)
    assert abs(error / expected - 1) < 0.01
    assert 0.9 * WORST_ALIASING < error < WORST_ALIASING


def test_the_render_grid_is_fine_enough_and_no_finer() -> None:
    for n in (24, 64, 96, 160):
        plane = conventions.half_plane(n, n / 2 - 0.5)
        box = choose_render_box(plane)
        assert plane.radius.max() / box <= FINEST_FREQUENCY
        assert box <= 1.15 * n / 2 / FINEST_FREQUENCY
        assert choose_render_box(conventions.half_plane(n, 0.2 * n)) == n  # the images' own pixels are fine enough


@pytest.fixture(scope="module")
def particles_at_nyquist() -> tuple[FourierBatch, conventions.HalfPlane]:
    plane = conventions.half_plane(N, N / 2 - 0.5)
    particles = random_particles(8, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    images = simulate_images(make_phantom(N, 1), particles, snr=0.5, seed=2).images
    return fourier_batch(particles, images, np.arange(8), plane), plane


def slice_points(batch: FourierBatch, plane: conventions.HalfPlane) -> np.ndarray:
    return conventions.slice_points(batch.slices, plane).astype(np.float64)


def on_render_grid(batch: FourierBatch, plane: conventions.HalfPlane, box: int) -> NormalEquations:
    accumulator = Accumulator(plane, np.full(len(plane.kx), 100, dtype=np.float32), 1, box)
    accumulator.add(batch)
    return accumulator.finish()


def test_right_side_is_the_direct_sum_at_the_finer_voxels(particles_at_nyquist) -> None:  # type: ignore[no-untyped-def]
    batch, plane = particles_at_nyquist
    box = choose_render_box(plane)
    assert box > N
    strengths = 2 * plane.weight * batch.ctf * batch.observed / 100
    axis = np.arange(box) - box // 2
    x, y, z = (np.exp(2j * np.pi * np.outer(axis, p.ravel()) / box) for p in slice_points(batch, plane))
    expected = np.einsum("zp,yp,xp,p->zyx", z, y, x, strengths.ravel(), optimize=True).real
    assert relative_error(on_render_grid(batch, plane, box).right_side, expected) < NUFFT


def test_drawn_gaussians_have_the_likelihood_of_exact_ones(particles_at_nyquist) -> None:  # type: ignore[no-untyped-def]
    """Widths of well under a pixel, data up to Nyquist: voxels against the formula at every point of every slice."""
    batch, plane = particles_at_nyquist
    box = choose_render_box(plane)
    scale = box / N
    gaussians = some_gaussians(FLOOR / scale)
    assert np.exp(gaussians.log_scales.min()) < 0.7

    def likelihood(voxels: int) -> float:
        ratio = voxels / N
        volume = voxelize(
            torch.from_numpy(gaussians.centres_px) * ratio,
            torch.from_numpy(gaussians.log_scales) + float(np.log(ratio)),
            torch.from_numpy(gaussians.quaternions),
            torch.from_numpy(gaussians.amplitudes),
            voxels,
            cutoff_sigmas=6,
        )
        return Operator(on_render_grid(batch, plane, voxels), 1).loss_and_gradient(volume.numpy())[0]

    exact = exact_transform(gaussians, slice_points(batch, plane).reshape(3, -1), N).reshape(batch.observed.shape)
    weight = plane.weight / 100
    quadratic = float((weight * np.abs(batch.ctf * exact) ** 2).sum())
    expected = quadratic - float((weight * 2 * (batch.ctf * exact * batch.observed.conj()).real).sum())
    assert abs(likelihood(box) - expected) < 2e-3 * quadratic
    assert abs(likelihood(N) - expected) > 3 * abs(likelihood(box) - expected)  # the images' pixels are too coarse


def test_the_band_that_is_kept_is_all_that_matters(particles_at_nyquist) -> None:  # type: ignore[no-untyped-def]
    """T without the frequencies beyond the data acts on drawn Gaussians as T with all of them."""
    batch, plane = particles_at_nyquist
    box = 2 * N
    kept = on_render_grid(batch, plane, box)
    assert kept.band < box
    offsets = np.arange(2 * box) - box
    x, y, z = (np.exp(2j * np.pi * np.outer(offsets, p.ravel()) / box) for p in slice_points(batch, plane))
    strengths = (2 * plane.weight / 100 * batch.ctf.astype(np.float64) ** 2).ravel()
    direct = np.einsum("zp,p,yp,xp->zyx", z, strengths, y, x, optimize=True).real
    direct[0] = direct[:, 0] = direct[:, :, 0] = 0
    spectrum = np.fft.rfftn(np.fft.ifftshift(direct)).real.astype(np.float32)
    everything = NormalEquations(kept.right_side, spectrum, kept.n_particles)
    volume = gaussian_map(some_gaussians(0.35), N, box, engine="cpu")
    fine = np.pad(volume, (box - N) // 2)
    assert relative_error(Operator(kept, 1).apply(fine), Operator(everything, 1).apply(fine)) < 3e-3


def test_a_cropped_map_keeps_its_sum_and_its_place() -> None:
    gaussians = some_gaussians(1.0)
    direct = gaussian_map(gaussians, N, N, engine="cpu")
    fine = gaussian_map(gaussians, N, 36, engine="cpu")
    assert relative_error(fine, direct) < 0.02
    big = np.random.default_rng(0).normal(size=(36, 36, 36)).astype(np.float32)
    small = fourier_crop(big, N)
    assert small.shape == (N, N, N)
    assert abs(small.sum() / big.sum() - 1) < 1e-4
    np.testing.assert_allclose(
        np.fft.fftn(np.fft.ifftshift(small))[1:4, 2, :5], np.fft.fftn(np.fft.ifftshift(big))[1:4, 2, :5], rtol=1e-3
    )
