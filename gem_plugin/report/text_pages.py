"""Settings, warnings, versions and the command: running text in columns."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from matplotlib.figure import Figure

import gem_plugin
from gem_plugin.reconstruction import Reconstruction
from gem_plugin.report.layout import (
    MARGIN_IN,
    PAGE_HEIGHT_IN,
    PAGE_WIDTH_IN,
    SMALL_PT,
    Line,
    add_lines,
    line_height_in,
    new_page,
    wrap,
)

N_COLUMNS, COLUMN_GAP_IN = 2, 0.3
COLUMN_WIDTH_IN = (PAGE_WIDTH_IN - 2 * MARGIN_IN - COLUMN_GAP_IN) / N_COLUMNS
PACKAGES = ("numpy", "scipy", "torch", "numba", "finufft", "starfile", "mrcfile", "matplotlib")
INDENT = "    "


def text_pages(reconstruction: Reconstruction, command: str) -> list[Figure]:
    """Return the pages of running text."""
    lines = running_text(reconstruction, command)
    pages: list[Figure] = []
    while lines:
        pages.append(new_page())
        lines = _fill(pages[-1], PAGE_HEIGHT_IN - MARGIN_IN, lines)
    return pages


def running_text(reconstruction: Reconstruction, command: str) -> list[Line]:
    """Return the running text in lines cut to the width of a column."""
    settings = [f"{name}: {value}" for name, value in reconstruction.settings.items()]
    sections = (
        ("Resolution", [reconstruction.curve.statement]),
        *_noise_control(reconstruction),
        ("Local resolution", [reconstruction.viewing.local_resolution.statement]),
        ("Sharpening", [reconstruction.viewing.sharpening.statement]),
        ("Warnings", list(reconstruction.warnings) or ["none"]),
        ("Settings", settings or ["none recorded"]),
        ("Versions", _versions()),
        ("Machine", [_machine()]),
        ("Command", [command]),
    )
    lines: list[Line] = []
    for heading, entries in sections:
        lines += [Line(""), Line(heading, bold=True)]
        lines += [Line(text) for entry in entries for text in wrap(entry, COLUMN_WIDTH_IN, SMALL_PT, indent=INDENT)]
    return lines[1:]


def _noise_control(reconstruction: Reconstruction) -> list[tuple[str, list[str]]]:
    control = reconstruction.noise_control
    return [("Noise control", [control.statement if control else "not run (--noise_control)"])]


def _fill(page: Figure, top_in: float, lines: list[Line]) -> list[Line]:
    """Fill a page's columns, evenly on the last page; return the lines that did not fit."""
    room = int((top_in - MARGIN_IN) / line_height_in(SMALL_PT))
    columns, rest = _cut(lines, room)
    if not rest:
        evenly = range(-(-len(lines) // N_COLUMNS), room + 1)
        columns = next((cut for cut, over in (_cut(lines, n) for n in evenly) if not over), columns)
    for number, column in enumerate(columns):
        add_lines(page, MARGIN_IN + number * (COLUMN_WIDTH_IN + COLUMN_GAP_IN), top_in, column, SMALL_PT)
    return rest


def _cut(lines: list[Line], per_column: int) -> tuple[list[list[Line]], list[Line]]:
    """Cut lines into a page's columns; return them and what is left over."""
    columns = []
    for _ in range(N_COLUMNS):
        while lines and not lines[0].text:  # no column begins with an empty line
            lines = lines[1:]
        here, lines = lines[:per_column], lines[per_column:]
        if lines and here and here[-1].bold:  # a heading stays with its text
            here, lines = here[:-1], [here[-1], *lines]
        columns.append(here)
    return columns, lines


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


def _versions() -> list[str]:
    found = [f"gem_plugin {gem_plugin.__version__}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
