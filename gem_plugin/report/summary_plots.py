"""The small plots of page one: local resolution and the Guinier plot."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from gem_plugin.reconstruction import GuinierPlot
from gem_plugin.report.layout import SECOND_LINE_PT, SMALL_PT, add_second_line, say, wrap

Floats = NDArray[np.float64]

N_BINS = 24
ROOM_LEFT = 0.95  # of the width, for words in an empty plot


def draw_local_resolution(
    axes: Axes, resolutions_in_angstroms: Floats, stated_in_angstroms: float | None, why_empty: str
) -> None:
    """Draw how much of the mask has which local resolution.

    Parameters
    ----------
    resolutions_in_angstroms : [m] of the voxels under the mask that have one
    stated_in_angstroms : the global resolution, or None where no number is stated
    why_empty : what is said where there is no local resolution
    """
    axes.set_title("Local resolution", pad=SECOND_LINE_PT)
    axes.set(xlabel="local resolution (Å)", ylabel="share of the mask (%)")
    if not len(resolutions_in_angstroms):
        say_why(axes, why_empty)
        return
    low, high = np.percentile(resolutions_in_angstroms, [0.5, 99.0])
    if stated_in_angstroms is not None:
        low, high = min(low, stated_in_angstroms), max(high, stated_in_angstroms)
    if high - low <= 0.02 * high:  # all alike
        low, high = 0.95 * low, 1.05 * high
    edges = np.linspace(low, high, N_BINS + 1)
    counts, _ = np.histogram(np.clip(resolutions_in_angstroms, low, high), bins=edges)
    axes.stairs(100.0 * counts / len(resolutions_in_angstroms), edges, fill=True, color="0.75")
    axes.stairs(100.0 * counts / len(resolutions_in_angstroms), edges, color="black", linewidth=0.8)
    median = float(np.median(resolutions_in_angstroms))
    axes.axvline(median, color="black", linewidth=1.0, linestyle=(0, (4, 2)), label="median")
    if stated_in_angstroms is not None:
        axes.axvline(stated_in_angstroms, color="black", linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), label="stated")
    axes.set_ylim(bottom=0)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2,
        handlelength=2.6,
        columnspacing=1.0,
        borderaxespad=0.1,
        borderpad=0.1,
    )


def draw_guinier(axes: Axes, plot: GuinierPlot, b_factor_in_angstroms2: float | None, why_empty: str) -> None:
    """Draw the logarithms of the map's amplitudes, and the line that its B-factor was read from.

    Parameters
    ----------
    b_factor_in_angstroms2 : by which the sharpened map was sharpened; None if it was not
    why_empty : what is said where there is nothing to draw
    """
    axes.set_title("Guinier plot", pad=SECOND_LINE_PT)
    axes.set(xlabel="1/d² (1/Å²)", ylabel="ln of mean amplitude\n(no unit)")
    there = np.isfinite(plot.log_amplitude)
    there[0] = False  # the mean density is no detail
    if (b_factor_in_angstroms2 is None and not plot.is_fitted.any()) or not there.any():
        say_why(axes, why_empty)
        return
    x, fitted = plot.inverse_square_in_per_angstrom2, plot.is_fitted & there
    axes.plot(x[there & ~fitted], plot.log_amplitude[there & ~fitted], "o", color="0.5", mfc="white", ms=2.6, mew=0.6)
    axes.plot(x[fitted], plot.log_amplitude[fitted], "o", color="black", ms=2.6, label="fitted")
    if np.isfinite(plot.slope) and fitted.any():
        ends = x[fitted][[0, -1]]
        axes.plot(ends, plot.intercept + plot.slope * ends, color="black", linewidth=1.0, label="line")
    shown = x[fitted].max() * 1.3 if fitted.any() else x[there].max()
    visible = there & (x <= shown)
    low, high = plot.log_amplitude[visible].min(), plot.log_amplitude[visible].max()
    axes.set(xlim=(0, shown), ylim=(low - 0.08 * (high - low) - 0.1, high + 0.08 * (high - low) + 0.1))
    axes.locator_params(axis="x", nbins=4)
    if b_factor_in_angstroms2 is not None:
        words = f"sharpened by B = {b_factor_in_angstroms2:.0f} Å²".replace("-", "−")
        add_second_line(axes, words)


def say_why(axes: Axes, why: str) -> None:
    """Write into a small plot, over several lines, why it is empty."""
    axes.set(xticks=[], yticks=[])
    width_in = axes.get_window_extent().width / axes.figure.dpi
    say(axes, "\n".join(wrap(why, ROOM_LEFT * width_in, SMALL_PT)), size_pt=SMALL_PT)
