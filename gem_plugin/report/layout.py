"""The page, its look, and text that is measured before it is set, so that nothing overlaps or runs off."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextToPath

LineStyle = dict[str, Any]  # keyword arguments of matplotlib's plotting methods

PAGE_WIDTH_IN, PAGE_HEIGHT_IN = 8.27, 11.69  # A4, portrait
MARGIN_IN = 0.6
POINTS_PER_INCH = 72.0
LINE_SPACING = 1.35  # of the font size

FONT = "DejaVu Sans"  # comes with matplotlib, so that a report looks alike everywhere
SMALL_PT, BODY_PT, STATEMENT_PT, TITLE_PT = 6.5, 7.5, 11.0, 15.0
SECOND_LINE_PT = 14.0  # between a plot and its title
GREY = "0.45"

# Halves and curves differ by line style as well as by colour: the page must read printed in grey.
HALF_STYLES: tuple[LineStyle, LineStyle] = (
    {"color": "black", "linestyle": "-"},
    {"color": "#c8501e", "linestyle": (0, (4, 2))},
)

STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": BODY_PT,
    "axes.titlesize": BODY_PT + 0.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": BODY_PT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # TrueType: the text can be searched and copied
    "text.usetex": False,
}


@dataclass(frozen=True)
class Line:
    """One line of running text, already cut to the width of its column."""

    text: str
    bold: bool = False


def use_style() -> None:
    """Take matplotlib's own defaults and this report's style; call inside `matplotlib.rc_context`."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(STYLE)


def new_page() -> Figure:
    """Return an empty A4 page."""
    return Figure(figsize=(PAGE_WIDTH_IN, PAGE_HEIGHT_IN))


def add_axes(page: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the page's lower left corner."""
    return page.add_axes(
        (left / PAGE_WIDTH_IN, bottom / PAGE_HEIGHT_IN, width / PAGE_WIDTH_IN, height / PAGE_HEIGHT_IN)
    )


def add_text(
    page: Figure,
    left: float,
    bottom: float,
    text: str,
    size_pt: float = BODY_PT,
    *,
    bold: bool = False,
    color: str = "black",
) -> None:
    """Set one line of text with its baseline at a place given in inches; a dollar is a dollar, not a formula."""
    page.text(
        left / PAGE_WIDTH_IN,
        bottom / PAGE_HEIGHT_IN,
        printable(text),
        fontsize=size_pt,
        weight="bold" if bold else "normal",
        color=color,
        parse_math=False,
    )


def add_lines(page: Figure, left: float, top: float, lines: list[Line], size_pt: float = BODY_PT) -> float:
    """Set lines downwards from `top` (inches); return the height in inches at which the next line would begin."""
    step = line_height_in(size_pt)
    for number, line in enumerate(lines, start=1):
        if line.text:
            add_text(page, left, top - number * step, line.text, size_pt, bold=line.bold)
    return top - len(lines) * step


def line_height_in(size_pt: float) -> float:
    """Return the distance of two lines in inches."""
    return size_pt * LINE_SPACING / POINTS_PER_INCH


def say(axes: Axes, message: str, size_pt: float = BODY_PT) -> None:
    """Write why a plot is empty into it."""
    axes.text(
        0.5,
        0.5,
        message,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=GREY,
        fontsize=size_pt,
        parse_math=False,
    )


def add_second_line(axes: Axes, words: str) -> None:
    """Set a line of small print between a plot and its title, which was given `SECOND_LINE_PT` of room."""
    axes.text(0.0, 1.03, words, transform=axes.transAxes, fontsize=SMALL_PT, va="bottom", parse_math=False)


def wrap(text: str, width_in: float, size_pt: float = BODY_PT, *, bold: bool = False, indent: str = "") -> list[str]:
    """Cut text into lines no wider than `width_in` inches; a word wider than that is cut as well.

    Lines after a paragraph's first begin with `indent`.
    """
    space = _width_in(" ", size_pt, bold)
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line, used, begins_paragraph = "", 0.0, True
        for word in _words(printable(paragraph), width_in - len(indent) * space, size_pt, bold):
            wanted = _width_in(word, size_pt, bold)
            if line.strip() and used + space + wanted > width_in:
                lines.append(line)
                line, begins_paragraph = "", False
            if line:
                line, used = f"{line} {word}", used + space + wanted
            else:
                lead = "" if begins_paragraph else indent
                line, used = lead + word, len(lead) * space + wanted
        lines.append(line)
    return lines


def shortened(lines: list[str], at_most: int, *, bold: bool = False) -> list[Line]:
    """Cut text that is longer than its room, visibly."""
    if len(lines) > at_most:
        lines = [*lines[: at_most - 1], lines[at_most - 1][:-2] + "…"]
    return [Line(line, bold) for line in lines]


def shortened_in_front(text: str, at_most: int) -> str:
    """Cut a name that is longer than its room, visibly and in front: names differ at their ends."""
    return text if len(text) <= at_most else "…" + text[len(text) - at_most + 1 :]


def printable(text: str) -> str:
    """Replace what the font cannot draw, which would otherwise be a warning and an empty box."""
    known = _characters_of_font()
    return "".join(c if ord(c) in known else (" " if c.isspace() else "?") for c in text)


def _words(paragraph: str, width_in: float, size_pt: float, bold: bool) -> Iterator[str]:
    """Yield the words of a paragraph, those that are wider than a line in pieces."""
    for word in paragraph.split():
        piece = ""
        for character in word:
            if piece and _width_in(piece + character, size_pt, bold) > width_in:
                yield piece
                piece = ""
            piece += character
        yield piece


@lru_cache(maxsize=20_000)
def _width_in(text: str, size_pt: float, bold: bool) -> float:
    font = FontProperties(family=FONT, size=size_pt, weight="bold" if bold else "normal")
    width_pt, _, _ = TextToPath().get_text_width_height_descent(text, font, False)
    return float(width_pt) / POINTS_PER_INCH


@lru_cache(maxsize=1)
def _characters_of_font() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())
