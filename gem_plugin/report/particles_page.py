"""What the images leave unexplained: by frequency, by optics group, by group, particle by particle."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from gem_plugin.reconstruction import ParticleResults, Reconstruction
from gem_plugin.report.layout import (
    BODY_PT,
    GREY,
    MARGIN_IN,
    SMALL_PT,
    Line,
    add_lines,
    line_height_in,
    shortened_in_front,
)
from gem_plugin.report.panels import each_half, finish, free_below_in, page_of_panels

N_WORST = 12
N_BINS = 40
NAMED_GROUPS = 6
COLUMNS_IN = (("residual over noise", 1.2), ("scale", 0.7), ("half", 0.5), ("particle (rlnImageName)", 4.6))


def particles_page(reconstruction: Reconstruction) -> Figure:
    """Return the page with its plots and, below them, the table of the particles that fit worst."""
    page = page_of_panels("The particles", PANELS, reconstruction)
    _draw_worst(page, reconstruction, free_below_in(len(PANELS)))
    return page


def worst_particles(reconstruction: Reconstruction, at_most: int) -> list[tuple[float, float, int, str]]:
    """Residual over noise, scale, half set and name of the particles that fit worst, the worst first."""
    names = reconstruction.particle_list.names
    rows = [
        (float(residual), float(scale), half.half_set, names[index])
        for half in reconstruction.halves
        for index, scale, residual in zip(
            half.particles.indices, half.particles.scale, half.particles.normalised_residual, strict=True
        )
        if np.isfinite(residual)
    ]
    return sorted(rows, key=lambda row: (-row[0], row[3]))[:at_most]


def residuals_by_optics_group(reconstruction: Reconstruction) -> list[list[NDArray[np.float64]]]:
    """Normalised residuals of the particles, [half][optics group]."""
    listed = reconstruction.particle_list
    return [
        [_of_group(half.particles, listed.optics_group, group) for group in range(len(listed.optics_group_names))]
        for half in reconstruction.halves
    ]


def _of_group(results: ParticleResults, group_of: NDArray[np.int64], group: int) -> NDArray[np.float64]:
    values = results.normalised_residual[group_of[results.indices] == group]
    return np.asarray(values[np.isfinite(values)])


def _draw_noise(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Noise of the images, assumed and found")
    nyquist = 0.5 / reconstruction.pixel_size_in_angstroms
    anything = False
    frequency = np.linspace(0, nyquist, reconstruction.box_size_px // 2 + 1)
    for half, style in each_half(reconstruction):
        there = np.isfinite(half.noise_power) & (half.noise_power > 0)
        anything |= bool(there.any())
        axes.plot(frequency[there], half.noise_power[there], **style)
    for half in reconstruction.halves:
        left = half.noise_power * half.particles.shell_residual
        found = np.isfinite(left) & (left > 0)
        label = "residual of the fit" if half is reconstruction.halves[0] else None
        axes.plot(
            frequency[found],
            left[found],
            color="0.5",
            linestyle="none",
            marker=".",
            markersize=2.5,
            zorder=1,
            label=label,
        )
    if anything:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlim=(0, nyquist), xlabel="spatial frequency (1/Å)", ylabel="variance a coefficient\n(greyscale²)")
    finish(axes, anything, "no noise spectrum")


def _draw_shell_residual(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Residual over noise, by frequency")
    nyquist = 0.5 / reconstruction.pixel_size_in_angstroms
    anything = False
    for half, style in each_half(reconstruction):
        ratio = half.particles.shell_residual
        anything |= bool(np.isfinite(ratio).any())
        axes.plot(np.linspace(0, nyquist, len(ratio)), ratio, **style)
    axes.axhline(1.0, color=GREY, linewidth=0.6, zorder=1)
    axes.set(xlim=(0, nyquist), xlabel="spatial frequency (1/Å)", ylabel="residual over noise\n(ratio, no unit)")
    finish(axes, anything, "no residuals")


def _draw_optics_groups(axes: Axes, reconstruction: Reconstruction) -> None:
    """A box for each half of each optics group: quartiles; whiskers to the 2nd and 98th percentile."""
    axes.set_title("Residual over noise, by optics group")
    by_half = residuals_by_optics_group(reconstruction)
    names = reconstruction.particle_list.optics_group_names
    drawn = [(half, group) for half, groups in enumerate(by_half) for group, values in enumerate(groups) if len(values)]
    axes.set(xlabel="optics group (name: half 1 left, half 2 right)", ylabel="of a particle\n(ratio, no unit)")
    if not drawn:
        finish(axes, False, "no particles")
        return
    boxes = axes.boxplot(
        [by_half[half][group] for half, group in drawn],
        positions=[group + 0.32 * (half - 0.5) for half, group in drawn],
        widths=0.24,
        whis=(2, 98),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        medianprops={"color": "black", "linewidth": 1.2},
    )
    for patch, (half, _) in zip(boxes["boxes"], drawn, strict=True):
        patch.set_facecolor(("white", "0.8")[half])
    axes.axhline(1.0, color=GREY, linewidth=0.6, zorder=1)
    shown = range(0, len(names), max(-(-len(names) // NAMED_GROUPS), 1))
    room = max(int(44 / len(shown)), 4)
    axes.set_xticks(list(shown), [shortened_in_front(names[i], room) for i in shown])
    axes.set_xlim(-0.6, len(names) - 0.4)


def _draw_groups(axes: Axes, reconstruction: Reconstruction) -> None:
    """Every group against every band: bad micrographs are dark columns."""
    axes.set_title("Residual over noise, by group")
    first = reconstruction.halves[0].particles
    n_bands = len(first.band_first_shell)
    nyquist_shell = reconstruction.box_size_px // 2
    axes.set(xlabel="group (number in the order of gem_residuals.star)", ylabel="band of shells\n(first shell)")
    ratios = _mean_over_halves([half.particles for half in reconstruction.halves])
    if not np.isfinite(ratios).any() or nyquist_shell < 1:
        finish(axes, False, "no residuals")
        return
    reach = max(float(np.nanmax(np.abs(ratios - 1))), 0.05)
    axes.imshow(
        ratios.T,
        cmap="Greys",
        vmin=1 - reach,
        vmax=1 + reach,
        origin="lower",
        aspect="auto",
        extent=(0.5, len(ratios) + 0.5, -0.5, n_bands - 0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(n_bands), [str(shell) for shell in first.band_first_shell])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    words = f"white: {1 - reach:.2f}, black: {1 + reach:.2f}"
    axes.set_xlabel(f"group (number in the order of gem_residuals.star)\n{words}")


def _mean_over_halves(results: list[ParticleResults]) -> NDArray[np.float64]:
    """Residual of each group and band over both halves, weighted by particles, [groups, bands]; nan without any."""
    counts = np.stack([r.group_counts for r in results])[:, :, None] * np.isfinite([r.group_residual for r in results])
    total = np.nansum(np.stack([r.group_residual for r in results]) * counts, axis=0)
    weight = counts.sum(axis=0)
    return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0))


def _draw_residuals(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Residual over noise, particle by particle")
    values = [half.particles.normalised_residual for half in reconstruction.halves]
    _draw_histograms(axes, reconstruction, values)
    axes.set(xlabel="residual over noise of a particle (ratio, no unit)")


def _draw_scales(axes: Axes, reconstruction: Reconstruction) -> None:
    axes.set_title("Scale, particle by particle")
    _draw_histograms(axes, reconstruction, [half.particles.scale for half in reconstruction.halves])
    axes.set(xlabel="factor on the projection that fits best (no unit)")


def _draw_histograms(axes: Axes, reconstruction: Reconstruction, values: list[NDArray[np.float64]]) -> None:
    axes.set_ylabel("particles a bin (count)")
    pooled = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(pooled):
        finish(axes, False, "no particles")
        return
    low, high = np.percentile(pooled, [0.1, 99.9])
    if high - low <= 1e-6 * abs(high):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, min(N_BINS, max(len(pooled) // 8, 5)) + 1)
    for (_, style), of_half in zip(each_half(reconstruction), values, strict=True):
        counts, _ = np.histogram(np.clip(of_half[np.isfinite(of_half)], low, high), bins=edges)
        axes.stairs(counts, edges, **style)
    axes.axvline(1.0, color=GREY, linewidth=0.6, zorder=1)
    axes.set_ylim(bottom=0)
    finish(axes, True, "")


def _draw_worst(page: Figure, reconstruction: Reconstruction, top_in: float) -> None:
    top = add_lines(page, MARGIN_IN, top_in, [Line("Particles that fit worst", bold=True)], BODY_PT + 0.5) - 0.05
    rows = worst_particles(reconstruction, N_WORST)
    if not rows:
        add_lines(page, MARGIN_IN, top, [Line("none were compared")], SMALL_PT)
        return
    cells = [[f"{r:.3f}", f"{s:.2f}", str(half), shortened_in_front(name, 88)] for r, s, half, name in rows]
    left = MARGIN_IN
    for (heading, width), column in zip(COLUMNS_IN, zip(*cells, strict=True), strict=True):
        lines = [Line(heading, bold=True), *(Line(cell) for cell in column)]
        bottom = add_lines(page, left, top, lines, SMALL_PT)
        left += width
    words = "Look at these: ice, carbon, a neighbour or no particle. run_data.star has these numbers of every particle."
    add_lines(page, MARGIN_IN, bottom - 0.3 * line_height_in(SMALL_PT), [Line(words)], SMALL_PT)


PANELS = (
    _draw_noise,
    _draw_shell_residual,
    _draw_optics_groups,
    _draw_groups,
    _draw_residuals,
    _draw_scales,
)
