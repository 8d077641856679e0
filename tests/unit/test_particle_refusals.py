"""Bad tables: one sentence that says what is wrong, where, and what to do."""

import re
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.particles import read_particles
from tests.unit.small_project import BOX_SIZE_PX, STACKS, SmallProject, write_mrc


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


def message_of(project: SmallProject, class_number: int = 0) -> str:
    with pytest.raises(InputError) as caught:
        project.read(class_number)
    message = str(caught.value)
    assert "\n" not in message
    assert str(project.root) in message  # a file is named
    return message


@pytest.mark.parametrize(
    "column",
    ["rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusU"],
)
def test_a_missing_particle_column_is_named(project: SmallProject, column: str) -> None:
    del project.particles[column]
    assert f"no column {column} in data_particles" in message_of(project)


@pytest.mark.parametrize("column", ["rlnVoltage", "rlnSphericalAberration", "rlnOpticsGroup"])
def test_a_missing_optics_column_is_named(project: SmallProject, column: str) -> None:
    del project.optics[column]
    assert f"no column {column} in data_optics" in message_of(project)


def test_a_missing_pixel_size_is_named(project: SmallProject) -> None:
    del project.optics["rlnImagePixelSize"]
    assert "no pixel size in data_optics; expected rlnImagePixelSize" in message_of(project)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1.2.3", "text"])
@pytest.mark.parametrize(
    "column",
    ["rlnAngleRot", "rlnAnglePsi", "rlnOriginXAngst", "rlnDefocusU", "rlnDefocusV", "rlnPhaseShift", "rlnCtfBfactor"],
)
def test_a_value_that_is_no_finite_number_names_the_particle(project: SmallProject, column: str, value: str) -> None:
    project.particles[column][3] = value
    message = message_of(project)
    assert column in message
    assert f"row 4 of data_particles (image {project.particles['rlnImageName'][3]})" in message


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("rlnEvenZernike", "[a,b]", "expected numbers as in"),
        ("rlnImageDimensionality", 3, "tilt series or subtomograms"),
        ("rlnImageSize", 10, f"images of {BOX_SIZE_PX} x {BOX_SIZE_PX} pixels, but data_optics"),
        ("rlnVoltage", 0, "expected kilovolts"),
        ("rlnAmplitudeContrast", 1, "expected a value between 0 and 1"),
        ("rlnImagePixelSize", "-1", "expected Angstrom a pixel"),
        ("rlnOpticsGroup", 2, "0 rows for rlnOpticsGroup 1"),
    ],
)
def test_an_optics_value_that_cannot_be_used_is_refused(
    project: SmallProject, column: str, value: object, words: str
) -> None:
    project.optics[column] = [value]
    message = message_of(project)
    assert column in message
    assert words in message


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (
            "rlnOpticsGroup",
            [1, 2, 1, 1, 1, 1],
            "data_optics has 0 rows for rlnOpticsGroup 2, which the particles use; expected one",
        ),
        ("rlnRandomSubset", [1, 2, 3, 1, 2, 1], "rlnRandomSubset is 3 in row 3"),
        ("rlnRandomSubset", [0, 2, 1, 1, 2, 1], "rlnRandomSubset is 0 in row 1"),
        ("rlnRandomSubset", [1] * 6, "no particle in half set 2"),
        ("rlnRandomSubset", [2] * 6, "no particle in half set 1"),
        ("rlnRandomSubset", [1, 1, 1, 2, 1, 1], "has 1 particle in half set 2"),
        ("rlnHelicalTubeID", [0, 0, 1, 0, 0, 0], "helical segments (rlnHelicalTubeID"),
        ("rlnHelicalTrackLengthAngst", ["0", "5.5"] * 3, "helical segments (rlnHelicalTrackLengthAngst"),
        ("rlnTomoName", ["TS_01"] * 6, "tilt series or subtomograms (rlnTomoName)"),
        ("rlnTomoParticleName", ["TS_01/1"] * 6, "tilt series or subtomograms (rlnTomoParticleName)"),
        (
            "rlnClassNumber",
            [1, 1, 3, 3, 3, 3],
            "several classes: 1 (2 particles), 3 (4 particles). Choose one with --class",
        ),
        ("rlnClassNumber", [1, 1, 1.5, 1, 1, 1], "rlnClassNumber is 1.5 in row 3"),
        ("rlnClassNumber", [1, 1, 1, "1e300", 1, 1], "rlnClassNumber is 1e300 in row 4"),
    ],
)
def test_particle_values_that_cannot_be_used_are_refused(
    project: SmallProject, column: str, values: list[object], words: str
) -> None:
    project.particles[column] = values
    assert words in message_of(project)


def test_a_class_that_is_not_there_is_refused(project: SmallProject) -> None:
    assert "no particle of class 2. It holds 1 (6 particles)" in message_of(project, class_number=2)
    del project.particles["rlnClassNumber"]
    assert "no column rlnClassNumber" in message_of(project, class_number=2)


