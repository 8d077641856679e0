"""A report that was printed in grey tells its curves apart and is legible."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gem_plugin.report.layout import HALF_STYLES
from tests.unit.pages import TEXT, pages_of_case, texts_of

LEAST_CONTRAST_OF_TEXT, LEAST_CONTRAST_OF_LINES = 4.5, 3.0  # WCAG 2.1, 1.4.3 and 1.4.11
LEAST_DIFFERENCE = 0.05


def contrast_on_white(colour: object) -> float:
    """Contrast as WCAG 2.1 defines it: of the colour's grey, since luminance is all that it looks at."""
    rgb = np.array(colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


def printed_grey(page: Figure) -> NDArray[np.float64]:
    """The page as a grey printer has it, [rows, columns], 0 black to 1 white, from the lower left."""
    canvas = page.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    rgb = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255
    return np.asarray(rgb @ [0.2126, 0.7152, 0.0722])


def ink_of_entries(legend: Legend, grey: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
    """Label and ink along each sample of a legend, as printed."""
    entries = []
    for text in legend.get_texts():
        box = text.get_window_extent()
        width = (legend.handlelength + legend.handletextpad) * text.get_fontsize() / 72 * legend.get_figure().dpi
        left = int(box.x0 - width)
        sample = 1 - grey[int(box.y0) - 1 : int(box.y1) + 2, left : int(box.x0) - 1]
        entries.append((text.get_text(), sample.sum(axis=0)))
    return entries


@pytest.mark.parametrize("page_number", range(TEXT))
def test_samples_in_each_legend_differ_in_grey(page_number: int) -> None:
    page = pages_of_case("noise control")[page_number]
    grey = printed_grey(page)
    legends = [axes.get_legend() for axes in page.axes if axes.get_legend()]
    assert legends
    for legend in legends:
        for (one, ink), (other, other_ink) in combinations(ink_of_entries(legend, grey), 2):
            n = min(len(ink), len(other_ink))
            assert ink.sum() > 1, f"{one!r} is not drawn"
            difference = np.abs(ink[:n] - other_ink[:n]).sum() / (ink[:n] + other_ink[:n]).sum()
            assert difference > LEAST_DIFFERENCE, f"{one!r} and {other!r} look alike in grey"


def test_the_measure_notices_two_curves_that_differ_in_colour_alone() -> None:
    page = Figure()
    FigureCanvasAgg(page)
    axes = page.add_subplot()
    axes.plot([0, 1], [0, 1], color="#c8501e", label="a")
    axes.plot([0, 1], [1, 0], color="#5a7d1e", label="b")  # as dark
    legend = axes.legend()
    page.canvas.draw()
    (_, ink), (_, other_ink) = ink_of_entries(legend, printed_grey(page))
    assert np.abs(ink - other_ink).sum() / (ink + other_ink).sum() < LEAST_DIFFERENCE


def test_labelled_curves_of_a_plot_differ_in_line_style_or_marker() -> None:
    for page in pages_of_case("noise control"):
        for axes in page.axes:
            handles, labels = axes.get_legend_handles_labels()
            lines = [h.lines[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
            looks = [
                (str(line._unscaled_dash_pattern), line.get_marker()) for line in lines if isinstance(line, Line2D)
            ]
            assert len(set(looks)) == len(looks), f"{axes.get_title(loc='left')!r}: {labels}"
    dashes = [style["linestyle"] for style in HALF_STYLES]
    assert dashes[0] != dashes[1]


@pytest.mark.parametrize("case", ["noise control", "no resolution claimed"])
def test_text_and_curves_stand_out_from_paper(case: str) -> None:
    for page in pages_of_case(case):
        for text in texts_of(page):
            on_a_picture = text.get_bbox_patch() is not None
            assert on_a_picture or contrast_on_white(text.get_color()) >= LEAST_CONTRAST_OF_TEXT, text.get_text()
        for axes in page.axes:
            if axes.axison:
                for line in axes.lines:
                    assert contrast_on_white(line.get_color()) >= LEAST_CONTRAST_OF_LINES, line.get_label()
