"""The report's pages, and how they reach the disk."""

import os
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

import gem_plugin
from gem_plugin.errors import OutputError
from gem_plugin.reconstruction import Reconstruction
from gem_plugin.report.controls_page import controls_page
from gem_plugin.report.detail_page import detail_page
from gem_plugin.report.front_page import front_page
from gem_plugin.report.layout import GREY, MARGIN_IN, SMALL_PT, add_text, use_style
from gem_plugin.report.particles_page import particles_page
from gem_plugin.report.text_pages import text_pages

FOOTER_IN = 0.35


def write_report(reconstruction: Reconstruction, path: Path, *, title: str, command: str) -> None:
    """Write the report of a run as a PDF of some A4 pages.

    The same reconstruction gives the same bytes with the same versions of the packages. The file appears whole or
    not at all: it is written under another name and renamed.

    Parameters
    ----------
    reconstruction
        What the run yielded.
    path
        The PDF to write; its folder must exist. A file of that name is replaced.
    title
        Heading of page one.
    command
        The command line that was run, printed on the last page.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_pages(reconstruction, part, title, command)
        _flush(part)
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"The report {path} cannot be written: {reason}. Check the folder and the disk.") from error
    finally:
        part.unlink(missing_ok=True)


def report_pages(reconstruction: Reconstruction, *, title: str, command: str) -> list[Figure]:
    """Return the pages as figures; call inside a `matplotlib.rc_context` that `use_style` has set."""
    pages = [
        front_page(reconstruction, title),
        controls_page(reconstruction),
        detail_page(reconstruction),
        particles_page(reconstruction),
        *text_pages(reconstruction, command),
    ]
    for number, page in enumerate(pages, start=1):
        footer = f"gem_plugin {gem_plugin.__version__}, page {number} of {len(pages)}"
        add_text(page, MARGIN_IN, FOOTER_IN, footer, SMALL_PT, color=GREY)
    return pages


def _write_pages(reconstruction: Reconstruction, path: Path, title: str, command: str) -> None:
    # No dates: a report is the same file each time. No pyplot: nothing global is touched that is not put back.
    metadata = {"Title": title, "Creator": f"gem_plugin {gem_plugin.__version__}", "CreationDate": None}
    with matplotlib.rc_context():
        use_style()
        with PdfPages(path, metadata=metadata) as pdf:
            for page in report_pages(reconstruction, title=title, command=command):
                FigureCanvasAgg(page)
                pdf.savefig(page)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
