"""A whole job on the GPU engine, its kernels run by the CPU's stand-in: the CPU engine's results to rounding."""

from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.maps import read_map
from gem_plugin.ops import engines
from relion_external.job import main
from tests.helpers import relative_error
from tests.job.project import make_project

OPTIONS = ["--in_parts", "Refine3D/job005/run_data.star", "--n_gaussians", "40", "--steps", "3"]
# of maps; Adam divides by the gradient's size, so where that is next to nothing rounding decides on a step
BOUNDS = {"model_free_half1.mrc": 2e-4, "model_free_half2.mrc": 2e-4, "run_class001.mrc": 2e-2, "gem_half1.mrc": 2e-2}


@pytest.fixture
def emulated_engine(emulated_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "try_gpu", lambda index: f"CUDA kernels on a stand-in for GPU {index}")


@pytest.mark.usefixtures("emulated_engine")
def test_a_job_on_a_gpu_makes_the_map_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_project(tmp_path, n_particles=8, box_size_px=20, snr=1.0).write()
    monkeypatch.chdir(tmp_path)
    assert main(["--o", "External/cpu/", *OPTIONS, "--engine", "cpu"]) == 0
    capfd.readouterr()
    assert main(["--o", "External/gpu/", *OPTIONS, "--engine", "cuda", "--gpu", "1"]) == 0
    said = capfd.readouterr()
    assert not said.err
    assert "engine: cuda:1 (CUDA kernels on a stand-in for GPU 1, as asked)" in said.out
    for name, bound in BOUNDS.items():
        expected = read_map(tmp_path / "External/cpu" / name).data
        found = read_map(tmp_path / "External/gpu" / name).data
        assert np.abs(expected).max() > 0
        assert relative_error(found, expected) < bound, name


def test_a_gpu_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never a silent run on the CPU."""
    make_project(tmp_path, n_particles=12, box_size_px=24, snr=1.0).write()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.version.cuda", None)
    assert main(["--o", "External/gpu/", *OPTIONS, "--engine", "cuda"]) == 1
    assert "The installed torch is a CPU build" in capfd.readouterr().err
    assert (tmp_path / "External/gpu/RELION_JOB_EXIT_FAILURE").exists()
