"""docs/inputs.md says of every column what the code does with it."""

import re
from pathlib import Path

import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.columns import COLUMNS, canonical_name
from gem_plugin.io.optics_table import CTF_STATES, MAGNIFICATION_COLUMNS, PIXEL_SIZE_COLUMNS
from gem_plugin.io.relion30 import LENGTHS
from gem_plugin.io.supported import HELIX_COLUMNS, TOMOGRAPHY_COLUMNS
from gem_plugin.io.tables import DEFAULTS, HARMLESS
from tests.unit.small_project import SmallProject

ROOT = Path(__file__).parents[2]
OF_OTHER_FILES = ("model_star.py", "refinement_files.py", "mtf.py")  # read no particles and no optics
ROW = re.compile(r"\| `(rln\w+)` \| (\w+) \| (\w+) \| (.+) \|")


def test_the_page_and_the_list_are_one() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text()
    assert [row.groups() for row in map(ROW.fullmatch, page.splitlines()) if row] == [
        (label, *column) for label, column in COLUMNS.items()
    ]


def test_every_label_that_the_reading_code_names_is_in_the_list() -> None:
    """Labels are looked for in the sources of the reading room, so that a new use cannot be left out."""
    for path in (ROOT / "gem_plugin" / "io").glob("*.py"):
        if path.name in OF_OTHER_FILES:
            continue
        for label in re.findall(r"[\"'\[](rln[A-Z]\w+)[\"'\]]", path.read_text()):
            assert label in COLUMNS, f"{path.name} names {label}"


@pytest.mark.parametrize(
    ("labels", "treatment"),
    [
        (
            [*CTF_STATES, *MAGNIFICATION_COLUMNS, *PIXEL_SIZE_COLUMNS, *DEFAULTS, *LENGTHS.values()],
            "used copied refused",
        ),
        ([*LENGTHS], "converted"),
        ([*HARMLESS, *TOMOGRAPHY_COLUMNS], "refused"),
        ([*HELIX_COLUMNS], "refused converted"),
    ],
)
def test_the_treatments_are_those_of_the_code(labels: list[str], treatment: str) -> None:
    for label in labels:
        assert COLUMNS[label].treatment in treatment.split()


@pytest.mark.parametrize("label", [label for label, column in COLUMNS.items() if column.treatment == "refused"])
def test_what_is_said_to_be_refused_is_refused(tmp_path: Path, label: str) -> None:
    project = SmallProject(tmp_path)
    table = project.optics if COLUMNS[label].place == "optics" else project.particles
    table[label] = [5] * len(table["rlnOpticsGroup"])
    with pytest.raises(InputError, match=label):
        project.read()


def test_labels_are_found_in_any_case_and_are_distinct() -> None:
    assert len({label.lower() for label in COLUMNS}) == len(COLUMNS)
    assert canonical_name("RLNctfbfactor") == "rlnCtfBfactor"
    assert canonical_name("rlnSomethingNew") == "rlnSomethingNew"
