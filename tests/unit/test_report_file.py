"""The report as a file: whole or not at all, the same bytes each time."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from gem_plugin.errors import OutputError
from gem_plugin.report import write_report
from tests.unit.pages import COMMAND, TITLE
from tests.unit.synthetic import STATEMENT, synthetic_reconstruction


def test_the_pdf_holds_the_text_of_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "logfile.pdf"
    write_report(synthetic_reconstruction(), path, title=TITLE, command=COMMAND)
    assert path.read_bytes().startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", path.read_bytes())) == 5
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed: the PDF's text is not read back")
    text = subprocess.run(["pdftotext", "-raw", path, "-"], capture_output=True, text=True, check=True).stdout
    one, *_, last = (" ".join(page.split()) for page in text.rstrip("\f").split("\f"))
    assert STATEMENT in one
    assert "do not quote" in one
    assert COMMAND in last
    assert "outside 0.8 to 1.2." in last


def test_a_report_is_the_same_bytes_each_time_whatever_the_users_style(tmp_path: Path) -> None:
    paths = (tmp_path / "a.pdf", tmp_path / "b.pdf")
    write_report(synthetic_reconstruction(), paths[0], title=TITLE, command=COMMAND)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        write_report(synthetic_reconstruction(), paths[1], title=TITLE, command=COMMAND)
        assert dict(matplotlib.rcParams) == before
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == list(paths), "no temporary file is left"


def test_a_report_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    missing = tmp_path / "not_there" / "logfile.pdf"
    with pytest.raises(OutputError, match=r"logfile\.pdf cannot be written: No such file"):
        write_report(synthetic_reconstruction(), missing, title=TITLE, command=COMMAND)
    folder = tmp_path / "folder.pdf"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"folder\.pdf"):
        write_report(synthetic_reconstruction(), folder, title=TITLE, command=COMMAND)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_older_report_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "logfile.pdf"
    path.write_text("older")
    monkeypatch.setattr("gem_plugin.report.pdf.report_pages", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_report(synthetic_reconstruction(), path, title=TITLE, command=COMMAND)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_a_report_does_not_touch_pyplot() -> None:
    code = "import sys, gem_plugin.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
