"""A whole job on images of two pixel and box sizes: one map, both groups in the results, and what was done said."""

from pathlib import Path

import numpy as np
import pytest

from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.io.maps import read_map
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.star import read_tables
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images
from relion_external.job import main
from tests.job.project import make_project, pose_columns, star_loop, write_mrc

COUNT = 80  # particles of the first group; the second has half as many
SECOND = OpticsGroup("second", 1.6, 40, 200.0, 1.4, 0.07)
STACK = "Extract/job004/finer.mrcs"
SMALL = ["--n_gaussians", "300", "--steps", "15", "--j", "2"]


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A project of 32 px images of 2 A and 40 px images of 1.6 A, twice as bright; the map."""
    project = make_project(tmp_path, n_particles=COUNT, snr=1.0)
    phantom, ratio = make_phantom(32), 2.0 / SECOND.pixel_size_in_angstroms
    finer = Phantom(40, phantom.sigma_px * ratio, phantom.centres_px * ratio, phantom.amplitudes)
    particles = random_particles(COUNT // 2, SECOND, seed=9)
    scale = project.truth.std() / density(phantom).std()
    clean = simulate_images(finer, particles, snr=None).images * 2 * scale
    noise = np.random.default_rng(4).normal(size=clean.shape)
    columns = {
        "rlnImageName": [f"{i + 1:06d}@{STACK}" for i in range(COUNT // 2)],
        "rlnMicrographName": ["MotionCorr/job002/mic900.mrc"] * (COUNT // 2),
        "rlnOpticsGroup": ["2"] * (COUNT // 2),
        **pose_columns(particles),
        "rlnBeamSizeKept": [f"finer{i}" for i in range(COUNT // 2)],
    }
    for name, values in project.particles.items():
        values.extend(columns[name])
    second = ("second", "2", "200.0", "1.4", "0.07", "1.6", "2", "40")
    for (name, values), value in zip(project.optics.items(), second, strict=True):
        assert name.startswith("rln")
        values.append(value)
    project.write()
    (tmp_path / STACK).parent.mkdir(parents=True)
    write_mrc(tmp_path / STACK, (clean + noise).astype(np.float32), 1.6)
    monkeypatch.chdir(tmp_path)
    return project.truth


def test_two_kinds_of_images_make_one_map(truth: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--o", "External/job010/", "--in_parts", "Refine3D/job005/run_data.star", *SMALL]) == 0
    said = capfd.readouterr()
    assert not said.err
    assert "Half 1: images of 2 kinds (pixel, box, CTF), of greyscales 1.000, " in said.out
    greyscale = float(said.out.split("of greyscales 1.000, ")[1].split()[0])
    assert greyscale == pytest.approx(2, rel=0.1)
    volume = read_map(Path("External/job010/run_class001.mrc"))
    assert volume.data.shape == (32, 32, 32)
    assert volume.pixel_size_in_angstroms == pytest.approx(2.0)
    assert fourier_shell_correlation(volume.data, truth)[1:9].min() > 0.9
    tables = read_tables(Path("External/job010/run_data.star"))
    assert len(tables["optics"]) == 2
    assert len(tables["particles"]) == COUNT * 3 // 2
    assert set(tables["particles"].integers("rlnOpticsGroup")) == {1, 2}


def test_the_map_follows_the_group_of_most_particles(truth: np.ndarray, tmp_path: Path) -> None:
    """Without most of the first group's particles the map has the second's pixels and box."""
    path = tmp_path / "Refine3D/job005/run_data.star"
    tables = read_tables(path)
    rows = tables["particles"].frame
    kept = rows[(rows["rlnOpticsGroup"] == "2") | (np.arange(len(rows)) < 20)]
    columns = [{name: list(frame[name]) for name in frame.columns} for frame in (tables["optics"].frame, kept)]
    path.write_text(star_loop("optics", columns[0]) + star_loop("particles", columns[1]))
    assert main(["--o", "External/job011/", "--in_parts", "Refine3D/job005/run_data.star", *SMALL]) == 0
    volume = read_map(Path("External/job011/run_class001.mrc"))
    assert volume.data.shape == (40, 40, 40)
    assert volume.pixel_size_in_angstroms == pytest.approx(1.6)
