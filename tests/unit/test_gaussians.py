"""Where Gaussians start, and that they come back from disk."""

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.gaussians.model import averaged
from gem_plugin.gaussians.start import Start, choose_n_gaussians, place_gaussians, start_density, start_scale_px
from gem_plugin.gaussians.storage import load_gaussians, save_gaussians
from gem_plugin.phantom import density, make_phantom
from gem_plugin.render import gaussian_map


def quarter_maps(noise: float, n: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = density(make_phantom(n, 0))
    rng = np.random.default_rng(0)
    a, b = (truth + noise * truth.std() * rng.normal(size=truth.shape) for _ in range(2))
    return a.astype(np.float32), b.astype(np.float32), truth


def test_density_is_filtered_towards_the_truth_and_has_no_solvent() -> None:
    a, b, truth = quarter_maps(2.0)
    start = start_density((a, b), 14.0)
    assert np.all(start.density >= 0)
    assert (start.density == 0).mean() > 0.5
    unfiltered = np.corrcoef(((a + b) / 2).ravel(), truth.ravel())[0, 1]
    assert np.corrcoef(start.density.ravel(), truth.ravel())[0, 1] > unfiltered + 0.05


def test_more_molecule_gets_more_gaussians() -> None:
    a, b, _ = quarter_maps(0.5)
    small = start_density((a, b), 14.0)
    doubled = np.pad(a, 16), np.pad(b, 16)
    both = start_density(tuple(v + np.roll(v, 24, axis=0) for v in doubled), 30.0)  # type: ignore[arg-type]
    assert 1.4 < choose_n_gaussians(both, 4.0) / choose_n_gaussians(small, 4.0) < 3.0


def test_gaussians_follow_the_density_and_keep_its_sum() -> None:
    truth = np.zeros((16, 16, 16), dtype=np.float32)
    truth[4, 8, 11] = 3.0  # z, y, x
    truth[12, 8, 5] = 1.0
    gaussians = place_gaussians(truth, 400, np.random.default_rng(0))
    assert abs(gaussians.amplitudes.sum() - 4.0) < 1e-4
    dense = np.abs(gaussians.centres_px - np.array([3, 0, -4])).max(axis=1) <= 0.5
    light = np.abs(gaussians.centres_px - np.array([-3, 0, 4])).max(axis=1) <= 0.5
    assert dense.sum() == 300
    assert light.sum() == 100


def test_gaussians_start_as_wide_as_an_atom_as_far_as_the_pixels_show_it() -> None:
    assert start_scale_px(1.5) * 1.5 == pytest.approx(1.2)
    assert start_scale_px(0.8) == start_scale_px(1.2) == 0.9
    assert start_scale_px(3.0) == start_scale_px(4.0) == 0.7
    gaussians = place_gaussians(np.ones((8, 8, 8)), 20, np.random.default_rng(0), scale_px=0.8)
    np.testing.assert_allclose(np.exp(gaussians.log_scales), 0.8, rtol=1e-6)


def test_different_generators_place_differently() -> None:
    _, _, truth = quarter_maps(0.0)
    first, second, again = (
        place_gaussians(np.maximum(truth, 0), 50, np.random.default_rng(seed)).centres_px for seed in (1, 2, 1)
    )
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)


def test_saved_gaussians_come_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    gaussians = place_gaussians(np.ones((8, 8, 8), dtype=np.float32), 20, np.random.default_rng(0))
    save_gaussians(tmp_path / "g.npz", gaussians, box_size_px=8, pixel_size_in_angstroms=1.25)
    loaded, box_size_px, pixel_size = load_gaussians(tmp_path / "g.npz")
    assert (box_size_px, pixel_size) == (8, 1.25)
    for name in ("centres_px", "log_scales", "quaternions", "amplitudes"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(gaussians, name))


def test_a_file_with_pickled_objects_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "g.npz", format=1, centres_px=np.array([{"code": 1}], dtype=object))
    with pytest.raises(InputError, match=r"g\.npz"):
        load_gaussians(tmp_path / "g.npz")


def test_density_at_the_rim_of_a_full_window_is_kept() -> None:
    """In a small box the window is the whole box: a particle off its centre must not be cut away."""
    maps = []
    for seed in (0, 1):
        volume = 0.01 * np.random.default_rng(seed).normal(size=(24, 24, 24)).astype(np.float32)
        volume[10:14, 10:14, 2:5] += 1.0
        maps.append(volume)
    start = start_density((maps[0], maps[1]), 11.0)
    assert start.density[12, 12, 3] > 0.3
    assert choose_n_gaussians(start, 4.0) >= 1


def test_there_are_at_most_two_gaussians_an_atom() -> None:
    """The same voxels, smaller in Angstrom, hold fewer atoms."""
    density = np.zeros((32, 32, 32), np.float32)
    density[10:20, 10:20, 10:20] = 1
    start = Start(density, np.full(17, 0.999), 16, 1000.0, 32)
    assert choose_n_gaussians(start, 1.6) == round(2 * 1000 * 1.6**3 / 17)
    assert choose_n_gaussians(start, 20.0) == choose_n_gaussians(start, 40.0)  # there the data are the limit


def test_averaged_gaussians_draw_the_mean_of_the_maps() -> None:
    truth = density(make_phantom(24, 0))
    fits = [place_gaussians(truth, n, np.random.default_rng(n)) for n in (30, 50)]
    maps = [gaussian_map(fit, 24, 24, engine="cpu") for fit in fits]
    found = gaussian_map(averaged(fits), 24, 24, engine="cpu")
    np.testing.assert_allclose(found, (maps[0] + maps[1]) / 2, atol=1e-5 * float(found.max()))
