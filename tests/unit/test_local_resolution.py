"""Local resolution and the local filter, against a truth of which one half is much blurrier than the other."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gem_plugin.fsc import Shells
from gem_plugin.honest import Bands, band_powers, mask_halves, masked_transform
from gem_plugin.local_curve import LocalCurve, choose_radius_px, measure_locally
from gem_plugin.local_filter import filter_locally, overlapping_bands
from gem_plugin.local_powers import local_powers
from gem_plugin.local_resolution import crossing_shells, local_resolution
from gem_plugin.masks import soft_mask
from gem_plugin.model_free import support_sphere
from gem_plugin.phantom import density, make_phantom
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.resolution import resolution_curve
from gem_plugin.windows import SlidingWindows

N, PIXEL = 64, 2.0
RADIUS_PX = 7.0
SHELLS = Shells(N)
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Halves:
    truth: Map
    gaussian: tuple[Map, Map]
    model_free: tuple[Map, Map]
    mask: Map
    curve: ResolutionCurve
    local: LocalCurve

    @property
    def mean(self) -> Map:
        return (self.gaussian[0] + self.gaussian[1]) / 2


def coloured(volume: NDArray[np.floating], width: float) -> Map:
    return SHELLS.filter(volume.astype(np.float32), np.exp(-0.5 * (np.arange(N // 2 + 1) / width) ** 2))


def simulated(*, blurred: bool, noise: float = 1.5, invented: float = 0.0) -> Halves:
    """Blurred: where x is negative the truth keeps low frequencies only, and the noise of the maps does not.

    Invented: white detail that both Gaussian maps share inside the mask, as a model's bias is shared.
    """
    sharp = density(make_phantom(N, 3))
    sharp = (sharp / sharp.std()).astype(np.float32)
    sphere = support_sphere(N, 0.42 * N)
    side = 1 / (1 + np.exp(-(np.arange(N) - N // 2) / 1.5))
    truth = side * sharp + (1 - side) * coloured(sharp, N / 10) if blurred else sharp
    random = np.random.default_rng(7)
    noises = [noise * random.normal(size=truth.shape) * sphere for _ in (1, 2)]
    mask = soft_mask(gaussian_filter(sharp, 1.5), 0.42 * N)
    shared = invented * mask * random.normal(size=truth.shape)
    gaussian = tuple(coloured(truth + 0.8 * n, 0.3 * N) + shared.astype(np.float32) for n in noises)
    model_free = tuple((truth + n).astype(np.float32) for n in noises)
    curve = resolution_curve(
        gaussian, model_free, mask, sphere, PIXEL, last_shell=N // 2 - 1, half_sets_are_refined=True
    )
    local = measure_locally(gaussian, model_free, mask, curve, RADIUS_PX, 1)
    return Halves(truth.astype(np.float32), gaussian, model_free, mask, curve, local)


@pytest.fixture(scope="module")
def halves() -> Halves:
    return simulated(blurred=True)


def local_truth(halves: Halves) -> NDArray[np.float64]:
    """Correlation of the mean map with the truth in the same windows and bands."""
    windows = halves.local.windows
    f, t = (masked_transform(SHELLS, v, halves.mask) for v in (halves.mean, halves.truth))
    shells, found = np.arange(N // 2 + 1), []
    for first, last in zip(halves.local.bands.first, halves.local.bands.last, strict=True):
        weight = ((shells >= first) & (shells <= last)).astype(float)
        a, b = (SHELLS.map_of(transform, weight) for transform in (f, t))
        powers = windows.sum(a * a) * windows.sum(b * b)
        found.append(windows.sum(a * b) / np.sqrt(np.maximum(powers, 1e-12)))
    return np.stack(found)


def sides(halves: Halves) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Windows in the sharp part of the molecule, and in the blurred one."""
    windows = halves.local.windows
    inside = windows.sum(halves.mask) > 0.5
    x = np.broadcast_to((np.arange(N) - N // 2).astype(np.float32), (N, N, N))
    return inside & (windows.sum(x) > 5), inside & (windows.sum(x) < -5)


def test_local_correlation_is_that_with_the_truth_in_the_same_place(halves: Halves) -> None:
    sharp, blurred = sides(halves)
    assert sharp.sum() > 10
    assert blurred.sum() > 10
    c = np.where(halves.curve.is_measurable, halves.curve.c_full, 0)[:, None, None, None] * halves.local.ratio
    truth = local_truth(halves)
    differing = 0
    for band in np.flatnonzero(halves.curve.is_measurable):
        difference = np.median(truth[band][sharp]) - np.median(truth[band][blurred])
        assert abs(np.median((c[band] - truth[band])[sharp])) < 0.06
        assert abs(np.median((c[band] - truth[band])[blurred])) < max(0.06, 0.4 * difference)
        differing += difference > 0.25
    assert differing >= 2, "the test must have something to find"


def test_local_resolution_follows_the_truth_and_not_the_global_value(halves: Halves) -> None:
    made = local_resolution(halves.local, halves.curve, halves.mask, PIXEL)
    true = halves.local.windows.at_voxels(crossing_shells(local_truth(halves), halves.local.bands))
    side = np.broadcast_to(np.arange(N) - N // 2, (N, N, N))
    inside = halves.mask > 0.9
    found = [N * PIXEL / np.median(made.in_angstroms[inside & part]) for part in (side > 6, side < -6)]
    known = [np.median(true[inside & part]) for part in (side > 6, side < -6)]
    band = float(halves.curve.last_shell[0] - halves.curve.first_shell[0] + 1)
    assert known[0] - known[1] > band
    assert found[0] - found[1] > 0.6 * (known[0] - known[1])
    np.testing.assert_allclose(found, known, atol=band)
    assert np.all(made.in_angstroms[halves.mask == 0] == 0)
    assert np.all(made.in_angstroms[halves.mask > 0] >= N * PIXEL / halves.curve.last_shell[-1] - 1e-4)


def test_where_all_places_are_alike_the_global_resolution_stands_everywhere() -> None:
    alike = simulated(blurred=False, noise=4.0)
    made = local_resolution(alike.local, alike.curve, alike.mask, PIXEL)
    stated = alike.curve.resolution_in_angstroms
    assert stated is not None
    shell = N * PIXEL / made.in_angstroms[alike.mask > 0.9]
    assert np.abs(np.percentile(shell, [5, 95]) - N * PIXEL / stated).max() < 2.0


def test_nothing_is_stated_locally_where_nothing_is_stated(halves: Halves) -> None:
    curve = resolution_curve(
        halves.gaussian,
        halves.model_free,
        halves.mask,
        support_sphere(N, 0.42 * N),
        PIXEL,
        last_shell=N // 2 - 1,
        half_sets_are_refined=False,
    )
    made = local_resolution(halves.local, curve, halves.mask, PIXEL)
    assert not made.in_angstroms.any()
    assert "no resolution is claimed" in made.statement


def test_local_filter_takes_more_from_the_blurred_part(halves: Halves) -> None:
    plain = SHELLS.filter(halves.mean, halves.curve.filter_weight)
    filtered = filter_locally(halves.mean, halves.local, halves.curve, 1)
    side = np.broadcast_to(np.arange(N) - N // 2, (N, N, N))
    for part, least, most in ((side > 6, 0.98, 1.3), (side < -6, 0.0, 0.94)):
        where = (halves.mask > 0.9) & part
        high = [v - gaussian_filter(v, 1.5) for v in (plain, filtered)]
        assert least < high[1][where].std() / high[0][where].std() < most
    errors = [np.std((v - halves.truth)[(halves.mask > 0.9) & (side < -6)]) for v in (plain, filtered)]
    assert errors[1] < errors[0], "what is taken away is error"


def test_a_uniform_curve_filters_as_the_global_one(halves: Halves) -> None:
    uniform = LocalCurve(
        halves.local.windows, halves.local.bands, halves.local.powers, np.ones_like(halves.local.ratio)
    )
    plain = SHELLS.filter(halves.mean, halves.curve.filter_weight)
    difference = filter_locally(halves.mean, uniform, halves.curve, 1) - plain
    assert np.abs(difference).max() < 1e-4 * np.abs(plain).max()


def test_windows_add_up_to_the_powers_of_the_whole_map(halves: Halves) -> None:
    """One window as wide as the world holds the band's power; many small ones hold it between them."""
    masked = mask_halves(halves.gaussian, halves.model_free, halves.mask)
    bands = Bands(halves.curve.first_shell, halves.curve.last_shell)
    whole = band_powers(masked, bands, halves.curve.n_independent)
    windows = halves.local.windows
    sums = local_powers(masked, bands, windows)
    spacing = (N - 1) / (windows.n_points - 1)
    for field, power in ((sums.cross, whole.cross), (sums.signal, whole.signal), (sums.combined, whole.combined)):
        np.testing.assert_allclose(field.sum(axis=(1, 2, 3)) * spacing**3, power / N**3, rtol=0.04)
    np.testing.assert_allclose(2 * sums.nn.sum(axis=(1, 2, 3)) * spacing**3, whole.noise / N**3, rtol=0.04)


def test_a_window_is_a_gaussian_of_its_radius_where_it_is_said_to_be() -> None:
    windows = SlidingWindows(32, 5.0)
    point = np.zeros((32, 32, 32), np.float32)
    z, y, x = 12, 16, 20
    point[z, y, x] = 1
    sums = windows.sum(point)
    axis = np.linspace(0, 31, windows.n_points)
    squares = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
    expected = 0.5 ** (squares / 25.0)
    np.testing.assert_allclose(sums / sums.max(), expected / expected.max(), atol=1e-5)
    assert windows.sum(np.ones((32, 32, 32), np.float32))[windows.n_points // 2].max() == pytest.approx(1, abs=1e-3)
    ramp = windows.at_voxels(np.broadcast_to(axis, (windows.n_points,) * 3))
    np.testing.assert_allclose(ramp[3, 7], np.arange(32), atol=1e-4)
    wider = SlidingWindows(32, 9.0, windows.n_points)
    direct = wider.sum(point)
    assert np.abs(windows.widen(sums, wider) - direct).max() < 0.05 * direct.max()


def test_a_window_holds_as_many_voxels_as_its_sum_of_noise_says() -> None:
    windows = SlidingWindows(32, 4.0)
    random = np.random.default_rng(0)
    mask = np.ones((32, 32, 32), np.float32)
    middle = (slice(windows.n_points // 2, windows.n_points // 2 + 1),) * 3
    sums = [windows.sum(random.normal(size=mask.shape).astype(np.float32))[middle].item() for _ in range(400)]
    assert 1 / np.var(sums) == pytest.approx(windows.independent_voxels(mask)[middle].item(), rel=0.25)


def test_windows_are_wider_where_the_global_curve_is_less_certain(halves: Halves) -> None:
    large = np.ones_like(halves.mask)
    wide_bands = {"first_shell": np.arange(1, 28, 9), "last_shell": np.arange(9, 28, 9), "c_full": np.full(3, 0.9)}
    wide_bands["c_full_resampled_error"] = np.full(3, np.nan)
    precise, vague = (
        replace(halves.curve, **wide_bands, is_measurable=np.ones(3, bool), c_full_standard_error=np.full(3, error))
        for error in (0.001, 0.06)
    )
    assert choose_radius_px(precise, large) == pytest.approx(0.75 * N / 9)
    assert choose_radius_px(vague, large) > 1.1 * choose_radius_px(precise, large)


def test_crossing_is_linear_between_bands_and_bounded_by_them() -> None:
    bands = Bands(np.array([1, 5, 9]), np.array([4, 8, 12]))
    c = np.array([[0.9, 0.3, 0.9, 0.9], [0.8, 0.2, 0.4, 0.9], [0.2, 0.1, 0.9, 0.7]])
    np.testing.assert_allclose(crossing_shells(c, bands), [8.5, 2.5, 5.7, 12])


def test_overlapping_bands_add_up_to_one() -> None:
    triangles = overlapping_bands(Bands(np.array([1, 5, 9]), np.array([4, 8, 12])), 17)
    np.testing.assert_allclose(triangles.sum(axis=0), 1)
    assert triangles[1, 6] == pytest.approx(0.875)
