"""`gem-external demo`: the project that it makes, and that it holds the job to the truth."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.images import ImageReader
from gem_plugin.io.maps import read_map, write_map
from gem_plugin.io.particles import read_particles
from gem_plugin.phantom import make_phantom, simulate_images
from relion_external import demo, file_names
from relion_external.job import main


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    demo._make_folders(folder)
    demo.make_project(folder, n_particles=60, seed=3)
    return folder


def test_the_project_holds_what_was_simulated(project):
    particles = read_particles(project / demo.PARTICLE_TABLE, project_directory=project)
    simulated = simulate_images(make_phantom(64), particles, snr=0.01, seed=4)
    with ImageReader(particles) as reader:
        images = reader.read(np.arange(60))
    assert np.allclose(images, simulated.images, atol=1e-4)
    assert np.allclose(read_map(project / demo.TRUTH).data, simulated.truth, atol=1e-6)
    assert particles.half_sets_are_refined
    assert "rlnPipeLineJobCounter" in (project / "default_pipeline.star").read_text()


def write_results(project, ours, model_free, resolution="5.25"):
    job = project / demo.JOB_DIRECTORY
    shape = ours.shape
    write_map(job / file_names.COMBINED_MAP, ours, 2.0)
    for name in file_names.MODEL_FREE_HALF_MAPS:
        write_map(job / name, model_free, 2.0)
    write_map(job / file_names.MASK, np.ones(shape, np.float32), 2.0)
    table = f"data_general\n\n_gemIsResolutionClaimed 1\n_gemResolutionInAngstroms {resolution}\n"
    (job / file_names.FSC).write_text(table)


def cut_off(data, shell):
    """The map without its Fourier shells from `shell` on."""
    k = np.fft.fftfreq(len(data), 1 / len(data))
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    return np.fft.ifftn(np.fft.fftn(data) * (np.rint(radius) < shell)).real.astype(np.float32)


def test_the_comparison_finds_how_far_each_map_is_true(project):
    truth = read_map(project / demo.TRUTH).data
    write_results(project, cut_off(truth, 25), cut_off(truth, 11))
    found = demo.compare_with_truth(project)
    assert found.gaussian_resolution_in_angstroms == pytest.approx(128 / 24)
    assert found.model_free_resolution_in_angstroms == pytest.approx(128 / 10)
    assert found.gaussian_mean_fsc == pytest.approx(24 / 31, abs=0.01)
    assert found.stated == "5.25 A"
    write_results(project, truth, truth, resolution="nan")
    assert demo.compare_with_truth(project).stated == "not crossed before Nyquist"


def test_an_inverted_map_is_never_called_good(project):
    truth = read_map(project / demo.TRUTH).data
    write_results(project, -truth, truth)
    found = demo.compare_with_truth(project)
    assert found.gaussian_resolution_in_angstroms == float("inf")
    assert found.gaussian_mean_fsc == pytest.approx(-1, abs=0.01)


def test_the_last_words_name_the_map_the_resolutions_and_relions_fields(project):
    found = demo.Comparison("5.25 A", 5.0, 6.5, 0.8, 0.7)
    text = demo._in_words(found, project)
    for words in ("5.25 A", "5.00 A", "6.50 A", str(project / "External/job002/run_class001.mrc"), "Input particles"):
        assert words in text
    assert "none claimed" in demo._in_words(dataclasses.replace(found, stated="none claimed"), project)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["demo", "--o", str(tmp_path)]) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_job_is_run_from_the_project_with_relions_words_and_its_failure_is_told(tmp_path, monkeypatch):
    seen = []

    def fail(words):
        seen.append((words, Path.cwd()))
        return 1

    monkeypatch.setattr("relion_external.job.main", fail)
    before = Path.cwd()
    assert demo.main(["--o", str(tmp_path / "new"), "--n_particles", "20", "--j", "3"]) == 1
    words = ["--o", "External/job002/", "--in_parts", "Refine3D/job001/run_data.star", "--j", "3"]
    assert seen == [(words, tmp_path / "new")]
    assert Path.cwd() == before
