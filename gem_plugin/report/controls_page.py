"""How far the curve can be trusted: its error bars, what the mask adds, and the curves that others would draw."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gem_plugin.reconstruction import Curve, Reconstruction, ResolutionCurve
from gem_plugin.report.curves import HONEST, MODEL_FREE, frequency_of
from gem_plugin.report.layout import GREY, LineStyle, say
from gem_plugin.report.panels import finish, page_of_panels

SECOND: LineStyle = {"color": "#c8501e", "linestyle": (0, (4, 2)), "linewidth": 1.2, "marker": "s", "markersize": 3.0}


def controls_page(reconstruction: Reconstruction) -> Figure:
    """Return the page with its plots."""
    return page_of_panels("The curve and its controls", PANELS, reconstruction)


def _frequency_axis(axes: Axes, reconstruction: Reconstruction, ylabel: str) -> None:
    nyquist = 0.5 / reconstruction.pixel_size_in_angstroms
    axes.set(xlim=(0, nyquist), xlabel="spatial frequency (1/Å)", ylabel=ylabel)


def _draw_beside_model_free(axes: Axes, reconstruction: Reconstruction) -> None:
    """The same quantity for both maps: what the Gaussians gained."""
    axes.set_title("Correlation with the truth, both maps")
    curve, band = reconstruction.curve, _bands(reconstruction.curve)
    error = np.nan_to_num(curve.c_full_standard_error, nan=0.0, posinf=0.0).clip(min=0.0)
    there = np.isfinite(curve.c_full)
    axes.errorbar(
        band[there],
        curve.c_full[there],
        yerr=error[there],
        capsize=2,
        elinewidth=0.8,
        label="Gaussians: C_full",
        **HONEST,
    )
    style = {**MODEL_FREE, "marker": "^", "markersize": 3.0}
    axes.plot(band, curve.band_model_free_correlation, label="model-free: √(2f / (1 + f))", **style)
    axes.axhline(0.5, color=GREY, linewidth=0.6, zorder=1)
    _frequency_axis(axes, reconstruction, "correlation\n(no unit)")
    axes.set_ylim(-0.1, 1.08)
    finish(axes, bool(there.any()), "no band can be measured")


def _draw_errors(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Error bar of C_full, found in two ways")
    curve, band = reconstruction.curve, _bands(reconstruction.curve)
    axes.plot(band, curve.c_full_standard_error, label="from theory", **HONEST)
    axes.plot(band, curve.c_full_resampled_error, label="from the quarter sets", **SECOND)
    _frequency_axis(axes, reconstruction, "standard error\n(no unit)")
    axes.set_ylim(bottom=0)
    finish(axes, bool(np.isfinite(curve.c_full_standard_error).any()), "no band can be measured")


def _draw_mask_control(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("C_full with random phases: what the mask adds")
    curve, band = reconstruction.curve, _bands(reconstruction.curve)
    there = np.isfinite(curve.c_full_randomised)
    error = np.nan_to_num(curve.c_full_randomised_error, nan=0.0, posinf=0.0).clip(min=0.0)
    axes.errorbar(
        band[there],
        curve.c_full_randomised[there],
        yerr=error[there],
        capsize=2,
        elinewidth=0.8,
        label="phases random",
        **SECOND,
    )
    axes.axhline(0.0, color=GREY, linewidth=0.6, zorder=1)
    _frequency_axis(axes, reconstruction, "correlation\n(no unit)")
    if there.any():
        reach = max(0.2, 1.3 * float((np.abs(curve.c_full_randomised[there]) + error[there]).max()))
        axes.set_ylim(-reach, reach)
    finish(axes, bool(there.any()), "phases were randomised in no band")


def _draw_postprocess(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Model-free half-map FSCs, as in PostProcess")
    curve = reconstruction.curve
    frequency, found = frequency_of(curve.shell_resolution_in_angstroms), curve.postprocess
    axes.plot(frequency, found.unmasked, label="no mask", color="0.55", linestyle=(0, (1, 1.5)))
    axes.plot(frequency, found.masked, label="masked", color="#1f5fa8", linestyle=(0, (5, 2)))
    axes.plot(frequency, found.randomised, label="phases random", color="#c8501e", linestyle=(0, (5, 1, 1, 1)))
    axes.plot(frequency, found.corrected, label="corrected", color="black")
    axes.axhline(0.143, color=GREY, linewidth=0.6, zorder=1)
    _frequency_axis(axes, reconstruction, "half-map FSC\n(no unit)")
    axes.set_ylim(-0.6, 1.08)  # with room for the legend below
    finish(axes, bool(np.isfinite(found.unmasked).any()), "no curves", loc="lower left", ncols=2)


def _draw_filter(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Filter of the combined map")
    curve = reconstruction.curve
    axes.plot(frequency_of(curve.shell_resolution_in_angstroms), curve.filter_weight, color="black")
    _frequency_axis(axes, reconstruction, "weight (no unit)")
    axes.set_ylim(-0.03, 1.08)
    if not np.isfinite(curve.filter_weight).any():
        say(axes, "no filter")


def _bands(curve: ResolutionCurve) -> Curve:
    return frequency_of(curve.band_resolution_in_angstroms)


PANELS = (_draw_beside_model_free, _draw_errors, _draw_mask_control, _draw_postprocess, _draw_filter)
