"""Whole jobs on images that others have treated or scaled, and with wrong poses: residuals, scales, statement."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.conventions import half_plane
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.io.star import read_tables
from gem_plugin.optics import contrast_transfer
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from relion_external.job import main
from tests.job.project import PIXEL_SIZE_IN_ANGSTROMS, Project, make_project

COUNT, BOX, SEED = 120, 32, 1
SMALL = ["--n_gaussians", "300", "--steps", "15", "--j", "1"]
JOB = Path("External/job010")
BEWARE = "beware: most groups of images hold signal that the map does not explain"


@pytest.fixture
def particles() -> Particles:
    """Those of the project."""
    return random_particles(COUNT, OpticsGroup("g", PIXEL_SIZE_IN_ANGSTROMS, BOX, 300.0, 2.7, 0.1), SEED)


def project_in(directory: Path, monkeypatch: pytest.MonkeyPatch, snr: float) -> Project:
    monkeypatch.chdir(directory)
    return make_project(directory, n_particles=COUNT, box_size_px=BOX, snr=snr, seed=SEED)


def run(project: Project, capfd: pytest.CaptureFixture[str]) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """What the job said, and every particle's scale and residual in the order of the project's table."""
    project.write()
    assert main(["--o", f"{JOB}/", "--in_parts", project.table, *SMALL]) == 0
    table = read_tables(JOB / "run_data.star")["particles"]
    assert list(table.frame["rlnImageName"]) == project.particles["rlnImageName"]
    said = capfd.readouterr()
    return said.out + said.err, table.numbers("gemParticleScale"), table.numbers("gemNormalisedResidual")


def test_residuals_of_images_that_were_multiplied_by_their_ctf_are_of_plain_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, particles: Particles, capfd: pytest.CaptureFixture[str]
):
    project = project_in(tmp_path, monkeypatch, snr=0.5)
    plane, spectra = half_plane(BOX, BOX), np.fft.rfft2(project.images)
    multiplied = np.zeros_like(spectra)
    ctf = contrast_transfer(particles, np.arange(COUNT), plane)
    multiplied[:, plane.ky, plane.kx] = spectra[:, plane.ky, plane.kx] * ctf
    project.images = np.fft.irfft2(multiplied, s=(BOX, BOX), axes=(1, 2)).astype(np.float32)
    project.optics["rlnCtfDataAreCtfPremultiplied"] = ["1"]
    said, scale, residual = run(project, capfd)
    assert np.median(residual) == pytest.approx(1, abs=0.12)
    assert np.median(scale) == pytest.approx(1, abs=0.15)
    assert "multiplied by their CTF" not in said
    assert BEWARE not in said


def test_the_scales_of_a_model_beside_the_particles_are_those_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, particles: Particles, capfd: pytest.CaptureFixture[str]
):
    """Every second micrograph's signal is a third of the others'; the second half of this test does not know it."""
    project = project_in(tmp_path, monkeypatch, snr=0.4)
    noise = simulate_images(make_phantom(BOX), particles, snr=0, seed=SEED).images
    micrograph = np.arange(COUNT) // 20
    factor = np.where(micrograph % 2, 0.5, 1.5)
    project.images = ((project.images - noise) * factor[:, None, None] + noise).astype(np.float32)
    groups = "".join(f"MotionCorr/job002/mic{i:03d}.mrc {0.5 if i % 2 else 1.5}\n" for i in range(COUNT // 20))
    loop = f"data_model_groups\nloop_\n_rlnGroupName\n_rlnGroupScaleCorrection\n{groups}"
    model = Path(project.table).with_name("run_model.star")
    model.parent.mkdir(parents=True)
    model.write_text(f"data_model_general\n\n_rlnNormCorrectionAverage 1\n\n{loop}")
    said, scale, residual = run(project, capfd)
    assert "From run_model.star beside the particles: scales of the groups from 0.500 to 1.500" in said
    assert np.median(scale[factor < 1]) / np.median(scale[factor > 1]) == pytest.approx(1, abs=0.2)
    assert np.median(residual) == pytest.approx(1, abs=0.12)
    model.unlink()
    said, scale, _ = run(project, capfd)
    assert "scales of the groups from" not in said
    assert np.median(scale[factor < 1]) / np.median(scale[factor > 1]) == pytest.approx(1 / 3, abs=0.15)


def test_wrong_poses_are_told_wherever_the_resolution_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    project = project_in(tmp_path, monkeypatch, snr=4.0)
    random = np.random.default_rng(2)
    project.particles["rlnAnglePsi"] = [f"{float(v) + random.normal(0, 50)}" for v in project.particles["rlnAnglePsi"]]
    said, _, _ = run(project, capfd)
    assert said.rindex(BEWARE) > said.rindex("esolution")
    assert BEWARE in json.loads((JOB / "gem_config.json").read_text())["statement"]
    assert BEWARE in (JOB / "gem_fsc.star").read_text()
