"""An optimiser.star as input particles: what the job takes from it, and what stays the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.particles import Particles, read_particles
from tests.job.conftest import JOB, Run
from tests.job.project import Project, write_mrc

pytestmark = pytest.mark.usefixtures("_stand_in")
RunJob = Callable[..., Run]
OPTIMISER = "Refine3D/job005/run_it015_optimiser.star"
MASK = "MaskCreate/job006/mask.mrc"
MODELS = tuple(f"Refine3D/job005/run_it015_half{half}_model.star" for half in (1, 2))


def write_optimiser(project: Project, command: str = "--sym D2", **values: str) -> None:
    """The project's files, with an optimiser.star of RELION 3.1 and a mask."""
    project.write()
    table = Path(project.table)
    table.rename(table.with_name("run_it015_data.star"))
    general = {
        "rlnOutputRootName": "Refine3D/job005/run",
        "rlnModelStarFile": "Refine3D/job005/run_it015_half1_model.star",
        "rlnModelStarFile2": "Refine3D/job005/run_it015_half2_model.star",
        "rlnExperimentalDataStarFile": "Refine3D/job005/run_it015_data.star",
        "rlnOrientSamplingStarFile": "Refine3D/job005/run_it015_sampling.star",
        "rlnSolventMaskName": MASK,
        "rlnDoCorrectCtf": "1",
        "rlnCtfDataArePhaseFlipped": "0",
    } | values
    text = f"# RELION optimiser; version 3.1.3\n# --o Refine3D/job005/run --auto_refine {command} --norm --scale\n\n"
    text += "data_optimiser_general\n\n" + "".join(f"_{name:<40} {value}\n" for name, value in general.items())
    Path(OPTIMISER).write_text(text)
    Path(MASK).parent.mkdir(parents=True)
    write_mrc(Path(MASK), np.ones_like(project.truth))


def settings() -> dict[str, object]:
    options = json.loads((JOB / "gem_config.json").read_text())["options"]
    assert isinstance(options, dict)
    return options


def test_an_optimiser_tells_table_mask_and_symmetry(project: Project, run: RunJob):
    write_optimiser(project)
    result = run(parts=OPTIMISER)
    assert (result.exit_code, result.err) == (0, "")
    found = settings()
    assert found["in_parts"] == "Refine3D/job005/run_it015_data.star"
    assert (found["in_mask"], found["sym"]) == (MASK, "D2")
    told = (
        f"From {OPTIMISER}: --in_parts Refine3D/job005/run_it015_data.star, not its model {MODELS[0]}, which is not "
        f"there (scales of groups and norm corrections are taken as 1), --in_mask {MASK}, --sym D2."
    )
    assert told in result.out


def test_the_users_own_options_stay(project: Project, run: RunJob):
    write_optimiser(project)
    write_mrc(Path("own.mrc"), np.ones_like(project.truth))
    result = run("--sym", "C1", "--in_mask", "own.mrc", parts=OPTIMISER)
    assert result.exit_code == 0
    assert (settings()["in_mask"], settings()["sym"]) == ("own.mrc", "C1")
    assert f"As given: --in_mask own.mrc instead of {MASK}, --sym C1 instead of D2." in result.out


def test_the_sampling_file_tells_the_symmetry_first(project: Project, run: RunJob):
    write_optimiser(project, rlnSolventMaskName="None")
    sampling = "\ndata_sampling_general\n\n_rlnIs3DSampling 1\n_rlnSymmetryGroup D7\n"
    Path("Refine3D/job005/run_it015_sampling.star").write_text(sampling)
    assert run(parts=OPTIMISER).exit_code == 0
    assert (settings()["in_mask"], settings()["sym"]) == (None, "D7")


def test_what_is_not_there_is_said(project: Project, run: RunJob):
    write_optimiser(project, command="")
    Path(MASK).unlink()
    Path("Refine3D/job005/run_it015_data.star").rename("Refine3D/job005/run_data.star")
    result = run(parts=OPTIMISER)
    assert result.exit_code == 0
    assert (settings()["in_parts"], settings()["in_mask"]) == ("Refine3D/job005/run_data.star", None)
    for words in ("as Refine3D/job005/run_it015_data.star is not there", f"not its mask {MASK}", "no symmetry, which"):
        assert words in result.out


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rlnExperimentalDataStarFile": "gone.star"}, "names the particle table gone.star, which is not there"),
        ({"rlnDoHelicalRefine": "1"}, "is of a refinement of helices"),
    ],
)
def test_refinements_that_cannot_be_followed_are_refused(
    project: Project, run: RunJob, values: dict[str, str], words: str
):
    write_optimiser(project, **values)
    result = run(parts=OPTIMISER)
    assert result.exit_code == 1
    assert len(result.errors) == 1
    assert words in result.errors[0]
    assert OPTIMISER in result.errors[0]


