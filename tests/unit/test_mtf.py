"""Detectors' MTFs: read where they are needed, refused where they cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.mtf import read_detector_responses
from tests.unit.small_project import SmallProject, table_text


def write_mtf(path: Path, *values: float, frequencies: tuple[float, ...] = ()) -> None:
    points = frequencies or np.linspace(0, 0.5, len(values)).tolist()
    path.write_text(table_text("mtf", {"rlnResolutionInversePixel": points, "rlnMtfValue": values}))


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    """Two groups on two detectors."""
    project = SmallProject(tmp_path)
    project.optics = {name: values * 2 for name, values in project.optics.items()} | {
        "rlnOpticsGroup": [1, 2],
        "rlnMtfFileName": ["one.star", "two.star"],
        "rlnMicrographOriginalPixelSize": ["1.25", "0.625"],
    }
    project.particles["rlnOpticsGroup"] = [1 + row % 2 for row in range(6)]
    stacks = ["mic1.mrcs", "mic2.mrcs"]
    numbers = {1: iter((1, 2, 3)), 2: iter((1, 2, 3))}
    project.particles["rlnImageName"] = [
        f"{next(numbers[group])}@Extract/job003/{stacks[group - 1]}" for group in project.particles["rlnOpticsGroup"]
    ]
    write_mtf(tmp_path / "one.star", 1.0, 0.6, 0.2)
    write_mtf(tmp_path / "two.star", 1.0, 0.8)
    return project


def test_each_group_has_its_detector_at_the_original_pixels(project: SmallProject) -> None:
    first, second = project.read().detector_responses
    np.testing.assert_allclose(first.at(np.array([0, 0.1, 0.4, 9.0])), [1.0, 0.8, 0.2, 0.2])
    np.testing.assert_allclose(second.at(np.array([0.4, 0.8])), [0.9, 0.8])


@pytest.mark.parametrize("names", [["one.star", "one.star"], ["gone.star", "gone.star"]])
def test_one_detector_is_not_even_read(project: SmallProject, names: list[object]) -> None:
    project.optics["rlnMtfFileName"] = names
    assert project.read().detector_responses == ()


def message_of(project: SmallProject) -> str:
    with pytest.raises(InputError) as caught:
        project.read()
    return str(caught.value)


def test_what_is_missing_is_named(project: SmallProject) -> None:
    project.optics["rlnMtfFileName"] = ["one.star", "gone.star"]
    assert "gone.star cannot be read" in message_of(project)
    project.optics["rlnMtfFileName"] = ["one.star", "None"]
    assert "names no MTF (rlnMtfFileName) and others do" in message_of(project)
    project.optics["rlnMtfFileName"] = ["one.star", "two.star"]
    del project.optics["rlnMicrographOriginalPixelSize"]
    assert "without the micrographs' pixel size" in message_of(project)


@pytest.mark.parametrize(
    ("values", "frequencies", "words"),
    [
        ((1.0, 0.0), (), "rlnMtfValue falls to 0"),
        ((1.0, 0.5), (0.5, 0.0), "does not ascend"),
        ((1.0,), (), "does not ascend"),
    ],
)
def test_an_mtf_that_cannot_be_divided_by_is_refused(
    project: SmallProject, values: tuple[float, ...], frequencies: tuple[float, ...], words: str
) -> None:
    write_mtf(project.root / "two.star", *values, frequencies=frequencies)
    assert words in message_of(project)


def test_a_file_without_the_columns_is_no_mtf(project: SmallProject) -> None:
    (project.root / "two.star").write_text(table_text("other", {"rlnMtfValue2": [1, 1]}))
    assert "two.star is not an MTF" in message_of(project)


def test_no_groups_no_detectors(tmp_path: Path) -> None:
    assert read_detector_responses((), tmp_path) == ()
