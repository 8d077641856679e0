"""What 'gem-external check' and the head of a run say of a selection, its halves and its shifts."""

from collections.abc import Callable

import pytest

from relion_external.job import main
from tests.job.conftest import Run
from tests.job.project import Project

RunJob = Callable[..., Run]


def check(project: Project, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a check of the project."""
    project.write()
    capfd.readouterr()
    exit_code = main(["check", "--in_parts", project.table, "--j", "1", *words])
    said = capfd.readouterr()
    return exit_code, said.out, said.err


@pytest.mark.usefixtures("_stand_in")
def test_a_selection_of_too_few_particles_is_refused_before_anything_is_run(
    project: Project, run: RunJob, capfd: pytest.CaptureFixture[str]
):
    """The stand-in would run on anything."""
    project.particles["rlnRandomSubset"] = ["1", "2", "1", "2", *project.particles["rlnRandomSubset"][4:]]
    words = "has 1 particle in half set 2 (rlnRandomSubset 2) among the 3 particles used"
    exit_code, _, err = check(project, capfd, "--max_particles", "3")
    assert exit_code == 1
    assert words in err
    result = run("--max_particles", "3")
    assert result.exit_code == 1
    assert words in result.errors[0]
    assert run("--max_particles", "4").exit_code == 0


@pytest.mark.usefixtures("_stand_in")
def test_halves_that_are_made_here_are_told(project: Project, run: RunJob, capfd: pytest.CaptureFixture[str]):
    words = "has no rlnRandomSubset: the particles are split into halves here"
    assert words not in check(project, capfd)[1]
    del project.particles["rlnRandomSubset"]
    assert words in check(project, capfd)[1]
    assert words in run().out


def test_huge_shifts_are_told(project: Project, capfd: pytest.CaptureFixture[str]):
    """The box is 64 Angstrom wide."""
    project.particles["rlnOriginXAngst"][5] = "31.0"
    assert "beyond half the box" not in check(project, capfd)[1]
    project.particles["rlnOriginXAngst"][5] = "-33.0"
    exit_code, out, _ = check(project, capfd)
    assert exit_code == 0
    assert "warning: 1 of 40 particles have an rlnOriginXAngst or rlnOriginYAngst beyond half the box (32" in out
    assert "the first is particle 6" in out
    project.particles["rlnOriginXAngst"] = ["-33.0"] * 40
    exit_code, _, err = check(project, capfd)
    assert exit_code == 1
    assert "40 of 40 particles" in err
