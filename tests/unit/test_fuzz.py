"""Damaged files are read or refused with a sentence: some of benchmarks/fuzz.py's."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fuzz import DAMAGES, READERS, Tally, fuzz, read_all
from fuzz_files import write_seeds


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_files_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    tally = fuzz(200, seed, tmp_path)
    assert tally.defects == []
    kinds = Counter(dict.fromkeys(READERS, 0))
    for outcome, count in tally.outcomes.items():
        kinds[outcome.split(":")[0]] += count
    assert set(kinds.values()) == {50}
    assert all(tally.outcomes[f"{kind}: refused"] > 20 for kind in READERS)


def test_the_fuzzer_begins_with_whole_files(tmp_path: Path) -> None:
    """Otherwise nothing would be met far in, and all would be well."""
    for kind, files in write_seeds(tmp_path).items():
        for name, _ in files:
            READERS[kind](tmp_path, tmp_path / name)
    read_all(tmp_path, tmp_path / "new.star")


def test_the_fuzzer_sees_what_is_no_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(folder: Path, path: Path) -> None:
        np.frombuffer(path.read_bytes()[:7])  # never a whole number of doubles

    monkeypatch.setitem(READERS, "map", careless)
    tally = fuzz(8, 1, tmp_path)
    assert isinstance(tally, Tally)
    assert len(tally.defects) == tally.outcomes["map: defect"] > 0
    assert all("ValueError" in defect for defect in tally.defects)
    assert len(list(tmp_path.glob("defect_map_*"))) == len(tally.defects)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    assert fuzz(40, 5, tmp_path / "a").outcomes == fuzz(40, 5, tmp_path / "b").outcomes
    assert set(DAMAGES) == set(READERS)
