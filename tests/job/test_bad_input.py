"""Input that cannot be used: one clear line, the failure marker, exit 1, no results."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.job.conftest import JOB, Run, names_in
from tests.job.project import Project, write_mrc

pytestmark = pytest.mark.usefixtures("_stand_in")


def missing_table(project: Project) -> None:
    Path(project.table).unlink()


def missing_stack(project: Project) -> None:
    Path(project.stack).unlink()


def not_a_table(project: Project) -> None:
    Path(project.table).write_bytes(b"\x00\x01" * 500)


def truncated_stack(project: Project) -> None:
    content = Path(project.stack).read_bytes()
    Path(project.stack).write_bytes(content[: len(content) * 3 // 4])


def missing_column(label: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        del project.particles[label]
        project.write()

    return change


def index_out_of_range(project: Project) -> None:
    project.particles["rlnImageName"][7] = f"000041@{project.stack}"
    project.write()


def no_pixel(value: float) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        project.images[11, 5, 6] = value
        project.write()

    return change


def empty_half(project: Project) -> None:
    project.particles["rlnRandomSubset"] = ["1"] * len(project.particles["rlnRandomSubset"])
    project.write()


def no_particles(project: Project) -> None:
    project.drop(range(40))
    project.write()


def mixed_boxes(project: Project) -> None:
    write_mrc(Path("Extract/job003/other.mrcs"), project.images[:, :24, :24])
    project.particles["rlnImageName"][3] = "000001@Extract/job003/other.mrcs"
    project.write()


def tilt_series(project: Project) -> None:
    project.particles["rlnTomoName"] = ["TS_01"] * 40
    project.optics["rlnImageDimensionality"] = ["3"]
    project.write()


def helices(project: Project) -> None:
    project.particles["rlnHelicalTubeID"] = ["1"] * 40
    project.write()


def one_image_in_both_halves(project: Project) -> None:
    project.particles["rlnImageName"][1] = project.particles["rlnImageName"][0]
    project.write()


def a_word_for_a_number(project: Project) -> None:
    project.particles["rlnAngleTilt"][4] = "steep"
    project.write()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (missing_table, ["run_data.star"]),
        (not_a_table, ["run_data.star"]),
        (missing_stack, ["particles.mrcs"]),
        (missing_column("rlnAngleTilt"), ["run_data.star", "rlnAngleTilt"]),
        (missing_column("rlnDefocusU"), ["run_data.star", "rlnDefocusU"]),
        (missing_column("rlnImageName"), ["run_data.star", "rlnImageName"]),
        (truncated_stack, ["particles.mrcs"]),
        (index_out_of_range, ["particles.mrcs", "41", "40"]),
        (no_pixel(np.nan), ["particles.mrcs", "12"]),
        (no_pixel(np.inf), ["particles.mrcs", "12"]),
        (empty_half, ["run_data.star", "rlnRandomSubset"]),
        (no_particles, ["run_data.star"]),
        (mixed_boxes, ["other.mrcs", "24"]),
        (tilt_series, ["run_data.star", "tilt series"]),
        (helices, ["run_data.star", "helical"]),
        (one_image_in_both_halves, ["000001@"]),
        (a_word_for_a_number, ["run_data.star", "rlnAngleTilt", "steep"]),
    ],
)
def test_bad_input(
    project: Project, run: Callable[..., Run], spoil: Callable[[Project], None], expected: list[str]
) -> None:
    project.write()
    spoil(project)
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert len(result.err.splitlines()) == len(result.errors) == 1, result.err
    for words in expected:
        assert words in result.errors[0]
    assert names_in(JOB) == {"RELION_JOB_EXIT_FAILURE"}
