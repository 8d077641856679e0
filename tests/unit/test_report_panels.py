"""What the smaller plots and the table of a report show."""

import dataclasses

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from gem_plugin.conventions import rotation_matrices
from gem_plugin.report.particles_page import residuals_by_optics_group, worst_particles
from gem_plugin.report.summary_plots import draw_guinier, draw_local_resolution
from gem_plugin.report.views import draw_views, view_directions, views_over_uniform
from gem_plugin.symmetry import point_group
from tests.unit.pages import (
    CONTROLS,
    FIT,
    FRONT,
    PARTICLES,
    TEXT,
    axes_of,
    line_labelled,
    pages_of,
    pages_of_case,
    words_of,
)
from tests.unit.synthetic import CASES, N_PARTICLES, synthetic_curve, synthetic_reconstruction, synthetic_viewing

ONE = point_group("C1")


def test_a_view_direction_is_the_third_row_of_the_rotation() -> None:
    angles = np.random.default_rng(0).uniform([-180, 0, -180], [180, 180, 180], (50, 3))
    seen_from = view_directions(angles[:, :2], ONE)
    np.testing.assert_allclose(seen_from, rotation_matrices(angles)[:, 2], atol=1e-12)


def test_uniform_views_are_uniform_and_one_view_is_where_it_belongs() -> None:
    uniform = np.random.default_rng(1).normal(size=(200_000, 3))
    density = views_over_uniform(uniform / np.linalg.norm(uniform, axis=1, keepdims=True))
    assert np.abs(density - 1).max() < 0.2, "bins of equal solid angle"
    one = views_over_uniform(view_directions(np.array([[100.0, 20.0]]), ONE))
    rows, columns = one.shape
    (row,), (column,) = np.nonzero(one)
    assert -1 + 2 * row / rows <= np.cos(np.radians(20)) <= -1 + 2 * (row + 1) / rows
    assert -180 + 360 * column / columns <= 100 <= -180 + 360 * (column + 1) / columns


@pytest.mark.parametrize("name", ["C3", "D2", "O"])
def test_symmetry_mates_of_a_view_are_counted(name: str) -> None:
    group = point_group(name)
    seen_from = view_directions(np.array([[25.0, 50.0]]), group)
    assert len(seen_from) == group.order
    # a view of the turned map is a view of the same map
    for operator in group.operators:
        turned = seen_from @ operator.T
        distances = np.linalg.norm(turned[:, None] - seen_from[None], axis=2).min(axis=1)
        assert distances.max() < 1e-6
    figure = Figure()
    draw_views(axes := figure.add_subplot(), np.array([[25.0, 50.0]]), group)
    assert f"{name} mates" in axes.texts[0].get_text()


