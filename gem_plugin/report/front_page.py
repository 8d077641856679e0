"""Page one: the map, the resolution and how it was found, for a reader in a hurry."""

from matplotlib.figure import Figure

from gem_plugin.reconstruction import Reconstruction
from gem_plugin.report.curves import HONEST_LABELS, draw_correlations
from gem_plugin.report.layout import (
    MARGIN_IN,
    PAGE_HEIGHT_IN,
    PAGE_WIDTH_IN,
    SMALL_PT,
    STATEMENT_PT,
    TITLE_PT,
    Line,
    add_axes,
    add_lines,
    line_height_in,
    new_page,
    shortened,
    wrap,
)
from gem_plugin.report.pictures import draw_pictures

TEXT_WIDTH_IN = PAGE_WIDTH_IN - 2 * MARGIN_IN
MAX_TITLE_LINES, MAX_STATEMENT_LINES, MAX_FACT_LINES, MAX_WARNING_LINES = 2, 4, 3, 3
CURVES_WIDTH_IN, CURVES_BOTTOM_IN = 4.3, 0.85


def front_page(reconstruction: Reconstruction, title: str) -> Figure:
    """Return page one."""
    page = new_page()
    top = add_lines(
        page,
        MARGIN_IN,
        PAGE_HEIGHT_IN - MARGIN_IN + 0.1,
        shortened(wrap(title, TEXT_WIDTH_IN, TITLE_PT, bold=True), MAX_TITLE_LINES, bold=True),
        TITLE_PT,
    )
    statement = wrap(reconstruction.curve.statement, TEXT_WIDTH_IN, STATEMENT_PT, bold=True)
    top = add_lines(page, MARGIN_IN, top - 0.05, shortened(statement, MAX_STATEMENT_LINES, bold=True), STATEMENT_PT)
    bottom = draw_pictures(page, reconstruction, MARGIN_IN, top - 0.18)
    _draw_curves_and_facts(page, reconstruction, bottom - 0.55)
    return page


def _draw_curves_and_facts(page: Figure, reconstruction: Reconstruction, top: float) -> None:
    axes = add_axes(page, MARGIN_IN + 0.4, CURVES_BOTTOM_IN, CURVES_WIDTH_IN, top - CURVES_BOTTOM_IN)
    draw_correlations(axes, reconstruction.curve, 0.5 / reconstruction.pixel_size_in_angstroms)
    left = MARGIN_IN + 0.4 + CURVES_WIDTH_IN + 0.2
    handles, labels = axes.get_legend_handles_labels()
    honest_first = sorted(range(len(labels)), key=lambda i: not labels[i].startswith(HONEST_LABELS))
    axes.legend(
        [handles[i] for i in honest_first],
        [labels[i] for i in honest_first],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.04),
        borderaxespad=0.0,
        handlelength=3.2,
        labelspacing=0.7,
    )
    width = PAGE_WIDTH_IN - MARGIN_IN - left
    wrapped = [wrap(fact, width, SMALL_PT, indent="  ") for fact in _facts(reconstruction)]
    lines = [line for fact in wrapped for line in shortened(fact, MAX_FACT_LINES)]
    lines += _warning_lines(reconstruction.warnings, width)
    add_lines(page, left, CURVES_BOTTOM_IN + len(lines) * line_height_in(SMALL_PT), lines, SMALL_PT)


def _facts(reconstruction: Reconstruction) -> list[str]:
    first, second = reconstruction.halves
    return [
        f"Particles: {first.n_particles:,} + {second.n_particles:,} (half sets 1 + 2)",
        f"Gaussians: {len(first.gaussians):,} + {len(second.gaussians):,}",
        f"Box: {reconstruction.box_size_px} px of {reconstruction.pixel_size_in_angstroms:.4g} Å",
        f"Mask (dotted): {reconstruction.mask_origin}",
        "Map shown: filtered by C_full, not sharpened",
        "A half-map FSC of f, if true, means a correlation of √(2f / (1 + f)) with the truth.",
        "No correlation of half sets sees errors that both share, such as wrong poses.",
    ]


def _warning_lines(warnings: tuple[str, ...], width_in: float) -> list[Line]:
    if not warnings:
        return [Line(""), Line("No warnings.")]
    count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    lines = wrap(warnings[0], width_in, SMALL_PT)
    return [Line(""), Line(f"{count}, in full on a later page:", bold=True), *shortened(lines, MAX_WARNING_LINES)]
