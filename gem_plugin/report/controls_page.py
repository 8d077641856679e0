"""How far the curve can be trusted: its error bars, what the mask adds, and the curves that others would draw."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gem_plugin.reconstruction import Curve, NoiseControl, Reconstruction, ResolutionCurve
from gem_plugin.report.curves import HONEST, MODEL_FREE, frequency_of
from gem_plugin.report.layout import GREY, MARGIN_IN, PAGE_WIDTH_IN, SMALL_PT, Line, LineStyle, add_lines, say, wrap
from gem_plugin.report.panels import finish, free_below_in, page_of_panels

SECOND: LineStyle = {"color": "#c8501e", "linestyle": (0, (4, 2)), "linewidth": 1.2, "marker": "s", "markersize": 3.0}


READ_AS = (
    "C_full beside the model-free map's own correlation with the truth, from f, the half-map FSC of the model-free"
    " maps: the distance between the two curves is what the Gaussians gained.",
    "The two error bars come from different assumptions: theory from the noise, the quarter sets from what was seen."
    " Where they differ, believe the larger.",
    "With random phases no band holds signal. What correlation is left comes from the mask: it should be 0 within"
    " its error.",
    "The model-free half-map FSCs are those that RELION's PostProcess computes of the same maps and mask.",
)
READ_NOISE_CONTROL_AS = (
    "Noise control: the same fit to the same images with random phases beyond the dotted line. There C_full should be"
    " 0 within its error; how far the half-map FSC of the Gaussians is above 0 shows how far it lies.",
)


def controls_page(reconstruction: Reconstruction) -> Figure:
    """Return the page with its plots, and below them how they are read."""
    control = reconstruction.noise_control
    panels = PANELS if control is None else PANELS + NOISE_CONTROL_PANELS
    page = page_of_panels("The curve and its controls", panels, reconstruction)
    words = READ_AS if control is None else (*READ_AS, *READ_NOISE_CONTROL_AS, control.statement)
    width_in = PAGE_WIDTH_IN - 2 * MARGIN_IN
    lines = [Line(text) for entry in words for text in wrap(entry, width_in, SMALL_PT, indent="    ")]
    add_lines(page, MARGIN_IN, free_below_in(len(panels)), lines, SMALL_PT)
    return page


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


def _draw_noise_control(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Noise control: C_full")
    control = reconstruction.noise_control
    assert control is not None  # or the panel is not drawn
    band, there = frequency_of(control.band_resolution_in_angstroms), np.isfinite(control.c_full)
    error = np.nan_to_num(control.c_full_error, nan=0.0, posinf=0.0).clip(min=0.0)
    axes.errorbar(
        band[there],
        control.c_full[there],
        yerr=error[there],
        capsize=2,
        elinewidth=0.8,
        label="phases random",
        **SECOND,
    )
    axes.plot(_bands(reconstruction.curve), reconstruction.curve.c_full, label="the data", **HONEST)
    _draw_where_phases_are_random(axes, control)
    _frequency_axis(axes, reconstruction, "correlation\n(no unit)")
    axes.set_ylim(min(-0.2, 1.2 * float((control.c_full[there] - error[there]).min(initial=0.0))), 1.08)
    finish(axes, bool(there.any()), "no band can be measured")


def _draw_noise_control_fsc(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Noise control: half-map FSCs")
    control = reconstruction.noise_control
    assert control is not None  # or the panel is not drawn
    frequency = frequency_of(control.shell_resolution_in_angstroms)
    axes.plot(frequency, control.plain_half_map_fsc, label="Gaussians", color="#c8501e", linestyle=(0, (5, 1, 1, 1)))
    axes.plot(frequency, control.model_free_fsc, label="model-free", color="#1f5fa8", linestyle=(0, (5, 2)))
    axes.plot(frequency, control.true_half_map_fsc, label="FSC true of the data", color="black")
    _draw_where_phases_are_random(axes, control)
    _frequency_axis(axes, reconstruction, "half-map FSC\n(no unit)")
    axes.set_ylim(-0.8, 1.08)  # with room for the legend below
    finish(axes, bool(np.isfinite(control.plain_half_map_fsc).any()), "no curves", loc="lower left", ncols=2)


def _draw_where_phases_are_random(axes: Axes, control: NoiseControl) -> None:
    axes.axhline(0.0, color=GREY, linewidth=0.6, zorder=1)
    begin = 1.0 / control.beyond_in_angstroms
    axes.plot([begin, begin], [-0.1, 1.08], color="black", linewidth=0.9, linestyle=(0, (1, 2)))  # clear of the legend


def _bands(curve: ResolutionCurve) -> Curve:
    return frequency_of(curve.band_resolution_in_angstroms)


PANELS = (_draw_beside_model_free, _draw_errors, _draw_mask_control, _draw_postprocess, _draw_filter)
NOISE_CONTROL_PANELS = (_draw_noise_control, _draw_noise_control_fsc)