def test_page_one_shows_the_views_of_the_particles() -> None:
    axes = axes_of(pages_of_case("usual")[FRONT], "View directions")
    angles = synthetic_reconstruction().particle_list.view_angles_deg
    np.testing.assert_allclose(axes.images[0].get_array(), views_over_uniform(view_directions(angles, ONE)))
    assert axes.images[0].get_extent() == [-180, 180, -1, 1]
    ticks = {label.get_text(): place for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert (ticks["0"], ticks["180"]) == pytest.approx((1, -1)), "tilt 0 is up"
    assert ticks["45"] == pytest.approx(np.sqrt(0.5))


def test_local_resolution_is_that_of_the_mask_and_its_shares_add_up() -> None:
    reconstruction = synthetic_reconstruction()
    axes = axes_of(pages_of_case("usual")[FRONT], "Local resolution")
    shares, edges, _ = axes.patches[0].get_data()
    assert shares.sum() == pytest.approx(100)
    local = reconstruction.viewing.local_resolution.in_angstroms
    inside = local[(reconstruction.mask > 0.5) & (local > 0)]
    expected, _ = np.histogram(np.clip(inside, edges[0], edges[-1]), bins=edges)
    np.testing.assert_allclose(shares, 100 * expected / len(inside), atol=1e-6)
    assert line_labelled(axes, "median")[0, 0] == pytest.approx(np.median(inside))
    assert line_labelled(axes, "stated")[0, 0] == 4.37


def test_local_resolution_that_is_alike_everywhere_can_be_drawn() -> None:
    axes = Figure().add_subplot()
    draw_local_resolution(axes, np.full(100, 7.1), None, "")
    shares, edges, _ = axes.patches[0].get_data()
    assert shares.max() == pytest.approx(100)
    assert edges[0] < 7.1 < edges[-1]


def test_the_guinier_plot_tells_what_the_line_was_fitted_to() -> None:
    plot = synthetic_viewing(np.zeros((2, 2, 2), np.float32)).sharpening.plot
    axes = axes_of(pages_of_case("usual")[FRONT], "Guinier")
    fitted = line_labelled(axes, "fitted")
    np.testing.assert_allclose(fitted[:, 0], plot.inverse_square_in_per_angstrom2[plot.is_fitted])
    np.testing.assert_allclose(fitted[:, 1], plot.log_amplitude[plot.is_fitted])
    line = line_labelled(axes, "line")
    np.testing.assert_allclose(line[:, 1], plot.intercept + plot.slope * line[:, 0])
    assert "B = −240 Å²" in words_of(pages_of_case("usual")[:1])


def test_without_a_claim_the_small_plots_say_why_they_are_empty() -> None:
    words = words_of(pages_of_case("no resolution claimed")[:1])
    assert "The map is not sharpened, because no resolution is claimed for it." in words
    assert "There is no local resolution, because none is claimed at all." in words
    for title in ("Local resolution", "Guinier"):
        assert not axes_of(pages_of_case("no resolution claimed")[FRONT], title).lines
    # a B-factor that was given is drawn though no line could be fitted
    plot = synthetic_viewing(np.zeros((2, 2, 2), np.float32)).sharpening.plot
    none = dataclasses.replace(plot, is_fitted=np.zeros_like(plot.is_fitted), slope=np.nan, intercept=np.nan)
    draw_guinier(axes := Figure().add_subplot(), none, -50.0, "")
    assert "B = −50 Å²" in axes.texts[0].get_text()


def test_controls_show_their_own_numbers() -> None:
    page, curve = pages_of_case("usual")[CONTROLS], synthetic_curve()
    both = axes_of(page, "both maps")
    np.testing.assert_allclose(line_labelled(both, "model-free")[:, 1], curve.band_model_free_correlation)
    np.testing.assert_allclose(line_labelled(both, "Gaussians")[:, 1], curve.c_full[:4])
    errors = axes_of(page, "Error bar")
    np.testing.assert_allclose(line_labelled(errors, "from theory")[:, 1], curve.c_full_standard_error)
    np.testing.assert_allclose(line_labelled(errors, "from the quarter")[:, 1], curve.c_full_resampled_error)
    mask = axes_of(page, "random phases")
    np.testing.assert_allclose(line_labelled(mask, "phases random")[:, 1], [0.02, -0.03])
    bars = next(c for c in mask.containers if isinstance(c, ErrorbarContainer)).lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars], [0.04, 0.1])
    fscs = axes_of(page, "PostProcess")
    for name, values in (
        ("no mask", curve.postprocess.unmasked),
        ("masked", curve.postprocess.masked),
        ("phases random", curve.postprocess.randomised),
        ("corrected", curve.postprocess.corrected),
    ):
        np.testing.assert_allclose(line_labelled(fscs, name)[:, 1], values)


