"""The B-factor: found again where it was put in, applied with RELION's sign, left alone where it cannot be known."""

from dataclasses import replace

import numpy as np
import pytest

from gem_plugin.fsc import Shells
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.sharpening import guinier_plot, sharpen
from tests.unit.synthetic import synthetic_curve

N, PIXEL = 64, 1.5
EDGE = N * PIXEL
SHELLS = Shells(N)
INVERSE_SQUARE = (np.arange(N // 2 + 1) / EDGE) ** 2
MASK = np.ones((N, N, N), np.float32)


def white(b_factor: float) -> np.ndarray:
    """White noise damped as by a B-factor: amplitudes exp(B / (4 d^2)) with B < 0."""
    noise = np.random.default_rng(3).normal(size=(N, N, N)).astype(np.float32)
    return SHELLS.filter(noise, np.exp(b_factor / 4 * INVERSE_SQUARE))


def flat_curve(resolution: float | None) -> ResolutionCurve:
    with np.errstate(divide="ignore"):
        shells = EDGE / np.arange(N // 2 + 1)
    return replace(
        synthetic_curve(),
        shell_resolution_in_angstroms=shells,
        filter_weight=np.ones(N // 2 + 1),
        resolution_in_angstroms=resolution,
        is_claimed=resolution is not None,
    )


def amplitudes(volume: np.ndarray) -> np.ndarray:
    return np.sqrt(SHELLS.power(SHELLS.transform(volume)) / SHELLS.n_coefficients)


@pytest.mark.parametrize("b_factor", [-60.0, -150.0])
def test_the_b_factor_that_was_put_in_is_found_and_taken_out(b_factor: float) -> None:
    volume = white(b_factor)
    sharpened, how = sharpen(volume, MASK, flat_curve(3.5), PIXEL, 0.0)
    assert how.b_factor_in_angstroms2 == pytest.approx(b_factor, abs=4)
    assert how.plot.slope == pytest.approx(b_factor / 4, abs=1)
    assert how.plot.correlation < -0.95
    used = np.flatnonzero(how.plot.is_fitted)
    assert EDGE / used[0] <= 10 < EDGE / (used[0] - 1)
    assert EDGE / used[-1] >= 3.5 > EDGE / (used[-1] + 1)
    level = amplitudes(sharpened)[5 : used[-1] - 1]
    assert level.max() / level.min() < 1.15, "what was damped is white again"
    assert f"{how.b_factor_in_angstroms2:.1f}" in how.statement


def test_beyond_the_resolution_nothing_is_kept() -> None:
    sharpened, _ = sharpen(white(-60.0), MASK, flat_curve(4.0), PIXEL, 0.0)
    power = amplitudes(sharpened)
    end = int(EDGE / 4.0)
    assert power[end + 2 :].max() < 1e-4 * power[end - 3]


def test_a_given_b_factor_is_applied_with_relions_sign() -> None:
    volume = white(-60.0)
    sharpened, how = sharpen(volume, MASK, flat_curve(3.5), PIXEL, -100.0)
    shells = slice(5, int(EDGE / 3.5) - 2)
    np.testing.assert_allclose(
        (amplitudes(sharpened) / amplitudes(volume))[shells], np.exp(25 * INVERSE_SQUARE)[shells], rtol=1e-3
    )
    assert how.b_factor_in_angstroms2 == -100
    assert "as given" in how.statement


@pytest.mark.parametrize(
    ("curve", "volume", "why"),
    [
        (flat_curve(None), white(-60.0), "no resolution is claimed"),
        (flat_curve(7.5), white(-60.0), "fewer than 6 Fourier shells"),
        (flat_curve(3.5), white(+30.0), "do not fall"),
    ],
)
def test_where_it_cannot_be_known_the_map_is_not_sharpened(
    curve: ResolutionCurve, volume: np.ndarray, why: str
) -> None:
    made, how = sharpen(volume, MASK, curve, PIXEL, 0.0)
    assert how.b_factor_in_angstroms2 is None
    assert why in how.statement
    np.testing.assert_allclose(made, SHELLS.filter(volume, curve.filter_weight), atol=1e-5)


def test_a_curve_that_does_not_cross_is_used_to_the_end_of_its_last_band() -> None:
    curve = replace(flat_curve(3.5), resolution_in_angstroms=None, last_shell=np.array([26]))
    _, how = sharpen(white(-60.0), MASK, curve, PIXEL, 0.0)
    assert how.b_factor_in_angstroms2 is not None
    assert np.flatnonzero(how.plot.is_fitted)[-1] == 26


def test_a_map_of_nothing_has_no_line() -> None:
    plot = guinier_plot(np.zeros((N, N, N), np.float32), PIXEL, 3.5)
    assert np.isnan(plot.slope)
    assert not plot.is_fitted.any()
