"""The grid of the quality benchmark: its order, its names, and taking up a run that was stopped."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import quality
from cell import TARGETS, share_closed, verdicts
from grid import COLUMNS, SEEDS, SIGNAL_TO_NOISE, Cell, FinishedCells, all_cells
from our_job import JobResult
from resolution import Honesty, stated_shell

MOLECULES = ("cxcr4", "30S", "5a1a", "3c91")


def test_the_grid_is_complete_and_every_cell_has_a_name_of_its_own() -> None:
    cells = [cell for cell in all_cells() if cell.fit == "collapsed"]
    wanted = {(m, c, r, s) for m in MOLECULES for c in COLUMNS for r in SIGNAL_TO_NOISE for s in SEEDS}
    assert {(cell.molecule, cell.column, cell.signal_to_noise, cell.seed) for cell in cells} == wanted
    assert len(cells) == len(wanted) == 144
    few = all_cells(n_particles=300)
    assert len({cell.name for cell in (*all_cells(), *few)}) == len(all_cells()) + len(few)


def test_the_beginning_of_the_grid_is_useful_by_itself() -> None:
    cells = all_cells()
    assert {(cell.column, cell.seed) for cell in cells[:16]} == {("exact", 7)}
    assert {cell.molecule for cell in cells[:4]} == set(MOLECULES)
    assert [cell.column for cell in cells[:48:16]] == ["exact", "errors", "solvent"]
    assert {cell.seed for cell in cells[:49]} == {7}
    assert Cell("cxcr4", "exact", 0.015, 7, fit="images") in cells[:49]


def test_columns_share_images_only_where_the_truth_is_the_same() -> None:
    exact, errors, solvent = (Cell("30S", column, 0.05, 7) for column in ("exact", "errors", "solvent"))
    assert exact.images == errors.images == Cell("30S", "exact", 0.2, 7).images
    others = (
        Cell("30S", "exact", 0.05, 8),
        Cell("5a1a", "exact", 0.05, 7),
        Cell("30S", "exact", 0.05, 7, 300),
        solvent,
    )
    assert len({cell.images for cell in (exact, *others)}) == 5


def test_targets_are_set_for_cells_of_the_grid() -> None:
    names = [cell.name for cell in all_cells()]
    assert all(name in names for name in TARGETS)


def test_a_cell_is_finished_when_its_file_is_there_whole(tmp_path: Path) -> None:
    finished, cell = FinishedCells(tmp_path), Cell("cxcr4", "exact", 0.2, 7)
    (tmp_path / f"{cell.name}.part").write_text("{")
    assert cell not in finished
    finished.add(cell, {"value": float("nan")})
    assert cell in FinishedCells(tmp_path)
    assert Cell("cxcr4", "exact", 0.2, 7, n_particles=300) not in finished
    (found,) = finished.collect([Cell("cxcr4", "exact", 0.2, 8), cell])
    assert (found["molecule"], found["seed"], found["value"]) == ("cxcr4", 7, None)


FIGURES: dict[str, Any] = {
    "scores": {name: {"mean_fsc_to_truth": 0.5} for name in ("ours", "relion_reconstruct")},
    "seconds": {"ours": 1.0, "relion_reconstruct": 1.0},
    "share_closed": 0.0,
    "cell_seconds": 2.0,
    "warnings": [],
    "verdicts": {},
}


def run(tmp_path: Path, cells: list[Cell], reported: list[Cell]) -> quality.Run:
    arguments = Namespace(
        jobs=2, threads=1, workdir=tmp_path, keep_maps=False, data=tmp_path, reference_images=None, again=False
    )  # fmt: skip
    one = quality.Run(cells, arguments, tmp_path / "quality.json", reported)
    one.run_all()
    return one


def test_a_run_goes_on_where_it_was_and_a_failure_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [Cell("cxcr4", "exact", ratio, 7) for ratio in (0.05, 0.2, 0.005)]
    tried: list[Cell] = []

    def run_cell(cell: Cell, *_: Any, **__: Any) -> dict[str, Any]:
        tried.append(cell)
        if len(tried) < 4 and cell == cells[1]:
            raise SystemExit("the job failed")
        return FIGURES

    monkeypatch.setattr(quality, "run_cell", run_cell)
    first = run(tmp_path, cells, cells)
    assert first.failed == [cells[1]]
    assert len(json.loads((tmp_path / "quality.json").read_text())["cells"]) == 2
    assert "the job failed" in capsys.readouterr().err
    second = run(tmp_path, cells, cells)
    assert second.failed == []
    assert sorted(cell.signal_to_noise for cell in tried) == [0.005, 0.05, 0.2, 0.2]
    ratios = [cell["signal_to_noise"] for cell in json.loads((tmp_path / "quality.json").read_text())["cells"]]
    assert ratios == [0.05, 0.2, 0.005]


def test_cells_of_an_earlier_result_file_are_taken_over(tmp_path: Path) -> None:
    known, other = Cell("cxcr4", "exact", 0.2, 7), Cell("cxcr4", "exact", 0.2, 8)
    earlier = FinishedCells(tmp_path / "earlier")
    earlier.add(known, {"commit": "abc", "scores": {"ours": 0.9}})
    results = tmp_path / "quality.json"
    results.write_text(json.dumps({"cells": earlier.collect([known])}))
    finished = FinishedCells(tmp_path / "later")
    finished.take_over(tmp_path / "none.json", all_cells())
    assert not finished.collect(all_cells())
    finished.take_over(results, all_cells())
    assert known in finished
    assert other not in finished
    assert finished.collect(all_cells())[0]["commit"] == "abc"
    assert Cell("cxcr4", "exact", 0.2, 7, n_particles=300) not in finished
    finished.forget([known])
    assert known not in finished


def test_a_run_of_a_part_reports_the_rest_of_the_grid_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("cxcr4", "exact", ratio, 7) for ratio in (0.05, 0.2)]
    monkeypatch.setattr(quality, "run_cell", lambda *_, **__: FIGURES)
    run(tmp_path, cells[:1], cells)
    run(tmp_path, cells[1:], cells)
    assert len(json.loads((tmp_path / "quality.json").read_text())["cells"]) == 2


def figures_of_target(mean_fsc: float, seconds: float, *, is_true: bool | None = True) -> dict[str, Any]:
    return {
        "scores": {"ours": {"mean_fsc_to_truth": mean_fsc}},
        "resolution": {"is_true": is_true},
        "postprocess": {"agrees": True},
        "seconds": {"ours": seconds, "relion_reconstruct": 1.0},
    }


def test_time_is_judged_only_alone_and_quality_always() -> None:
    cell = Cell("cxcr4", "exact", 0.015, 7)
    slow = verdicts(cell, figures_of_target(0.92, 16.0), is_alone=True)
    assert [name for name, reached in slow.items() if not reached] == ["at most 15 times RELION's time"]
    assert all(verdicts(cell, figures_of_target(0.92, 16.0), is_alone=False).values())
    assert not all(verdicts(cell, figures_of_target(0.90, 1.0), is_alone=False).values())
    assert not all(verdicts(cell, figures_of_target(0.92, 1.0, is_true=None), is_alone=False).values())
    assert verdicts(Cell("cxcr4", "exact", 0.2, 7), {}, is_alone=True) == {}


def test_share_closed_is_of_relions_distance_to_one() -> None:
    assert share_closed(0.9, 0.8) == pytest.approx(0.5)
    assert share_closed(0.7, 0.8) == pytest.approx(-0.5)


def job(resolution: float | None, *, is_claimed: bool) -> JobResult:
    return JobResult(Path(), 1.0, resolution, is_claimed, [(1, 7), (8, 14), (15, 23)], {}, "", {}, [])


def test_a_statement_without_a_number_reaches_the_end_of_the_data_or_nowhere() -> None:
    assert stated_shell(job(6.0, is_claimed=True), 96.0) == pytest.approx(16.0)
    assert stated_shell(job(None, is_claimed=True), 96.0) == 23
    assert stated_shell(job(None, is_claimed=False), 96.0) == 0


@pytest.mark.parametrize(
    ("printed_shell", "true_shell", "is_true"),
    [(20.0, 20.0, True), (28.0, 20.0, False), (26.0, 20.0, True), (6.0, 20.0, True), (5.0, 20.0, False),
     (20.0, None, None)],
)  # fmt: skip
def test_a_statement_is_true_within_its_bounds(
    printed_shell: float, true_shell: float | None, is_true: bool | None
) -> None:
    honesty = Honesty(
        printed_resolution=144 / printed_shell,
        is_claimed=True,
        printed_shell=printed_shell,
        true_resolution=None if true_shell is None else 144 / true_shell,
        true_shell=true_shell,
        band_width_shells=7,
    )
    assert honesty.is_true is is_true


def test_targets_are_run_alone_from_the_start_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, bool]] = []

    def run_cell(cell: Cell, *_: Any, is_alone: bool, **__: Any) -> dict[str, Any]:
        ran.append((cell.molecule, is_alone))
        return {**FIGURES, "verdicts": {"good enough": cell.molecule == "30S" or len(ran) > 2}}

    monkeypatch.setattr(quality, "run_cell", run_cell)
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "results")
    model = tmp_path / quality.CXCR4_MAP
    model.parent.mkdir()
    model.touch()
    words = ["--targets", "--jobs", "2", "--data", str(tmp_path), "--workdir", str(tmp_path)]
    assert quality.run_targets(quality.parse(words)) is False
    assert ran == [("30S", True), ("cxcr4", True)]
    assert quality.run_targets(quality.parse(words)) is True
    assert len(ran) == 4
    assert len(json.loads((tmp_path / "results" / "targets.json").read_text())["cells"]) == 2


def test_options_choose_a_part_of_the_grid_in_its_order() -> None:
    arguments = quality.parse(["--list", "--only", "30S", "cxcr4", "--columns", "errors", "--snr", "0.2", "0.015"])
    chosen = quality.chosen_cells(arguments)
    assert [(cell.molecule, cell.signal_to_noise) for cell in chosen[:4]] == [
        ("cxcr4", 0.015),
        ("30S", 0.015),
        ("cxcr4", 0.2),
        ("30S", 0.2),
    ]
    assert len(chosen) == 4 * len(SEEDS)
    assert {cell.column for cell in chosen} == {"errors"}
