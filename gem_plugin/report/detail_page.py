"""Page two: how the fit went and what the Gaussians look like."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from gem_plugin.reconstruction import HalfResult, Reconstruction
from gem_plugin.report.curves import frequency_of
from gem_plugin.report.layout import (
    HALF_STYLES,
    MARGIN_IN,
    PAGE_HEIGHT_IN,
    TITLE_PT,
    Line,
    LineStyle,
    add_axes,
    add_lines,
    new_page,
    say,
)

N_COLUMNS, PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 2, 2.85, 1.15
COLUMN_STEP_IN, ROW_STEP_IN = 3.65, 1.92
FIRST_LEFT_IN, FIRST_TOP_IN = MARGIN_IN + 0.55, PAGE_HEIGHT_IN - 1.25
LOWEST_PANEL_IN = FIRST_TOP_IN - 3 * ROW_STEP_IN - PANEL_HEIGHT_IN
N_BINS = 40

Panel = Callable[[Axes, Reconstruction], None]


def detail_page(reconstruction: Reconstruction) -> Figure:
    """Return page two with its plots; the room below them is free for running text."""
    page = new_page()
    add_lines(page, MARGIN_IN, PAGE_HEIGHT_IN - MARGIN_IN + 0.1, [Line("How the fit went", bold=True)], TITLE_PT - 3)
    for number, panel in enumerate(PANELS):
        row, column = divmod(number, N_COLUMNS)
        axes = add_axes(
            page,
            FIRST_LEFT_IN + column * COLUMN_STEP_IN,
            FIRST_TOP_IN - row * ROW_STEP_IN - PANEL_HEIGHT_IN,
            PANEL_WIDTH_IN,
            PANEL_HEIGHT_IN,
        )
        panel(axes, reconstruction)
    return page


def _each_half(reconstruction: Reconstruction) -> list[tuple[HalfResult, LineStyle]]:
    return [
        (half, {**style, "label": f"half {half.half_set}"})
        for half, style in zip(reconstruction.halves, HALF_STYLES, strict=True)
    ]


def _draw_loss(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Loss of the fit")
    for half, style in _each_half(reconstruction):
        axes.plot(half.history.step, half.history.loss, **style)
    axes.set(xlabel="optimiser step (count)", ylabel="−log likelihood\na particle (nats)")
    _finish(axes, any(np.isfinite(half.history.loss).any() for half in reconstruction.halves), "no step was recorded")


def _draw_held_out(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Score on held-out particles of the same half")
    anything = False
    for half, style in _each_half(reconstruction):
        there = np.isfinite(half.history.held_out_score)
        anything |= bool(there.any())
        axes.plot(half.history.step[there], half.history.held_out_score[there], marker="o", markersize=2.5, **style)
    axes.set(xlabel="optimiser step (count)", ylabel="held-out score\n(no unit)")
    _finish(axes, anything, "not evaluated")


def _draw_boxes(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Box of the fit, coarse to fine")
    for half, style in _each_half(reconstruction):
        axes.step(half.history.step, half.history.box_size_px, where="post", **style)
    axes.set(xlabel="optimiser step (count)", ylabel="box size (px)")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish(axes, any(len(half.history.step) for half in reconstruction.halves), "no step was recorded")


def _draw_noise(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Noise of the images, assumed and found")
    nyquist = 0.5 / reconstruction.pixel_size_in_angstroms
    anything = False
    for half, style in _each_half(reconstruction):
        frequency = np.linspace(0, nyquist, len(half.noise_power))
        there = np.isfinite(half.noise_power) & (half.noise_power > 0)
        anything |= bool(there.any())
        axes.plot(frequency[there], half.noise_power[there], **style)
        left = half.noise_power * half.particles.shell_residual
        found = np.isfinite(left) & (left > 0)
        label = "residual of the fit" if half is reconstruction.halves[0] else None
        axes.plot(frequency[found], left[found], color="0.6", linewidth=0.7, zorder=1, label=label)
    if anything:
        axes.set_yscale("log")
        for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlim=(0, nyquist), xlabel="spatial frequency (1/Å)", ylabel="variance a coefficient\n(greyscale²)")
    _finish(axes, anything, "no noise spectrum")


def _draw_widths(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Widths of the Gaussians, three each")
    pixel = reconstruction.pixel_size_in_angstroms
    values = [np.exp(half.gaussians.log_scales.astype(np.float64)).ravel() * pixel for half in reconstruction.halves]
    _draw_histograms(axes, reconstruction, values, "widths")
    axes.set(xlabel="standard deviation along a principal axis (Å)")


def _draw_anisotropy(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Anisotropy of the Gaussians")
    scales = [half.gaussians.log_scales.astype(np.float64) for half in reconstruction.halves]
    values = [np.exp(np.ptp(s, axis=1)) if len(s) else np.empty(0) for s in scales]
    _draw_histograms(axes, reconstruction, values, "Gaussians")
    axes.set(xlabel="largest over smallest width (ratio, no unit)")


def _draw_amplitudes(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Amplitudes of the Gaussians")
    values = [half.gaussians.amplitudes.astype(np.float64) for half in reconstruction.halves]
    _draw_histograms(axes, reconstruction, values, "Gaussians")
    axes.set(xlabel="amplitude: integral of a Gaussian (greyscale × voxels)")


def _draw_filter(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Filter of the combined map")
    nyquist = 0.5 / reconstruction.pixel_size_in_angstroms
    curve = reconstruction.curve
    axes.plot(frequency_of(curve.shell_resolution_in_angstroms), curve.filter_weight, color="black")
    axes.set(xlim=(0, nyquist), ylim=(-0.03, 1.08), xlabel="spatial frequency (1/Å)", ylabel="weight (no unit)")
    axes.spines["right"].set_visible(False)
    if not np.isfinite(curve.filter_weight).any():
        say(axes, "no filter")


def _draw_histograms(
    axes: Axes, reconstruction: Reconstruction, values: list[NDArray[np.float64]], counted: str
) -> None:
    """Draw both halves' distributions over common bins; a far tail is left out and said."""
    pooled = np.concatenate([v[np.isfinite(v)] for v in values])
    axes.set_ylabel(f"{counted} a bin (count)")
    if not len(pooled):
        _finish(axes, False, "no Gaussians")
        return
    low, high = float(pooled.min()), float(np.percentile(pooled, 99.8))
    if high - low <= 1e-6 * abs(high):  # all alike: a histogram of rounding errors tells nothing
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    for (_, style), of_half in zip(_each_half(reconstruction), values, strict=True):
        counts, _ = np.histogram(of_half[np.isfinite(of_half)], bins=edges)
        style["label"] = f"{style['label']}: {len(of_half):,}"
        axes.stairs(counts, edges, **style)
    axes.set_ylim(bottom=0)
    _finish(axes, True, "")


def _finish(axes: Axes, anything: bool, why_empty: str) -> None:
    if anything:
        axes.legend(loc="best", handlelength=3.0)
    else:
        axes.set(xticks=[], yticks=[])
        say(axes, why_empty)


PANELS: tuple[Panel, ...] = (
    _draw_loss,
    _draw_held_out,
    _draw_boxes,
    _draw_noise,
    _draw_widths,
    _draw_anisotropy,
    _draw_amplitudes,
    _draw_filter,
)
