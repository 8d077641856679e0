"""Pages of a report as figures, and what is drawn on them."""

from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from gem_plugin.reconstruction import Reconstruction
from gem_plugin.report.layout import use_style
from gem_plugin.report.pdf import report_pages
from tests.unit.synthetic import CASES

TITLE = "External/job012"
COMMAND = "gem-external --o External/job012/ --in_parts Refine3D/job011/run_data.star --cost $5 --name $x_{1}$ --j 4"
FRONT, CONTROLS, FIT, PARTICLES, TEXT = range(5)  # pages
FOOTER = "gem_plugin "


def pages_of(reconstruction: Reconstruction) -> list[Figure]:
    """Return the drawn pages of a reconstruction's report."""
    with matplotlib.rc_context():
        use_style()
        pages = report_pages(reconstruction, title=TITLE, command=COMMAND)
        for page in pages:
            FigureCanvasAgg(page).draw()
    return pages


@cache
def pages_of_case(name: str) -> list[Figure]:
    """Return the drawn pages of one of the synthetic cases, made once."""
    return pages_of(CASES[name]())


def texts_of(page: Figure) -> list[Text]:
    """Return every text that is drawn on a page; tick labels beyond the ends of their axis are not drawn."""
    undrawn = set()
    for axis in page.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - slack <= tick.get_loc() <= high + slack:
                undrawn |= {tick.label1, tick.label2}
    return [t for t in page.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in undrawn]


def words_of(pages: list[Figure]) -> str:
    """Return all words of some pages in the order in which they were set, footers left out."""
    texts = [text.get_text() for page in pages for text in texts_of(page)]
    return " ".join(" ".join(text for text in texts if not text.startswith(FOOTER)).split())


def axes_of(page: Figure, part_of_label: str) -> Axes:
    """Return the axes whose title or y label contains a text."""
    return next(a for a in page.axes if part_of_label in a.get_title(loc="left") + a.get_ylabel())


def line_labelled(axes: Axes, beginning: str) -> NDArray[np.float64]:
    """Return the points [n, 2] of the curve whose legend entry begins so."""
    handles, labels = axes.get_legend_handles_labels()
    handle = next(h for h, label in zip(handles, labels, strict=True) if label.startswith(beginning))
    line = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
    return np.asarray(line.get_xydata())