def test_an_empty_half_after_the_choice_of_class_is_refused(project: SmallProject) -> None:
    project.particles["rlnClassNumber"] = [2, 1, 1, 2, 1, 2]
    message = message_of(project, class_number=2)
    assert "no particle in half set 2 (rlnRandomSubset 2) among the 3 particles used" in message


@pytest.mark.parametrize("subsets", [[1, 2, 2, 1, 2, 1], [1, 2, 1, 1, 2, 2]])
def test_the_same_image_twice_is_refused(project: SmallProject, subsets: list[object]) -> None:
    project.particles["rlnRandomSubset"] = subsets
    project.particles["rlnImageName"][2] = project.particles["rlnImageName"][0]
    where = "both half sets" if subsets[0] != subsets[2] else "half set 1 twice"
    message = message_of(project)
    assert f"the same image is in {where}: row 1 of" in message
    assert "row 3 of" in message


def test_an_image_in_both_half_sets_is_told_before_one_that_counts_twice(project: SmallProject) -> None:
    project.particles["rlnImageName"] = [f"{number}@{STACKS[0]}" for number in (1, 1, 2, 2, 3, 3)]
    project.particles["rlnRandomSubset"] = [1, 1, 1, 2, 2, 2]
    message = message_of(project)
    assert "the same image is in both half sets: row 3 of" in message
    assert "row 4 of" in message


def test_the_same_image_under_two_names_is_recognised(project: SmallProject) -> None:
    (project.root / "link.mrcs").symlink_to(project.root / STACKS[0])
    project.particles["rlnImageName"][2] = "3@link.mrcs"
    assert "the same image is in both half sets" in message_of(project)


@pytest.mark.parametrize("name", ["x@y.mrcs", "-1@y.mrcs", "3@", "@y.mrcs", "1.5@y.mrcs", "1_0@y.mrcs"])
def test_a_malformed_image_name_is_refused(project: SmallProject, name: str) -> None:
    project.particles["rlnImageName"][1] = name
    assert f"rlnImageName is {name} in row 2" in message_of(project)


@pytest.mark.parametrize("number", [0, 4, 999999])
def test_an_index_out_of_range_is_refused(project: SmallProject, number: int) -> None:
    project.particles["rlnImageName"][4] = f"{number:06d}@{STACKS[1]}"
    message = message_of(project)
    assert f"asks for image {number} of {project.root / STACKS[1]}, which holds images 1 to 3" in message


def test_a_missing_stack_names_its_particle(project: SmallProject) -> None:
    (project.root / STACKS[1]).unlink()
    message = message_of(project)
    assert f"{project.root / STACKS[1]} does not exist" in message
    assert "row 2 of data_particles" in message
    assert "relative to the RELION project directory" in message


def test_other_boxes_are_refused(project: SmallProject) -> None:
    del project.optics["rlnImageSize"]
    write_mrc(project.root / STACKS[1], np.zeros((3, 10, 10)))
    assert "expected one box size" in message_of(project)
    write_mrc(project.root / STACKS[1], np.zeros((3, 8, 10)))
    assert "10 x 8 pixels; expected square images" in message_of(project)
    write_mrc(project.root / STACKS[1], np.zeros((3, 9, 9)))
    project.optics["rlnImageSize"] = [BOX_SIZE_PX]
    assert "says rlnImageSize 8" in message_of(project)


def test_a_truncated_stack_is_refused_before_any_image_is_read(project: SmallProject) -> None:
    path = project.root / STACKS[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} is truncated" in message_of(project)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "found no table"),
        ("nothing to see\n", "found no table"),
        ("data_general\n\n_rlnA 1\n", "found data_general"),
        ("data_optics\n\nloop_\n_rlnA #1\n1 2\n", "is not a STAR file that can be read"),
        ("data_optics\n\nloop_\n_rlnA #1\n_rlnB #2\n1 2\n1 2 3\n", "is not a STAR file that can be read"),
        ("data_optics\n\nloop_\n_rlnA #1\n_rlnA #2\n1 2\n", "has the column rlnA twice"),
        ("data_optics\n\n_rlnA\n", "is not a STAR file that can be read"),
        (b"\x80\x81\xfe\xff" * 100, "it is not text"),
    ],
)
def test_files_that_are_no_particle_table_are_refused(project: SmallProject, content: str | bytes, words: str) -> None:
    project.table_path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_particles(project.table_path, project_directory=project.root)
    assert str(project.table_path) in str(caught.value)


def test_empty_and_missing_tables_are_refused(project: SmallProject) -> None:
    for values in project.particles.values():
        values.clear()
    assert "data_particles is empty" in message_of(project)
    with pytest.raises(InputError, match=r"nowhere\.star cannot be read: No such file"):
        read_particles(project.root / "nowhere.star")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_particles(project.root)


def test_a_table_cut_in_the_middle_of_a_row_is_refused(project: SmallProject) -> None:
    text = project.write().read_text().rstrip()
    project.table_path.write_text(text[: text.rindex("  ")])
    with pytest.raises(
        InputError, match=r"row 6 of data_particles \(.*\) has fewer values than the table has columns \(16\)"
    ):
        read_particles(project.table_path, project_directory=project.root)
