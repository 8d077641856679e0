"""The page of results says what the result files say, and that what is not in them is missing."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from machine import portable, to_json
from paired import summary
from results_page import page, write_page
from results_tables import crossings, mean_and_spread, stated

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "python": "3.12", "packages": {"numpy": "2.4"}}


def cell(seed: int, ours: float, **changes: Any) -> dict[str, Any]:
    scores = {
        "relion_reconstruct": {"mean_fsc_to_truth": 0.5, "truth_crossing": 6.0},
        "ours, model-free": {"mean_fsc_to_truth": 0.55, "truth_crossing": 5.5},
        "ours": {"mean_fsc_to_truth": ours, "truth_crossing": None},
    }
    return {
        "molecule": "small",
        "column": "exact",
        "signal_to_noise": 0.05,
        "seed": seed,
        "n_particles": 100,
        "fit": "collapsed",
        "commit": "abc1234",
        "threads": 1,
        "scores": scores,
        "share_closed": (ours - 0.5) / 0.5,
        "seconds": {"relion_reconstruct": 2.0, "ours": 20.0},
        "statement": "Resolution: 4.00 Angstrom",
        "warnings": [],
        "reference": {"n_images": 0, "last_shell": 4},
        "resolution": {"printed_resolution": 4.0, "is_claimed": True, "is_true": True},
        "fsc_to_truth": {"relion_reconstruct": [1, 0.9, 0.4, 0.1, 0], "ours": [1, 0.95, 0.8, 0.7, 0.6]},
        "bands": {"c_full": [0.9, 0.7, None], "standard_error": [0.01, 0.02, None], "fsc_to_truth": [0.89, 0.75, 0.5]},
        **changes,
    }


def quality(*cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "commit": "abc1234",
        "machine": MACHINE,
        "pose_errors": "3 degrees and 1 px",
        "columns": ["exact", "errors", "solvent"],
        "signal_to_noise": [0.05, 0.2],
        "seeds": [7, 8, 9],
        "n_particles": 100,
        "pixel_size_in_angstroms": 1.5,
        "molecules": [{"name": "small", "title": "a small one", "box_size_px": 8, "symmetry": "C1"}],
        "cells": list(cells),
    }


def rows_of(text: str, section: str) -> list[list[str]]:
    part = text.split(section, 1)[1].split("\n#", 1)[0]
    return [[word.strip() for word in line.strip("|").split("|")] for line in part.splitlines() if line[:2] == "| "][1:]


def test_a_row_holds_means_and_spread_over_the_seeds_that_were_run() -> None:
    text = page({"quality": quality(cell(7, 0.7), cell(8, 0.8))}, [])
    run, missing = rows_of(text, "### Exact poses")
    assert run[:5] == ["small (C1, box 8)", "0.05", "2 of 3", "0.500 ± 0.000", "0.550 ± 0.000"]
    assert run[5:7] == ["**0.750 ± 0.071**", "50 ± 14"]
    assert run[7:] == ["6.00", "not crossed", "4.00", "2 of 2"]
    assert missing[1:3] == ["0.2", "0 of 3"]
    assert set(missing[3:]) == {"missing"}
    assert "**2 of 18 cells of the grid were run**, at commit abc1234 (2 cells)" in text


def test_cells_of_other_columns_fits_and_sizes_do_not_enter_a_row() -> None:
    strangers = [
        cell(7, 0.9, column="solvent"),
        cell(7, 0.9, fit="images"),
        cell(7, 0.9, n_particles=5),
        cell(99, 0.9),
        cell(7, 0.9, signal_to_noise=0.2),
    ]
    text = page({"quality": quality(cell(7, 0.7), *strangers)}, [])
    run, other_ratio = rows_of(text, "### Exact poses")
    assert (run[2], run[5]) == ("1 of 3", "**0.700**")
    assert (other_ratio[2], other_ratio[5]) == ("1 of 3", "**0.900**")
    assert rows_of(text, "### A truth with solvent")[0][5] == "**0.900**"


def test_both_fits_are_set_side_by_side() -> None:
    text = page({"quality": quality(cell(7, 0.7), cell(7, 0.71, fit="images"))}, [])
    assert [(row[1], row[2]) for row in rows_of(text, "### The two ways of fitting")] == [
        ("collapsed", "0.7000"),
        ("images", "0.7100"),
    ]
    assert "`--fit images` was not run" in page({"quality": quality(cell(7, 0.7))}, [])


def test_calibration_is_of_the_bands_that_were_measured() -> None:
    row = rows_of(page({"quality": quality(cell(7, 0.7))}, []), "### Is the stated curve true?")[0]
    assert row == ["Exact poses", "2", "-0.020", "+0.010", "0"]
    wrong = cell(7, 0.7, bands={"c_full": [0.9], "standard_error": [0.01], "fsc_to_truth": [0.8]})
    assert rows_of(page({"quality": quality(wrong)}, []), "### Is the stated curve true?")[0][-1] == "100"


def test_the_shells_of_the_blurred_truth_and_warnings_are_said() -> None:
    errors = cell(7, 0.7, column="errors", reference={"n_images": 50, "last_shell": 3}, warnings=["beware"])
    text = page({"quality": quality(errors)}, [])
    assert "small 3 of 4 (4.0 Å, 50 images)" in text
    assert "* small, errors, SNR 0.05, seed 7: beware" in text


def test_without_result_files_the_page_says_so_and_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "quality.json").write_text('{"molecules": {"of": "an earlier form"}}')
    (tmp_path / "docs").mkdir()
    text = write_page(tmp_path / "results", tmp_path / "docs").read_text()
    assert text.count("Not run") == 6
    assert "![" not in text
    assert not re.search(r"\d\.\d\d", text)


def test_every_figure_that_the_page_shows_is_drawn_and_small(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "quality.json").write_text(json.dumps(quality(cell(7, 0.7), cell(8, 0.8))))
    (tmp_path / "docs").mkdir()
    text = write_page(tmp_path / "results", tmp_path / "docs").read_text()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert shown == ["figures/quality.png", "figures/calibration.png"]  # no cell at the ratio whose curves are drawn
    for figure in shown:
        content = (tmp_path / "docs" / figure).read_bytes()
        assert content[:4] == b"\x89PNG"
        assert 2_000 < len(content) < 200_000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([3.0, 4.0], "3.50"),
        ([None, None], "not crossed"),
        ([3.0, None], "3.00, not crossed in 1 of 2"),
        (["infinity"], "never above"),
        ([], "missing"),
    ],
)
def test_curves_that_do_not_cross_are_not_averaged_away(values: list[float | str | None], said: str) -> None:
    assert crossings(values) == said


def test_one_seed_has_no_spread() -> None:
    assert mean_and_spread([0.5], 2) == "0.50"
    assert mean_and_spread([], 2) == "missing"


def test_what_is_stated_is_a_number_the_end_or_nothing() -> None:
    def one(resolution: float | None, *, is_claimed: bool) -> dict[str, Any]:
        return {"resolution": {"printed_resolution": resolution, "is_claimed": is_claimed}}

    assert stated([one(4.0, is_claimed=True), one(5.0, is_claimed=True)]) == "4.50"
    assert stated([one(None, is_claimed=True)]) == "end of the data"
    assert stated([one(4.0, is_claimed=True), one(None, is_claimed=False)]) == "4.00, nothing in 1 of 2"


def test_result_files_are_json_with_a_line_for_each_cell() -> None:
    content = portable(
        {"a": {"b": 0.123456, "c": float("nan"), "d": float("inf")}, "cells": [{"x": [1, 2]}, {"x": []}]}
    )
    text = to_json(content)
    assert json.loads(text) == {"a": {"b": 0.1235, "c": None, "d": "infinity"}, "cells": [{"x": [1, 2]}, {"x": []}]}
    assert '    {"x": [1, 2]},\n    {"x": []}\n' in text


def test_paired_times_are_compared_within_pairs() -> None:
    figures = summary({"relion_reconstruct": [1.0, 2.0, 10.0], "ours": [5.0, 12.0, 40.0]})
    assert figures["median_ratio"] == 5.0
    assert figures["median_seconds"] == {"relion_reconstruct": 2.0, "ours": 12.0}


def test_the_margin_of_the_chosen_steps_is_listed() -> None:
    one = {"set": "small, SNR 0.05", "commit": "abc1234", "chosen_steps": [20, 24], "best_step": 30, "best": 0.8}
    row = {**one, "chosen": 0.798, "margin": 0.002}
    steps = {"date": "2026-01-01", "commit": "abc1234", "machine": MACHINE, "fits": 2, "sets": [row]}
    rows = rows_of(page({"steps": steps}, []), "## The number of steps")
    assert rows == [["small, SNR 0.05", "20 and 24", "0.7980", "30", "0.8000", "0.0020", "abc1234"]]
