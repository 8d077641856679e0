"""Panels in two columns on a page, and what they have in common."""

from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gem_plugin.reconstruction import HalfResult, Reconstruction
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

N_COLUMNS, PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 2, 2.85, 1.25
COLUMN_STEP_IN, ROW_STEP_IN = 3.65, 2.1
FIRST_LEFT_IN, FIRST_TOP_IN = MARGIN_IN + 0.55, PAGE_HEIGHT_IN - 1.25
ROOM_FOR_LABELS_IN = 0.65  # below a row of panels

Panel = Callable[[Axes, Reconstruction], None]


def page_of_panels(title: str, panels: Sequence[Panel], reconstruction: Reconstruction) -> Figure:
    """Return a page with a heading and panels from its top, row by row."""
    page = new_page()
    add_lines(page, MARGIN_IN, PAGE_HEIGHT_IN - MARGIN_IN + 0.1, [Line(title, bold=True)], TITLE_PT - 3)
    for number, panel in enumerate(panels):
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


def free_below_in(n_panels: int) -> float:
    """Height in inches below which a page of so many panels is free."""
    n_rows = -(-n_panels // N_COLUMNS)
    return FIRST_TOP_IN - (n_rows - 1) * ROW_STEP_IN - PANEL_HEIGHT_IN - ROOM_FOR_LABELS_IN


def each_half(reconstruction: Reconstruction) -> list[tuple[HalfResult, LineStyle]]:
    """Both halves, each with its line style and its label."""
    return [
        (half, {**style, "label": f"half {half.half_set}"})
        for half, style in zip(reconstruction.halves, HALF_STYLES, strict=True)
    ]


def finish(
    axes: Axes, anything: bool, why_empty: str, *, loc: Literal["best", "lower left"] = "best", ncols: int = 1
) -> None:
    """Add the legend, or say in words why there is nothing to see."""
    if anything:
        axes.legend(loc=loc, ncols=ncols, handlelength=3.0)
    else:
        axes.set(xticks=[], yticks=[])
        say(axes, why_empty)