def test_the_noise_control_is_drawn_where_there_is_one() -> None:
    pages = pages_of_case("noise control")
    control = CASES["noise control"]().noise_control
    assert control is not None
    axes = axes_of(pages[CONTROLS], "Noise control: C_full")
    np.testing.assert_allclose(line_labelled(axes, "phases random")[:, 1], control.c_full[:4])
    np.testing.assert_allclose(line_labelled(axes, "the data")[:, 1], synthetic_curve().c_full)
    fscs = axes_of(pages[CONTROLS], "Noise control: half-map")
    np.testing.assert_allclose(line_labelled(fscs, "Gaussians")[:, 1], control.plain_half_map_fsc)
    np.testing.assert_allclose(line_labelled(fscs, "model-free")[:, 1], control.model_free_fsc)
    np.testing.assert_allclose(line_labelled(fscs, "FSC true")[:, 1], control.true_half_map_fsc)
    for drawn in (axes, fscs):
        assert any(list(line.get_xdata()) == [1 / 8.0] * 2 for line in drawn.lines), "where phases are random"
    assert control.statement in words_of([pages[CONTROLS]])
    assert control.statement in words_of(pages[TEXT:])
    assert "not run (--noise_control)" in words_of(pages_of_case("usual")[TEXT:])


def test_the_number_of_gaussians_is_drawn_over_the_steps() -> None:
    counts = line_labelled(axes_of(pages_of_case("usual")[FIT], "Number of Gaussians"), "half 1")
    assert counts[0, 1] == 250
    assert counts[-1, 1] == 500


def test_the_particles_that_fit_worst_are_named_worst_first() -> None:
    reconstruction = synthetic_reconstruction()
    first, second = reconstruction.halves
    bad = first.particles.normalised_residual.copy()
    bad[[3, 7]] = 5.0, 9.0
    bad[1] = np.nan
    particles = dataclasses.replace(first.particles, normalised_residual=bad)
    halves = (dataclasses.replace(first, particles=particles), second)
    rows = worst_particles(dataclasses.replace(reconstruction, halves=halves), 4)
    names = reconstruction.particle_list.names
    assert [(row[0], row[2], row[3]) for row in rows[:2]] == [(9.0, 1, names[14]), (5.0, 1, names[6])]
    assert rows[0][1] == first.particles.scale[7]
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)
    words = words_of([pages_of(dataclasses.replace(reconstruction, halves=halves))[PARTICLES]])
    assert f"9.000 5.000 {rows[2][0]:.3f}" in words
    assert words.index(names[14]) < words.index(names[6])


def test_residuals_are_sorted_into_their_optics_groups() -> None:
    reconstruction = synthetic_reconstruction()
    by_half = residuals_by_optics_group(reconstruction)
    of_group = reconstruction.particle_list.optics_group
    assert sum(len(values) for groups in by_half for values in groups) == N_PARTICLES
    first = reconstruction.halves[0].particles
    np.testing.assert_array_equal(by_half[0][1], first.normalised_residual[of_group[first.indices] == 1])
    axes = axes_of(pages_of_case("usual")[PARTICLES], "of a particle")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["opticsGroup1", "opticsGroup2"]
    medians = sorted(line.get_ydata()[0] for line in axes.lines if np.ptp(line.get_ydata()) == 0)
    for values in (values for groups in by_half for values in groups):
        assert np.isclose(medians, np.median(values)).any()


def test_each_group_and_band_has_its_shade() -> None:
    first = synthetic_reconstruction().halves[0].particles
    axes = axes_of(pages_of_case("usual")[PARTICLES], "by group")
    np.testing.assert_allclose(axes.images[0].get_array(), first.group_residual.T)
    assert axes.images[0].get_clim() == pytest.approx((0.7, 1.3)), "grey is 1"
    assert "white: 0.70, black: 1.30" in axes.get_xlabel()


def test_rotations_of_scipy_agree_that_rot_turns_about_z() -> None:
    (east,) = view_directions(np.array([[90.0, 90.0]]), ONE)
    np.testing.assert_allclose(Rotation.from_euler("z", 90, degrees=True).apply([1, 0, 0]), east, atol=1e-12)
