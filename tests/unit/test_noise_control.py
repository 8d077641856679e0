"""Images with random phases beyond a resolution, and what the fit to them must not show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import half_plane
from gem_plugin.dataset import fourier_batch
from gem_plugin.errors import OptionError
from gem_plugin.io.images import ImageReader
from gem_plugin.noise_control import compare, control_radius
from gem_plugin.noise_substitution import NoiseSubstitution
from gem_plugin.reconstruction import HalfResult, NoiseControl
from tests.unit.linear_halves import PIXEL, N, Pair, coloured, curve_of, simulated
from tests.unit.small_project import SmallProject
from tests.unit.synthetic import synthetic_half

ONES = np.ones(3, np.int8)


def test_random_factors_are_those_of_a_real_image_and_leave_the_low_frequencies() -> None:
    n, radius = 24, 5.0
    plane = half_plane(n, n / 2 - 0.5)
    factors = NoiseSubstitution(radius, 7).factors(np.array([4, 9, 2]), ONES, plane)
    beyond = plane.radius > radius
    np.testing.assert_array_equal(factors[:, ~beyond], 1)
    np.testing.assert_allclose(np.abs(factors), 1, rtol=1e-6)
    angle = np.angle(factors[:, beyond])
    assert angle.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.1)
    assert abs(factors[:, beyond].mean()) < 0.15
    place = {(int(x), int(y)): i for i, (x, y) in enumerate(zip(plane.kx, plane.ky, strict=True))}
    pairs = [(i, place[0, -y]) for (x, y), i in place.items() if x == 0]
    assert len(pairs) == 2 * (n // 2 - 1)
    for i, j in pairs:
        np.testing.assert_allclose(factors[:, i], np.conj(factors[:, j]), rtol=1e-6)


def test_each_particle_keeps_its_own_phases_however_it_is_read() -> None:
    plane = half_plane(16, 7.5)
    substitution = NoiseSubstitution(3.0, 7)
    together = substitution.factors(np.array([4, 9, 2]), ONES, plane)
    np.testing.assert_array_equal(substitution.factors(np.array([9]), ONES[:1], plane)[0], together[1])
    beyond = plane.radius > 3
    others = [
        together[0],
        substitution.factors(np.array([9]), np.array([2], np.int8), plane)[0],
        NoiseSubstitution(3.0, 8).factors(np.array([9]), ONES[:1], plane)[0],
    ]
    for other in others:
        assert abs(np.mean(other[beyond] * np.conj(together[1][beyond]))) < 0.3


def test_batches_of_a_control_have_the_images_amplitudes(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    particles = project.read()
    plane = half_plane(8, 3.5)
    rows = np.array([3, 1])
    with ImageReader(particles) as reader:
        images = reader.read(rows)
    plain = fourier_batch(particles, images, rows, plane)
    control = replace(particles, noise_substitution=NoiseSubstitution(2.0, 1))
    changed = fourier_batch(control, images, rows, plane)
    np.testing.assert_allclose(np.abs(changed.observed), np.abs(plain.observed), rtol=1e-4)
    beyond = plane.radius > 2
    np.testing.assert_array_equal(changed.observed[:, ~beyond], plain.observed[:, ~beyond])
    assert np.abs(changed.observed - plain.observed)[:, beyond].min() > 1e-3
    np.testing.assert_array_equal(changed.ctf, plain.ctf)


def test_what_can_be_controlled() -> None:
    plane = half_plane(N, N / 2 - 0.5)
    assert control_radius(ReconstructionConfig(), plane, PIXEL) is None
    assert control_radius(ReconstructionConfig(noise_control=12), plane, PIXEL) == N * PIXEL / 12
    for resolution in (4.0, 90.0):
        with pytest.raises(OptionError, match=f"--noise_control {resolution:g} Angstrom.*between 4.48 Angstrom"):
            control_radius(ReconstructionConfig(noise_control=resolution), plane, PIXEL)


def results(gaussian: Pair, model_free: Pair) -> tuple[HalfResult, HalfResult]:
    first, second = (
        replace(synthetic_half(half, g.astype(np.float32)), model_free_map=v.astype(np.float32))
        for half, g, v in zip((1, 2), gaussian, model_free, strict=True)
    )
    return first, second


def control_of(seed: int, *, shared: float) -> NoiseControl:
    """Data and a control that holds the truth up to shell 8 and noise beyond; `shared` of it in both halves."""
    halves = simulated(seed, signal=3.0)
    low = (np.arange(N // 2 + 1) <= 8).astype(float)
    rng = np.random.default_rng(100 + seed)
    common = 4 * rng.normal(size=halves.truth.shape)
    v1, v2 = (coloured(halves.truth, low) + shared * common + 4 * rng.normal(size=common.shape) for _ in range(2))
    invented = 8 * coloured(rng.normal(size=common.shape), 1 - low)  # by both fits: a plain FSC believes it
    g1, g2 = (coloured(v, low) + 0.4 * coloured(v, 1 - low) + invented for v in (v1, v2))
    curve = curve_of(halves)
    return compare(
        results(halves.gaussian, halves.model_free), results((g1, g2), (v1, v2)), curve, halves.mask, 8.5, 11.3
    )


def test_noise_is_no_signal_and_its_error_is_known() -> None:
    values: list[NDArray[np.float64]] = []
    for seed in range(10):
        control = control_of(seed, shared=0)
        assert control.from_shell == 9
        assert control.is_beyond.sum() >= 2
        assert np.all(control.first_shell[control.is_beyond] >= 11)
        values.append((control.c_full / control.c_full_error)[control.is_beyond])
        assert control.plain_half_map_fsc[12:].min() > 0.3, "which is why it is not believed"
        assert np.abs(control.model_free_fsc[12:]).max() < 0.3
        assert control.c_full[0] > 0.9
        assert not control.is_alarming
        assert "nowhere above 0" in control.statement
    spread = np.concatenate(values)
    assert abs(spread.mean()) < 0.6
    assert 0.6 < spread.std() < 1.5


def test_noise_that_the_halves_share_is_told() -> None:
    control = control_of(1, shared=1.0)
    assert control.is_alarming
    assert "do not trust" in control.statement
    assert np.all((control.c_full > 3 * control.c_full_error)[control.is_beyond])


def test_fsc_true_takes_off_what_the_fits_agree_on_without_signal() -> None:
    halves, control = simulated(2, signal=3.0), control_of(2, shared=0)
    total, noise = curve_of(halves).plain_half_map_fsc, control.plain_half_map_fsc
    np.testing.assert_allclose(control.true_half_map_fsc[:11], total[:11])
    total, noise = total[1:], noise[1:]  # shell 0 is one number, which correlates by 1
    expected = np.append(np.nan, np.maximum(total - noise, 0) / (1 - noise))
    np.testing.assert_allclose(control.true_half_map_fsc[11:], expected[11:])


def test_a_control_beyond_the_measurable_says_so() -> None:
    halves = simulated(1, signal=1.0)
    pair = results(halves.gaussian, halves.model_free)
    control = compare(pair, pair, curve_of(halves), halves.mask, 20.0, N * PIXEL / 20)
    assert not control.is_beyond.any()
    assert not control.is_alarming
    assert "nothing to control" in control.statement
