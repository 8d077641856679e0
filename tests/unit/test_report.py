"""The report says what it should, each thing under its own name, and no more than it may."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from numpy.typing import NDArray

from gem_plugin.fsc import Shells
from tests.unit.pages import FIT, PARTICLES, TITLE, axes_of, line_labelled, pages_of, pages_of_case, words_of
from tests.unit.synthetic import (
    BOX,
    PIXEL,
    STATEMENT,
    synthetic_curve,
    synthetic_reconstruction,
    unclaimed,
)

# A number followed by an Angstrom sign, as a resolution would be printed.
LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(?:Å(?!²)|A\b|Angstrom)")


def test_page_one_carries_the_statement_and_the_false_curve_its_name() -> None:
    usual_pages = pages_of_case("usual")
    first = words_of(usual_pages[:1])
    assert STATEMENT in first
    assert TITLE in first
    assert "false: shared bias, do not quote" in first
    assert "1,001 + 1,002" in first
    assert "500 + 500" in first


@pytest.mark.parametrize("claimed", [True, False])
def test_no_resolution_but_the_stated_one_is_printed(claimed: bool) -> None:
    # Whoever reads the other curves off at their thresholds would find numbers; none of them may be in print.
    reconstruction = synthetic_reconstruction() if claimed else unclaimed(synthetic_reconstruction())
    words = words_of(pages_of_case("usual" if claimed else "no resolution claimed"))
    assert reconstruction.curve.statement in words
    lengths = LENGTH.findall(words.replace(reconstruction.curve.statement, ""))
    assert sorted(lengths) == [f"{PIXEL:g}", "10"], "only the pixel size and the scale bar"
    assert ("4.37" in words) == claimed


def test_a_curve_that_does_not_cross_is_not_marked_where_it_ends() -> None:
    page = pages_of_case("not crossed before Nyquist")[0]
    assert "not crossed before the data end" in words_of([page])
    _, labels = axes_of(page, "correlation").get_legend_handles_labels()
    assert "the resolution stated above" not in labels
    crossed = pages_of_case("usual")[0]
    assert line_labelled(axes_of(crossed, "correlation"), "the resolution")[:, 0] == pytest.approx([1 / 4.37] * 2)
    assert "not crossed" not in words_of([crossed])


def test_the_residual_stands_beside_the_noise_that_was_assumed() -> None:
    half = synthetic_reconstruction().halves[0]
    axes = axes_of(pages_of_case("usual")[PARTICLES], "variance")
    drawn = line_labelled(axes, "residual of the fit")[:, 1]
    assert drawn == pytest.approx(half.noise_power * half.particles.shell_residual)
    assert line_labelled(axes, "half 1")[:, 1] == pytest.approx(half.noise_power)


def test_each_curve_bears_its_own_label() -> None:
    usual_pages = pages_of_case("usual")
    axes, curve = axes_of(usual_pages[0], "correlation"), synthetic_curve()
    shells = np.arange(BOX // 2 + 1) / (BOX * PIXEL)
    bands = (curve.first_shell + 1) / (BOX * PIXEL)
    honest = line_labelled(axes, "C_full ±")
    np.testing.assert_allclose(honest, np.stack([bands, curve.c_full], axis=1)[:4])
    np.testing.assert_allclose(line_labelled(axes, "half-map FSC of the Gaussians")[:, 1], curve.plain_half_map_fsc)
    np.testing.assert_allclose(
        line_labelled(axes, "half-map FSC, model-free"), np.stack([shells, curve.model_free_fsc], axis=1)
    )
    assert axes.get_xlim() == pytest.approx((0, 0.5 / PIXEL))
    error_bars = next(c for c in axes.containers if isinstance(c, ErrorbarContainer)).lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(s[:, 1]) for s in error_bars], 2 * curve.c_full_standard_error[:4])


def test_the_resolution_axis_agrees_with_the_frequency_axis() -> None:
    usual_pages = pages_of_case("usual")
    axes = axes_of(usual_pages[0], "correlation")
    top = next(a for a in axes.child_axes if "resolution" in a.get_xlabel())
    assert len(top.get_xticks()) > 4
    for frequency, label in zip(top.get_xticks(), top.get_xticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(1 / frequency, rel=1e-6)


def sorted_by_column(shown: list[Axes]) -> list[NDArray[np.float32]]:
    """Pictures from left to right, of each column the upper first."""
    places = {axes: axes.get_position() for axes in shown}
    in_order = sorted(shown, key=lambda axes: (round(places[axes].x0, 3), -places[axes].y0))
    return [np.asarray(axes.images[0].get_array()) for axes in in_order]


def test_pictures_show_the_central_slices_and_projections_of_both_maps() -> None:
    usual_pages = pages_of_case("usual")
    reconstruction = synthetic_reconstruction()
    first, second = reconstruction.halves
    weight = reconstruction.curve.filter_weight
    mean = (first.model_free_map + second.model_free_map) / np.float32(2)
    model_free = Shells(BOX).filter(mean, weight)
    shown_axes = [axes for axes in usual_pages[0].axes if axes.images and not axes.axison]
    assert len(shown_axes) == 12
    volumes = (reconstruction.combined_map, model_free)
    expected = [np.take(v, BOX // 2, axis=axis) for axis in (0, 1, 2) for v in volumes]
    expected += [v.sum(axis=axis) for axis in (0, 1, 2) for v in volumes]
    shown = sorted_by_column(shown_axes)
    for picture, whole in zip(shown, expected, strict=True):
        n = len(picture)
        assert n > 0.8 * BOX, "the mask and some solvent around it"
        begin = max(0, BOX // 2 - n // 2)
        np.testing.assert_allclose(picture, whole[begin : begin + n, begin : begin + n], atol=1e-5)


def test_widths_are_in_angstroms() -> None:
    reconstruction = synthetic_reconstruction()
    gaussians = reconstruction.halves[0].gaussians
    two_pixels = dataclasses.replace(gaussians, log_scales=np.full_like(gaussians.log_scales, np.log(2)))
    halves = tuple(dataclasses.replace(half, gaussians=two_pixels) for half in reconstruction.halves)
    page = pages_of(dataclasses.replace(reconstruction, halves=halves))[FIT]
    counts, edges, _ = axes_of(page, "Widths").patches[0].get_data()
    (filled,) = np.flatnonzero(counts)
    assert counts[filled] == 3 * len(two_pixels)
    assert edges[filled] - 1e-6 <= 2 * PIXEL <= edges[filled + 1]
