"""Coarse density of Gaussians is made the data's; fine detail and what is right already stay."""

from dataclasses import replace

import numpy as np

from gem_plugin.coarse_scale import LARGEST_FACTOR, to_coarse_density
from gem_plugin.fsc import Shells
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.gaussians.start import place_gaussians
from gem_plugin.phantom import density, make_phantom
from gem_plugin.render import gaussian_map

N = 48
QUARTER_FSC = np.clip(1.2 - np.arange(N // 2 + 1) / 12, 0, 1)  # certain up to shell 6


def drawn(gaussians: Gaussians) -> np.ndarray:
    return np.asarray(gaussian_map(gaussians, N, 60, engine="cpu"))


def problem() -> tuple[Gaussians, np.ndarray]:
    """Gaussians and their map, with noise in shells that are not certain."""
    truth = density(make_phantom(N, 1))
    right = place_gaussians(np.maximum(truth, 0), 2000, np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(size=truth.shape) * drawn(right).std()
    fine = Shells(N).filter(noise, (np.arange(N // 2 + 1) > 14).astype(np.float64))
    return right, drawn(right) + fine


def coarse_error(gaussians: Gaussians, data: np.ndarray) -> float:
    shells = Shells(N)
    low_pass = (np.arange(N // 2 + 1) <= 5).astype(np.float64)
    difference = shells.filter(drawn(gaussians) - data, low_pass)
    return float(np.linalg.norm(difference) / np.linalg.norm(shells.filter(data, low_pass)))


def test_a_region_that_is_too_light_gets_its_density_back() -> None:
    right, data = problem()
    factor = np.where(right.centres_px[:, 0] > 0, 0.8, 1.1).astype(np.float32)
    wrong = replace(right, amplitudes=right.amplitudes * factor)
    mended = to_coarse_density(wrong, drawn(wrong), data, QUARTER_FSC, 1.0)
    assert coarse_error(mended, data) < 0.4 * coarse_error(wrong, data)
    half_mended = to_coarse_density(wrong, drawn(wrong), data, QUARTER_FSC, 0.5)
    assert coarse_error(mended, data) < coarse_error(half_mended, data) < coarse_error(wrong, data)
    np.testing.assert_array_equal(mended.centres_px, wrong.centres_px)


def test_what_is_right_stays_although_fine_shells_are_noise() -> None:
    right, data = problem()
    found = to_coarse_density(right, drawn(right), data, QUARTER_FSC, 1.0)
    change = np.abs(found.amplitudes / right.amplitudes - 1)
    assert np.quantile(change, 0.95) < 0.02
    assert coarse_error(found, data) < 0.01


def test_no_amplitude_changes_by_more_than_a_bound() -> None:
    right, data = problem()
    for of_data in (-data, 10 * data):
        found = to_coarse_density(right, drawn(right), of_data, QUARTER_FSC, 1.0)
        ratio = found.amplitudes / right.amplitudes
        assert ratio.min() > 0.999 / LARGEST_FACTOR
        assert ratio.max() < 1.001 * LARGEST_FACTOR


def test_without_weight_nothing_happens() -> None:
    right, data = problem()
    assert to_coarse_density(right, drawn(right), data, QUARTER_FSC, 0.0) is right
