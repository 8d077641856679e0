"""What a half's fits are given: how many they are, how fast widths move, and where Gaussians start."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import half_plane
from gem_plugin.gaussians.start import Start, start_scale_px
from gem_plugin.half_fits import LOG_SCALE_RATES, fit_settings
from gem_plugin.half_problem import FEWEST_FITS, FITTED_ONCE, MOST_FITS, START_POWER, HalfData, choose_n_fits
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.monitor import SilentMonitor
from gem_plugin.phantom import random_particles
from gem_plugin.run import Run
from gem_plugin.symmetry import point_group

N = 16


def half(config: ReconstructionConfig, seen: int = N // 2, greyscale: float = 1.0, n_gaussians: int = 3000) -> HalfData:
    """A half of which the first shells show signal, and whose density is 1 in one voxel and 4 in another."""
    plane = half_plane(N, N / 2)
    density = np.zeros((N, N, N), dtype=np.float32)
    density[8, 8, 4], density[8, 8, 12] = greyscale, 4 * greyscale
    curve = np.where(np.arange(N // 2 + 1) <= seen, 0.5, 0.0)
    particles = random_particles(2, OpticsGroup("one", 1.5, N, 300.0, 2.7, 0.1), seed=1)
    run = Run(config, "cpu", 1, plane, N, 6.0, point_group(config.sym), SilentMonitor())
    return HalfData("Half 1", particles, cast(Any, None), Start(density, curve, seen, 2.0, N), n_gaussians, run)


def test_few_gaussians_are_fitted_more_often() -> None:
    chosen = [choose_n_fits(n) for n in (1, 3_000, 20_000, 25_000, 30_000, 150_000)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == MOST_FITS > FEWEST_FITS == chosen[-1]
    assert choose_n_fits(FITTED_ONCE // 2) == 4


def test_copies_by_symmetry_count_and_a_given_number_is_fitted_once() -> None:
    assert half(ReconstructionConfig(), n_gaussians=10_000).n_fits == MOST_FITS
    assert half(ReconstructionConfig(sym="D2"), n_gaussians=10_000).n_fits == choose_n_fits(40_000) < MOST_FITS
    assert half(ReconstructionConfig(n_gaussians=3000)).n_fits == 1
    assert half(ReconstructionConfig(fit="images")).n_fits == 1


def test_widths_move_the_more_slowly_the_less_signal_there_is() -> None:
    rates = [fit_settings(half(ReconstructionConfig(), seen), 30, 40).log_scale_rate for seen in (3, 6, 8)]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == pytest.approx(LOG_SCALE_RATES)
    assert rates[0] < rates[1] < rates[2]


@pytest.mark.parametrize("greyscale", [1.0, 1e-34, 1e33])
def test_dense_parts_get_more_than_their_share_of_gaussians_whatever_the_greyscale(greyscale: float) -> None:
    one = half(ReconstructionConfig(), greyscale=greyscale)
    placed = one.place(np.random.default_rng(0))
    in_dense_part = np.mean(placed.centres_px[:, 0] > 0)
    assert in_dense_part == pytest.approx(4**START_POWER / (1 + 4**START_POWER), abs=0.01)
    assert placed.amplitudes.sum() == pytest.approx(5 * greyscale, rel=1e-3)
    np.testing.assert_allclose(np.exp(placed.log_scales), start_scale_px(1.5), rtol=1e-5)
    to_images = replace(one, run=replace(one.run, config=ReconstructionConfig(fit="images")))
    assert np.mean(to_images.place(np.random.default_rng(0)).centres_px[:, 0] > 0) == pytest.approx(0.8, abs=0.01)
