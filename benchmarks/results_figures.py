"""The plots of docs/results.md: small, with units, told apart in grey by marker and line."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results_tables import COLUMN_TITLES, OURS, RELION, Cells, band_points, of_program, selected

Json = dict[str, Any]

LINES = {"exact": "-", "errors": "--", "solvent": ":"}
MARKERS = {"exact": "o", "errors": "^", "solvent": "s"}
PROGRAMS = {OURS: ("ours", "black"), RELION: ("RELION", "0.6")}
CURVES_AT = 0.015  # signal to noise
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
}


def draw_figures(quality: Json, directory: Path) -> list[Path]:
    """Draw what there are cells for; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    cells = selected(quality["cells"], fit="collapsed")
    drawn = []
    with rc_context(STYLE):
        for name, figure in (
            ("quality", quality_figure(quality, cells)),
            ("curves", curves_figure(quality, selected(cells, column="exact", signal_to_noise=CURVES_AT))),
            ("calibration", calibration_figure(cells)),
        ):
            path = directory / f"{name}.png"
            path.unlink(missing_ok=True)
            if figure is not None:
                FigureCanvasAgg(figure)
                figure.savefig(path, dpi=110, metadata={"Software": None})
                drawn.append(path)
    return drawn


def quality_figure(quality: Json, cells: Cells) -> Figure | None:
    """Mean FSC to the truth against signal to noise, one panel a molecule; bars: standard deviation between seeds."""
    if not cells:
        return None
    figure, panels = _panels(quality, (7.0, 5.0))
    for axes, molecule in zip(panels, quality["molecules"], strict=True):
        for column, line in LINES.items():
            for program, (label, grey) in PROGRAMS.items():
                points = [
                    (ratio, of_program(chosen, program, "mean_fsc_to_truth"))
                    for ratio in sorted(quality["signal_to_noise"])
                    if (chosen := selected(cells, molecule=molecule["name"], column=column, signal_to_noise=ratio))
                ]
                if points:
                    axes.errorbar(
                        [ratio for ratio, _ in points],
                        [_mean(values) for _, values in points],
                        yerr=[_spread(values) for _, values in points],
                        color=grey,
                        linestyle=line,
                        marker=MARKERS[column],
                        markerfacecolor=grey if program == OURS else "white",
                        capsize=2,
                        label=f"{label}, {COLUMN_TITLES[column].lower()}",
                    )
        ratios = sorted(quality["signal_to_noise"])
        axes.set_xscale("log")
        axes.set_xlim(ratios[0] / 1.3, ratios[-1] * 1.3)
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.minorticks_off()
        axes.set_xlabel("signal to noise of an image (ratio of variances)")
        axes.set_ylabel("mean FSC to the truth")
    _legend(figure, panels)
    return figure


def curves_figure(quality: Json, cells: Cells) -> Figure | None:
    """Fourier shell correlation with the truth, one panel a molecule, the first seed that was run."""
    if not cells:
        return None
    figure, panels = _panels(quality, (7.0, 5.0))
    for axes, molecule in zip(panels, quality["molecules"], strict=True):
        chosen = selected(cells, molecule=molecule["name"])
        if chosen:
            first = min(chosen, key=lambda cell: cell["seed"])
            edge = molecule["box_size_px"] * quality["pixel_size_in_angstroms"]
            for program, (label, grey) in PROGRAMS.items():
                curve = first["fsc_to_truth"][program]
                frequency = [shell / edge for shell in range(1, len(curve))]
                axes.plot(frequency, curve[1:], color=grey, linestyle="-" if program == OURS else "--", label=label)
        axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
        axes.set_ylim(-0.05, 1.02)
        axes.set_xlabel("spatial frequency (1/Å)")
        axes.set_ylabel("FSC to the truth")
    _legend(figure, panels)
    return figure


def calibration_figure(cells: Cells) -> Figure | None:
    """What the jobs state of each band against what is true."""
    points = band_points(cells)
    if not points:
        return None
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for column, grey in (("exact", "black"), ("errors", "0.35"), ("solvent", "0.6")):
        chosen = [point for point in points if point[0] == column]
        if chosen:
            axes.errorbar(
                [true for *_, true in chosen],
                [c for _, c, _, _ in chosen],
                yerr=[error for _, _, error, _ in chosen],
                linestyle="none",
                marker=MARKERS[column],
                markersize=3,
                markerfacecolor="white" if column != "exact" else grey,
                color=grey,
                elinewidth=0.6,
                label=COLUMN_TITLES[column].lower(),
            )
    low = min(min(c, true) for _, c, _, true in points) - 0.05
    axes.plot([low, 1], [low, 1], color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("correlation of our map with the truth in a band of shells")
    axes.set_ylabel("what our job states of the band (bars: its standard error)")
    axes.legend(loc="upper left")
    return figure


def _panels(quality: Json, size_in: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size_in, layout="constrained")
    molecules = quality["molecules"]
    rows = (len(molecules) + 1) // 2
    panels = [figure.add_subplot(rows, 2, i + 1) for i in range(len(molecules))]
    for axes, molecule in zip(panels, molecules, strict=True):
        axes.set_title(f"{molecule['title']}, {molecule['symmetry']}, box {molecule['box_size_px']}", fontsize=8)
    return figure, panels


def _legend(figure: Figure, panels: list[Axes]) -> None:
    """One legend for all panels, which may hold different sets of lines; an empty panel says so."""
    for axes in panels:
        if not axes.get_legend_handles_labels()[0]:
            axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", color="0.5")
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=min(3, len(entries)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)
