"""gem_progress.jsonl: whole lines for scripts, few of them, and never the reason why a run ends."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from relion_external import progress_file
from relion_external.markers import Outcome
from relion_external.progress_file import ProgressFile

NAME = "gem_progress.jsonl"


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def refuse(constant: str) -> None:
    pytest.fail(f"{constant} is not JSON")


def lines_of(directory: Path) -> list[dict[str, Any]]:
    text = (directory / NAME).read_text(encoding="ascii")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def opened(directory: Path, clock: Clock | None = None) -> ProgressFile:
    log = ProgressFile(clock or Clock())
    log.open(directory, ["--o", "a b/"])
    return log


def test_every_line_says_what_and_when(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, clock)
    log.settings({"o": "a b/", "seed": 0, "in_mask": None})
    log.note("Größe 3 Å")
    log.stage("Half 1: fitting", 30, "steps")
    clock.seconds += 7.25
    log.advance(10, loss=-2.5, scale=float("nan"))
    log.warn("black")
    log.warn("black")
    log.advance(12, loss=-2.75)  # not yet due: written as the stage's last
    log.stage("Half 2: fitting", 5, "steps")
    log.advance(5, loss=float("inf"))
    log.end(Outcome.FAILURE, "error: no")
    log.end(Outcome.SUCCESS, "")
    log.note("after the end")
    lines = lines_of(tmp_path)
    assert [line["event"] for line in lines] == (
        ["start", "settings", "note", "stage", "progress", "warning", "progress", "stage", "progress", "end"]
    )
    assert lines[0]["command"] == "gem-external --o 'a b/'"
    assert lines[0]["process"] == os.getpid()
    assert lines[1]["options"] == {"o": "a b/", "seed": 0, "in_mask": None}
    assert lines[2]["message"] == "Größe 3 Å"
    own = [{k: v for k, v in line.items() if k not in ("time", "elapsed_s", "event")} for line in lines[3:]]
    assert own[0] == {"stage": "Half 1: fitting", "total": 30, "unit": "steps"}
    assert own[1] == own[0] | {"done": 10, "loss": -2.5, "scale": None}
    assert own[3] == own[0] | {"done": 12, "loss": -2.75}
    assert own[5] == {"stage": "Half 2: fitting", "total": 5, "unit": "steps", "done": 5, "loss": None}
    assert own[6] == {"outcome": "failure", "exit_code": 1, "message": "error: no"}
    assert [line["elapsed_s"] for line in lines[2:5]] == [0, 0, 7.25]
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert len(lines_of(tmp_path)) == 1
    log.note("reading")
    assert lines_of(tmp_path)[-1]["message"] == "reading"
    log.close()


def test_many_steps_leaves_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_file, "LINES_PER_INTERVAL", 20)
    clock = Clock()
    log = opened(tmp_path, clock)
    log.stage("Fitting", 100_000, "steps")
    for step in range(1, 100_001):
        clock.seconds += 0.125
        log.advance(step)
    done = [line["done"] for line in lines_of(tmp_path) if line["event"] == "progress"]
    assert done[:3] == [40, 80, 120]  # every five seconds at first
    assert done[25] - done[24] == 80  # then every ten
    assert done[-1] == 100_000
    assert len(done) < 160  # and not the 2500 of every five seconds
    for _ in range(3):
        log.advance(100_000)
    assert len(lines_of(tmp_path)) == len(done) + 2
    log.close()


def test_a_file_that_is_full_still_tells_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_file, "LARGEST_BYTES", 20_000)
    log = opened(tmp_path)
    for number in range(1000):
        log.note(f"{number} " + "x" * 10_000)
    log.end(Outcome.ABORTED, "aborted: enough")
    assert (tmp_path / NAME).stat().st_size < 25_000
    lines = lines_of(tmp_path)
    assert len(lines[1]["message"]) == 2000
    assert (lines[-1]["outcome"], lines[-1]["exit_code"]) == ("aborted", 2)


def test_an_earlier_runs_file_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("of somebody else")
    (tmp_path / NAME).symlink_to(precious)
    for _ in range(2):
        opened(tmp_path).close()
        assert [line["event"] for line in lines_of(tmp_path)] == ["start"]
    assert precious.read_text() == "of somebody else"


@pytest.mark.parametrize("obstacle", ["folder", "no directory", "full disk"])
def test_nothing_that_goes_wrong_with_it_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    directory = tmp_path / "missing" if obstacle == "no directory" else tmp_path
    if obstacle == "folder":
        (tmp_path / NAME).mkdir()
    if obstacle == "full disk":

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.write", fail)
    log = opened(directory)
    log.stage("Reading", 10, "particles")
    log.advance(10)
    log.note("read")
    log.end(Outcome.SUCCESS, "")
