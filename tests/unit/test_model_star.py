"""What the refinement's files beside the particles tell: scale, norm, the state of the CTF; and when they are left."""

from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.particles import read_particles
from tests.unit.small_project import SmallProject, table_text

SCALES = {"mic1.mrc": 0.5, "mic2.mrc": 2.0}  # of SmallProject's micrographs, which take turns
NORMS = [0.8, 1.6, 0.4, 0.8, 0.8, 0.8]


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    project = SmallProject(tmp_path)
    project.particles["rlnGroupNumber"] = [1 + row % 2 for row in range(6)]
    project.particles["rlnNormCorrection"] = list(NORMS)
    return project


def write_model(
    project: SmallProject, name: str = "run_model.star", *, average: float = 0.8, factor: float = 1
) -> None:
    groups = {
        "rlnGroupNumber": [1, 2],
        "rlnGroupName": list(SCALES),
        "rlnGroupNrParticles": [3, 3],
        "rlnGroupScaleCorrection": [factor * scale for scale in SCALES.values()],
    }
    general = {"rlnOriginalImageSize": [8], "rlnNormCorrectionAverage": [average]}
    text = table_text("model_general", general) + table_text("model_groups", groups)
    (project.root / name).write_text(text)


def write_optimiser(project: SmallProject, name: str, **values: int) -> None:
    (project.root / name).write_text(table_text("optimiser_general", {f"rln{k}": [v] for k, v in values.items()}))


def test_scale_and_norm_are_each_particles(project: SmallProject) -> None:
    write_model(project)
    particles = project.read()
    np.testing.assert_allclose(particles.group_scale, [0.5, 2.0] * 3)
    np.testing.assert_allclose(particles.norm_factor, 0.8 / np.array(NORMS))
    assert "From run_model.star beside the particles: scales of the groups from 0.500 to 2.000" in particles.notes[-1]


def test_groups_are_found_by_number_wherever_they_stand(project: SmallProject) -> None:
    write_model(project)
    path = project.root / "run_model.star"
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("1  mic1"))
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    path.write_text("\n".join(lines) + "\n")
    np.testing.assert_allclose(project.read().group_scale, [0.5, 2.0] * 3)


def test_groups_are_found_by_name_where_particles_have_no_number(project: SmallProject) -> None:
    write_model(project)
    del project.particles["rlnGroupNumber"]
    np.testing.assert_allclose(project.read().group_scale, [0.5, 2.0] * 3)


def test_each_half_set_takes_its_own_model(project: SmallProject) -> None:
    project.write()
    table = project.table_path.rename(project.root / "run_it015_data.star")
    write_model(project, "run_it015_half1_model.star")
    write_model(project, "run_it015_half2_model.star", average=1.6, factor=3)
    write_model(project, factor=7)  # of another table
    particles = read_particles(table, project_directory=project.root)
    in_second = particles.half_set == 2
    np.testing.assert_allclose(particles.group_scale, np.array([0.5, 2.0] * 3) * np.where(in_second, 3, 1))
    np.testing.assert_allclose(particles.norm_factor, 0.8 / np.array(NORMS) * np.where(in_second, 2, 1))


def test_a_model_that_shares_no_name_with_the_particles_is_left_alone(project: SmallProject) -> None:
    """Its groups have the right numbers, but they are other micrographs."""
    write_model(project)
    path = project.root / "run_model.star"
    path.write_text(path.read_text().replace("mic1.mrc", "other1.mrc").replace("mic2.mrc", "other2.mrc"))
    particles = project.read()
    assert particles.group_scale is None
    assert any("calls the group other1.mrc that" in note for note in particles.notes)


def test_without_a_model_nothing_is_scaled(project: SmallProject) -> None:
    particles = project.read()
    assert particles.group_scale is None
    assert particles.norm_factor is None


def test_a_model_of_ones_is_nothing(project: SmallProject) -> None:
    write_model(project, average=0.8)
    project.particles["rlnNormCorrection"] = [0.8] * 6
    project.particles["rlnGroupNumber"] = [1] * 6
    project.particles["rlnMicrographName"] = ["MotionCorr/job002/mic1.mrc"] * 6
    write_model(project, factor=2)  # the one group's scale is 1
    particles = project.read()
    assert particles.group_scale is None
    assert particles.norm_factor is None


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("rlnGroupNumber", [1, 2, 1, 2, 1, 3], "has no group 3"),
        ("rlnGroupNumber", [1, 2, 1, 2, 1, 1], "calls the group mic1.mrc that"),
        ("rlnNormCorrection", [0.8, 0, 0.8, 0.8, 0.8, 0.8], "gives a factor of"),
        ("rlnNormCorrection", [0.8, -1, 0.8, 0.8, 0.8, 0.8], "gives a factor of"),
    ],
)
def test_a_model_of_other_particles_is_left_alone_and_told(
    project: SmallProject, column: str, values: list[object], words: str
) -> None:
    write_model(project)
    project.particles[column] = values
    particles = project.read()
    assert particles.group_scale is None
    assert particles.norm_factor is None
    assert "run_model.star beside the particles is left alone" in particles.notes[-1]
    assert words in particles.notes[-1]


@pytest.mark.parametrize("content", ["", "data_model_general\n\n_rlnOriginalImageSize 8\n", "data_x\nloop_\n_a\n'"])
def test_a_broken_model_is_left_alone(project: SmallProject, content: str) -> None:
    (project.root / "run_model.star").write_text(content)
    particles = project.read()
    assert particles.group_scale is None
    assert "is left alone" in particles.notes[-1]


def test_the_last_optimiser_tells_the_state_of_the_images(project: SmallProject) -> None:
    write_optimiser(project, "run_it002_optimiser.star", DoCorrectCtf=0, CtfDataArePhaseFlipped=0)
    write_optimiser(project, "run_it011_optimiser.star", DoCorrectCtf=1, CtfDataArePhaseFlipped=1)
    assert project.read().optics.ctf_state == "phase-flipped"
    write_optimiser(project, "run_it012_optimiser.star", DoCorrectCtf=1, CtfDataAreCtfPremultiplied=1)
    assert project.read().optics.ctf_state == "premultiplied"
    write_optimiser(project, "run_optimiser.star", DoCorrectCtf=0)
    particles = project.read()
    assert particles.optics.ctf_state == "corrected"
    assert "did not correct for the CTF (run_optimiser.star)" in particles.notes[-1]


def test_what_the_optics_table_says_of_the_images_wins(project: SmallProject) -> None:
    write_optimiser(project, "run_optimiser.star", CtfDataArePhaseFlipped=1)
    project.optics["rlnCtfDataAreCtfPremultiplied"] = [1]
    assert project.read().optics.ctf_state == "premultiplied"
