"""Page one: the map, the resolution and how it was found, for a reader in a hurry."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
from gem_plugin.report.summary_plots import draw_guinier, draw_local_resolution
from gem_plugin.report.views import draw_views
from gem_plugin.symmetry import point_group

TEXT_WIDTH_IN = PAGE_WIDTH_IN - 2 * MARGIN_IN
MAX_TITLE_LINES, MAX_STATEMENT_LINES, MAX_FACT_LINES, MAX_WARNING_LINES = 2, 4, 3, 2
CURVES_WIDTH_IN, CURVES_BOTTOM_IN = 4.3, 3.15
SMALL_PLOT_LEFTS_IN, SMALL_PLOT_BOTTOM_IN = (1.0, 3.47, 5.97), 0.95
SMALL_PLOT_WIDTH_IN, SMALL_PLOT_HEIGHT_IN = 1.7, 1.35


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
    _draw_small_plots(page, reconstruction)
    return page


def _draw_small_plots(page: Figure, reconstruction: Reconstruction) -> None:
    axes = [
        add_axes(page, left, SMALL_PLOT_BOTTOM_IN, SMALL_PLOT_WIDTH_IN, SMALL_PLOT_HEIGHT_IN)
        for left in SMALL_PLOT_LEFTS_IN
    ]
    draw_local_resolution(
        axes[0],
        _local_resolutions(reconstruction),
        reconstruction.curve.resolution_in_angstroms,
        reconstruction.viewing.local_resolution.statement,
    )
    sharpening = reconstruction.viewing.sharpening
    draw_guinier(axes[2], sharpening.plot, sharpening.b_factor_in_angstroms2, sharpening.statement)
    draw_views(axes[1], reconstruction.particle_list.view_angles_deg, point_group(reconstruction.symmetry))


def _local_resolutions(reconstruction: Reconstruction) -> NDArray[np.float64]:
    """Local resolutions of the voxels under the mask that have one, in Angstrom."""
    values = reconstruction.viewing.local_resolution.in_angstroms[reconstruction.mask > 0.5].astype(np.float64)
    return np.asarray(values[np.isfinite(values) & (values > 0)])


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
        labelspacing=0.6,
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
        f"Gaussians: {len(first.gaussians):,} + {len(second.gaussians):,}"
        + (" of one asymmetric unit" if reconstruction.symmetry != "C1" else ""),
        f"Symmetry imposed: {reconstruction.symmetry}",
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
