"""The Fourier shell correlations, each labelled for what it is."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.report.layout import GREY, SMALL_PT, LineStyle

HONEST: LineStyle = {"color": "black", "linestyle": "-", "linewidth": 2.2, "marker": "o", "markersize": 3.5}
MODEL_FREE: LineStyle = {"color": "#1f5fa8", "linestyle": (0, (5, 2)), "linewidth": 1.2}
FALSE: LineStyle = {"color": "0.55", "linestyle": (0, (1, 1.5)), "linewidth": 1.2}
HONEST_LABELS = ("C_full ±", "C_full:")  # how the labels of the honest curve begin
ROUND_RESOLUTIONS = (
    200,
    100,
    50,
    30,
    20,
    15,
    12,
    10,
    8,
    7,
    6,
    5,
    4.5,
    4,
    3.5,
    3,
    2.7,
    2.4,
    2.2,
    2,
    1.8,
    1.6,
    1.4,
    1.2,
    1,
)


def draw_correlations(axes: Axes, curve: ResolutionCurve, nyquist_per_angstrom: float) -> None:
    """Draw the cross-validated curve with its error bars, and for comparison both half-map FSCs.

    Parameters
    ----------
    axes
        Empty axes.
    curve
        The curves; bands and shells that are nan are left out.
    nyquist_per_angstrom
        Where the frequency axis ends.
    """
    frequency = frequency_of(curve.shell_resolution_in_angstroms)
    axes.plot(
        frequency,
        curve.plain_half_map_fsc,
        label="half-map FSC of the Gaussians:\nfalse: shared bias, do not quote",
        **FALSE,
    )
    axes.plot(frequency, curve.model_free_fsc, label="half-map FSC, model-free maps,\nsame mask", **MODEL_FREE)
    _draw_honest(axes, curve)
    not_crossed = ": not crossed before the data end" if curve.is_claimed and not curve.crosses_before_nyquist else ""
    _draw_threshold(axes, 0.5, f"0.5, for C_full{not_crossed}", "-")
    _draw_threshold(axes, 0.143, "0.143, for half-map FSC", (0, (5, 2)))
    _shade_unmeasurable(axes, curve, nyquist_per_angstrom)
    _mark_resolution(axes, curve)
    axes.set(xlim=(0, nyquist_per_angstrom), ylim=(-0.12, 1.05))
    axes.set(xlabel="spatial frequency (1/Å), to Nyquist", ylabel="correlation (no unit)")
    add_resolution_axis(axes, nyquist_per_angstrom)


def frequency_of(resolution_in_angstroms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / resolution in 1/A: 0 for an infinite resolution, nan for one that makes no sense."""
    resolution = np.asarray(resolution_in_angstroms, dtype=np.float64)
    frequency = np.full(resolution.shape, np.nan)
    np.divide(1.0, resolution, out=frequency, where=resolution > 0)
    return frequency


def add_resolution_axis(axes: Axes, nyquist_per_angstrom: float) -> None:
    """Label the same axis in Angstrom along the top, at round resolutions that leave room for their numbers."""
    kept: list[float] = []
    for resolution in ROUND_RESOLUTIONS:
        place = 1.0 / resolution / nyquist_per_angstrom
        if place <= 1.0 and place - (kept[-1] if kept else 0.0) > 0.075:
            kept.append(place)
    top = axes.secondary_xaxis("top")
    top.set_xticks([p * nyquist_per_angstrom for p in kept], [f"{1 / (p * nyquist_per_angstrom):g}" for p in kept])
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("resolution (Å)")
    top.tick_params(labelsize=SMALL_PT)


def _draw_honest(axes: Axes, curve: ResolutionCurve) -> None:
    there = np.isfinite(curve.c_full)
    if not there.any():
        axes.plot([], [], label="C_full: no band is measurable", **HONEST)
        return
    error = np.nan_to_num(curve.c_full_standard_error[there], nan=0.0, posinf=0.0).clip(min=0.0)
    axes.errorbar(
        frequency_of(curve.band_resolution_in_angstroms)[there],
        curve.c_full[there],
        yerr=error,
        capsize=2.5,
        elinewidth=1.0,
        zorder=3,
        label="C_full ± 1 standard error:\ncombined map against the truth,\ncross-validated, in bands",
        **HONEST,
    )


def _draw_threshold(axes: Axes, level: float, label: str, linestyle: Any) -> None:
    axes.axhline(level, color=GREY, linewidth=0.6, linestyle=linestyle, zorder=1)
    axes.text(
        0.01, level + 0.012, label, transform=axes.get_yaxis_transform(), fontsize=SMALL_PT, color=GREY, va="bottom"
    )


def _shade_unmeasurable(axes: Axes, curve: ResolutionCurve, nyquist_per_angstrom: float) -> None:
    """Shade everything from the first band on that the data cannot measure."""
    failing = np.flatnonzero(~curve.is_measurable)
    if not len(failing):
        return
    first_shell = int(curve.first_shell[failing[0]])
    edges = frequency_of(curve.shell_resolution_in_angstroms)
    begin = float(edges[min(first_shell, len(edges) - 1)])
    if np.isfinite(begin) and begin < nyquist_per_angstrom:
        axes.axvspan(begin, nyquist_per_angstrom, color="0.92", zorder=0, label="C_full not measurable here")


def _mark_resolution(axes: Axes, curve: ResolutionCurve) -> None:
    if curve.resolution_in_angstroms is not None:
        place = 1.0 / curve.resolution_in_angstroms
        axes.axvline(
            place, color="black", linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), label="the resolution stated above"
        )
