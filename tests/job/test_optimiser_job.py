"""An optimiser.star as input particles: what the job takes from it, and what stays the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.job.conftest import JOB, Run
from tests.job.project import Project, write_mrc

pytestmark = pytest.mark.usefixtures("_stand_in")
RunJob = Callable[..., Run]
OPTIMISER = "Refine3D/job005/run_it015_optimiser.star"
MASK = "MaskCreate/job006/mask.mrc"


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
    told = f"From {OPTIMISER}: --in_parts Refine3D/job005/run_it015_data.star, --in_mask {MASK}, --sym D2."
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
        ({"rlnDoCorrectCtf": "0"}, "with rlnCtfDataAreCtfCorrected 1"),
        ({"rlnCtfDataArePhaseFlipped": "1"}, "with rlnCtfDataArePhaseFlipped 1"),
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
