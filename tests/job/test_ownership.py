"""A directory that is not ours, or an input in it: one line, exit 1, and not a byte changes there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relion_external.job import main
from tests.job.conftest import JOB, Run
from tests.job.project import Project

pytestmark = pytest.mark.usefixtures("_stand_in")
RunJob = Callable[..., Run]
OTHER = Path("Refine3D/job005")  # holds the particle table


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_refused(result: Run, directory: Path, before: dict[str, bytes], *expected: str) -> None:
    assert result.exit_code == 1
    assert len(result.err.splitlines()) == len(result.errors) == 1, result.err
    for words in expected:
        assert words in result.errors[0]
    assert content(directory) == before


def assert_failed_there(result: Run, directory: Path, before: dict[str, bytes], *expected: str) -> None:
    """In the job's own directory RELION has to learn of it; nothing else changes."""
    after = content(directory)
    assert after.pop("RELION_JOB_EXIT_FAILURE") == b""
    del after["gem_progress.jsonl"]
    before.pop("gem_progress.jsonl", None)
    assert {name: data for name, data in before.items() if not name.startswith("RELION_JOB_EXIT")} == after
    assert result.markers == ["RELION_JOB_EXIT_FAILURE"]
    assert (result.exit_code, len(result.errors), len(result.err.splitlines())) == (1, 1, 1)
    for words in expected:
        assert words in result.errors[0]


def job_star(directory: Path, job_type: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job.star").write_text(f"\n# version 30001\n\ndata_job\n\n{job_type}\n_rlnJobIsContinue 0\n")


@pytest.mark.parametrize("words", [[], ["--no_such_option", "5"]])
def test_the_directory_of_the_refinement(project: Project, run: RunJob, words: list[str]):
    """Its table and its markers stay, also when the command line is wrong besides."""
    project.write()
    (OTHER / "RELION_JOB_EXIT_SUCCESS").touch()
    before = content(OTHER)
    assert_refused(run(*words, job=OTHER), OTHER, before, "Refine3D/job005", "run_data.star")


@pytest.mark.parametrize(
    "name", ["run_class001.mrc", "run_half1_class001_unfil.mrc", "model_free_half2.mrc", "logfile.pdf", "gem_mask.mrc"]
)
def test_a_result_of_somebody_else(project: Project, run: RunJob, name: str):
    project.write()
    JOB.mkdir(parents=True)
    (JOB / name).write_text("precious")
    (JOB / "RELION_JOB_EXIT_ABORTED").touch()
    assert_refused(run(), JOB, content(JOB), name, str(JOB))


@pytest.mark.parametrize(
    ("job_type", "is_ours"),
    [
        ("_rlnJobType 10", False),
        ("_rlnJobTypeLabel relion.refine3d", False),
        ("_rlnJobType 99", True),
        ("_rlnJobTypeLabel             relion.external", True),
    ],
)
def test_the_type_in_job_star(project: Project, run: RunJob, job_type: str, is_ours: bool):
    """As RELION 3.1 and RELION 4 write it; a refinement that has not written a result yet is one already."""
    project.write()
    job_star(JOB, job_type)
    before = content(JOB)
    result = run()
    if is_ours:
        assert (result.exit_code, result.markers) == (0, ["RELION_JOB_EXIT_SUCCESS"])
    else:
        assert_refused(result, JOB, before, job_type.split()[1], str(JOB))


@pytest.mark.parametrize("spelling", [f"{JOB}/run_data.star", "link/run_data.star", "linked.star"])
def test_an_input_that_would_be_overwritten(project: Project, run: RunJob, spelling: str):
    """The table of an earlier run of ours, under each name that leads to it."""
    project.write()
    assert run().exit_code == 0
    Path("link").symlink_to(JOB)
    Path("linked.star").symlink_to(JOB / "run_data.star")
    before = content(JOB)
    assert_failed_there(run(parts=spelling), JOB, before, "--in_parts", spelling)


@pytest.mark.parametrize(("option", "name"), [("--in_mask", "gem_mask.mrc"), ("--in_3dref", "run_class001.mrc")])
def test_a_mask_or_reference_that_would_be_overwritten(project: Project, run: RunJob, option: str, name: str):
    project.write()
    assert run().exit_code == 0
    before = content(JOB)
    assert_failed_there(run(option, str(JOB / name)), JOB, before, option, name)


def test_a_result_of_somebody_else_in_the_directory_that_relion_made_for_us(project: Project, run: RunJob):
    project.write()
    job_star(JOB, "_rlnJobType 99")
    (JOB / "run_class001.mrc").write_text("precious")
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    before = content(JOB)
    assert_failed_there(run(), JOB, before, "run_class001.mrc")


def test_an_input_under_another_name_may_lie_there(project: Project, run: RunJob):
    """As when the project is a single folder."""
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "mine.star").write_bytes(Path(project.table).read_bytes())
    assert run(parts=str(JOB / "mine.star")).exit_code == 0


def test_check_refuses_it_too(project: Project, capfd: pytest.CaptureFixture[str]):
    project.write()
    assert main(["check", "--o", f"{OTHER}/", "--in_parts", project.table]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1