def write_models(names: tuple[str, ...], scale: float) -> None:
    """Models of the project's two micrographs; the second half's scales are twice the first's."""
    for number, name in enumerate(names, 1):
        groups = "".join(f"MotionCorr/job002/mic{i:03d}.mrc {scale * (i + 1) * number}\n" for i in range(2))
        loop = "data_model_groups\nloop_\n_rlnGroupName\n_rlnGroupScaleCorrection\n"
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"data_model_general\n\n_rlnNormCorrectionAverage 1\n\n{loop}{groups}")


@pytest.mark.parametrize("is_absolute", [False, True])
def test_the_models_that_it_names_are_read_wherever_they_lie(project: Project, run: RunJob, is_absolute: bool):
    """Others lie beside the particles, where they would be looked for without the optimiser.star."""
    elsewhere = tuple(name.replace("job005", "job099") for name in MODELS)
    named = tuple(str(Path(name).absolute()) for name in elsewhere) if is_absolute else elsewhere
    write_optimiser(project, rlnModelStarFile=named[0], rlnModelStarFile2=named[1])
    write_models(elsewhere, scale=0.7)
    write_models(MODELS, scale=3)
    result = run(parts=OPTIMISER)
    assert (result.exit_code, result.err) == (0, "")
    assert f"model {named[0]} and {named[1]}" in result.out
    assert f"From {named[0]} and {named[1]}: scales of the groups from 0.700 to 2.800" in result.out
    Path(elsewhere[1]).unlink()
    out = run(parts=OPTIMISER).out
    assert f"not its model {named[1]}, which is not there, but {MODELS[0]} and {MODELS[1]}" in out
    assert "beside the particles: scales of the groups from 3.000 to 12.000" in out


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        ({"rlnDoCorrectCtf": "0"}, "corrected", "did not correct for the CTF (run_it015_optimiser.star)"),
        ({"rlnCtfDataArePhaseFlipped": "1"}, "phase-flipped", "phases were flipped, as run_it015_optimiser.star says"),
        ({"rlnDoIgnoreCtfUntilFirstPeak": "1"}, "plain", "ignored the CTFs up to their first peak"),
        ({"rlnDoOnlyFlipCtfPhases": "1"}, "plain", "corrected the CTF's phases alone"),
    ],
)
def test_treated_images_are_taken_as_with_the_table_itself(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], state: str, words: str
):
    """With the optimiser.star moved away from its table, which then tells nothing of the images."""
    seen = []
    reading = read_particles

    def watched(*path: Path, **how: object) -> Particles:
        seen.append(reading(*path, **how).optics)
        return reading(*path, **how)

    monkeypatch.setattr("relion_external.inputs.read_particles", watched)
    write_optimiser(project, **values)
    beside = run(parts="Refine3D/job005/run_it015_data.star")
    moved = Path("Copies/run_it015_optimiser.star")
    moved.parent.mkdir()
    Path(OPTIMISER).rename(moved)
    named = run(parts=str(moved))
    alone = run(parts="Refine3D/job005/run_it015_data.star")
    assert (beside.exit_code, named.exit_code, alone.exit_code) == (0, 0, 0)
    assert words in beside.out
    assert words in named.out
    assert words not in alone.out
    is_intact = "rlnDoIgnoreCtfUntilFirstPeak" in values
    assert [(o.ctf_state, o.ctf_is_intact_to_first_peak) for o in seen] == [(state, is_intact)] * 2 + [("plain", False)]


def test_files_beside_a_table_of_another_name_are_told_to_be_left(project: Project, run: RunJob):
    project.write()
    table = Path(project.table)
    table = table.rename(table.with_name("particles.star"))
    assert "are left alone" not in run(parts=str(table)).out
    write_models((str(table.with_name("run_model.star")),), scale=0.7)
    out = run(parts=str(table)).out
    assert "(run_model.star) are left alone, as particles.star is not named ..._data.star" in out
    assert "scales of the groups" not in out
    out = run(parts=str(table.rename(table.with_name("run_data.star")))).out
    assert "From run_model.star beside the particles: scales of the groups from 0.700 to 1.400" in out


def test_another_symmetry_or_file_is_refused(project: Project, run: RunJob):
    write_optimiser(project, command="--sym X9")
    assert "symmetry X9, which is not known. Give --sym" in run(parts=OPTIMISER).errors[0]
    Path(OPTIMISER).write_text("data_job\n\n_rlnJobType 99\n")
    assert "is not an optimiser.star" in run(parts=OPTIMISER).errors[0]


def test_the_first_particles_are_said(project: Project, run: RunJob):
    project.write()
    result = run("--max_particles", "30")
    assert result.exit_code == 0
    assert "The first 30 of 40 particles are used (--max_particles)." in result.out
    rows = [line for line in (JOB / "run_data.star").read_text().splitlines() if "@" in line]
    assert len(rows) == 30
