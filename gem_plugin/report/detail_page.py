"""How the fit went and what the Gaussians look like."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gem_plugin.reconstruction import Reconstruction
from gem_plugin.report.panels import each_half, finish, page_of_panels

N_BINS = 40


def detail_page(reconstruction: Reconstruction) -> Figure:
    """Return the page with its plots."""
    return page_of_panels("How the fit went", PANELS, reconstruction)


def _draw_loss(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Loss of the fit")
    for half, style in each_half(reconstruction):
        axes.plot(half.history.step, half.history.loss, **style)
    axes.set(xlabel="optimiser step (count)", ylabel="−log likelihood\na particle (nats)")
    finish(axes, any(np.isfinite(half.history.loss).any() for half in reconstruction.halves), "no step was recorded")


def _draw_held_out(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Score on held-out particles of the same half")
    anything = False
    for half, style in each_half(reconstruction):
        there = np.isfinite(half.history.held_out_score)
        anything |= bool(there.any())
        axes.plot(half.history.step[there], half.history.held_out_score[there], marker="o", markersize=2.5, **style)
    axes.set(xlabel="optimiser step (count)", ylabel="held-out score\n(no unit)")
    finish(axes, anything, "not evaluated")


def _draw_boxes(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Box of the fit, coarse to fine")
    for half, style in each_half(reconstruction):
        axes.step(half.history.step, half.history.box_size_px, where="post", **style)
    axes.set(xlabel="optimiser step (count)", ylabel="box size (px)")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    finish(axes, any(len(half.history.step) for half in reconstruction.halves), "no step was recorded")


def _draw_counts(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Number of Gaussians")
    for half, style in each_half(reconstruction):
        axes.step(half.history.step, half.history.n_gaussians, where="post", **style)
    axes.set(xlabel="optimiser step (count)", ylabel="Gaussians of a half\n(count)")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    finish(axes, any(len(half.history.step) for half in reconstruction.halves), "no step was recorded")


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


def _draw_histograms(
    axes: Axes, reconstruction: Reconstruction, values: list[NDArray[np.float64]], counted: str
) -> None:
    """Draw both halves' distributions over common bins; a far tail is left out and said."""
    pooled = np.concatenate([v[np.isfinite(v)] for v in values])
    axes.set_ylabel(f"{counted} a bin (count)")
    if not len(pooled):
        finish(axes, False, "no Gaussians")
        return
    low, high = float(pooled.min()), float(np.percentile(pooled, 99.8))
    if high - low <= 1e-6 * abs(high):  # all alike: a histogram of rounding errors tells nothing
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    for (_, style), of_half in zip(each_half(reconstruction), values, strict=True):
        counts, _ = np.histogram(of_half[np.isfinite(of_half)], bins=edges)
        style["label"] = f"{style['label']}: {len(of_half):,}"
        axes.stairs(counts, edges, **style)
    axes.set_ylim(bottom=0)
    finish(axes, True, "")


PANELS = (
    _draw_loss,
    _draw_held_out,
    _draw_boxes,
    _draw_counts,
    _draw_widths,
    _draw_anisotropy,
    _draw_amplitudes,
)
