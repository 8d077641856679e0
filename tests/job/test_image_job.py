"""Whole jobs on images that are not as RELION leaves them: inverted, not normalised, of an odd box."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from tests.job.conftest import JOB, Run
from tests.job.project import PIXEL_SIZE_IN_ANGSTROMS, Project, make_project

QUICK = ("--steps", "8", "--n_gaussians", "60")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, n_particles=120)


def model_free(half: int = 1) -> NDArray[np.float32]:
    with mrcfile.open(JOB / f"model_free_half{half}.mrc") as file:
        return np.array(file.data)


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_black_particles_end_with_one_sentence_that_names_the_option(project: Project, run: Callable[..., Run]) -> None:
    project.images *= -1
    project.write()
    result = run(*QUICK)
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert len(result.errors) == 1
    assert "--invert_contrast" in result.errors[0]
    assert not list(JOB.glob("*.mrc"))


def test_the_option_makes_black_particles_white_and_white_ones_black(project: Project, run: Callable[..., Run]) -> None:
    project.images *= -1
    project.write()
    assert run(*QUICK, "--invert_contrast").exit_code == 0
    assert correlation(model_free(), project.truth) > 0.5
    project.images *= -1
    project.write()
    result = run(*QUICK, "--invert_contrast")
    assert result.exit_code == 1
    assert "leave --invert_contrast out" in result.errors[0]


def test_images_that_are_not_normalised_give_the_same_map(project: Project, run: Callable[..., Run]) -> None:
    project.write()
    assert run(*QUICK).exit_code == 0
    plain = model_free()
    project.images = 40 * project.images + np.float32(1000)
    project.write()
    result = run(*QUICK)
    assert result.exit_code == 0
    assert (result.out + result.err).count("background is not normalised") >= 1
    found = model_free()
    assert correlation(found, plain) > 0.99
    assert np.vdot(found, plain) / np.vdot(plain, plain) == pytest.approx(1, abs=0.1)


def test_an_odd_box_has_its_centre_at_the_pixel_n_over_2(project: Project, run: Callable[..., Run]) -> None:
    """Pixel 16 of 32 is pixel 15 of 31 when the first row and column go; a centre one off would be one voxel off.

    The defocus is low, so that the CTF spreads nothing out of the box, where the simulation would wrap it round.
    """
    optics = OpticsGroup("opticsGroup1", PIXEL_SIZE_IN_ANGSTROMS, 32, 300.0, 2.7, 0.1)
    particles = random_particles(120, optics, seed=1)
    low = np.full(120, 3000.0)
    particles = dataclasses.replace(particles, defocus_u_in_angstroms=low, defocus_v_in_angstroms=low)
    project.images = simulate_images(make_phantom(32), particles, snr=0.5, seed=1).images
    project.particles["rlnDefocusU"] = project.particles["rlnDefocusV"] = ["3000.0"] * 120
    project.write()
    assert run(*QUICK).exit_code == 0
    even = model_free()
    project.images = np.ascontiguousarray(project.images[:, 1:, 1:])
    project.optics["rlnImageSize"] = ["31"]
    project.write()
    assert run(*QUICK).exit_code == 0
    odd = model_free()
    assert odd.shape == even.shape
    right = correlation(odd, even)
    assert right > 0.75
    for axis in range(3):
        for shift in (-1, 1):
            assert correlation(np.roll(odd, shift, axis), even) < right - 0.1
