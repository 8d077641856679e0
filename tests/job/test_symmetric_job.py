"""A whole job with a point group: the symmetric map out, by fewer Gaussians, and a wrong group said."""

from pathlib import Path

import numpy as np
import pytest
import starfile

from gem_plugin.fsc import Shells
from gem_plugin.io.maps import read_map
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import write_particles
from gem_plugin.model_free import support_sphere
from gem_plugin.phantom import Phantom, density, make_phantom, random_particles, simulate_images
from gem_plugin.symmetry import point_group, symmetrise
from relion_external.demo import with_tables, write_stack
from relion_external.job import main
from tests.atoms import density_at, read_atoms, steps

N = 32
PIXEL = 3.0
TABLE = "Refine3D/job001/run_data.star"


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A project of a D5 particle; its map."""
    group, one = point_group("D5"), make_phantom(N, 0)
    centres = np.einsum("gij,nj->gni", group.operators, one.centres_px[::10] * 0.9 + [1.5, 0.7, -0.4]).reshape(-1, 3)
    phantom = Phantom(N, one.sigma_px, centres, np.tile(one.amplitudes[::10], 10))
    particles = random_particles(160, OpticsGroup("one", PIXEL, N, 300.0, 2.7, 0.1), seed=1)
    images = simulate_images(phantom, particles, snr=0.2, seed=2).images
    stack = Path("Extract/job000/particles.mrcs")
    for name in (tmp_path / stack, tmp_path / TABLE):
        name.parent.mkdir(parents=True)
    write_stack(tmp_path / stack, images, PIXEL)
    write_particles(with_tables(particles, stack), tmp_path / TABLE)
    monkeypatch.chdir(tmp_path)
    return density(phantom)


def run(number: int, symmetry: str) -> tuple[np.ndarray, int]:
    """Run the job; the mean of its Gaussian maps, unfiltered, and the number of Gaussians of half 1."""
    job = f"External/job{number:03d}/"
    assert main(["--o", job, "--in_parts", TABLE, "--sym", symmetry, "--n_gaussians", "300", "--j", "2"]) == 0
    with np.load(f"{job}gem_half1_gaussians.npz") as gaussians:
        assert str(gaussians["symmetry"]) == symmetry
        halves = [read_map(Path(f"{job}gem_half{half}.mrc")).data for half in (1, 2)]
        return (halves[0] + halves[1]) / 2, len(gaussians["amplitudes"])


def test_the_symmetric_map_comes_out_by_a_tenth_of_the_gaussians(
    truth: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    plain, plain_count = run(2, "C1")
    ours, count = run(3, "D5")
    assert (count, plain_count) == (30, 300)
    # smoothed: what a sharp band limit leaves between voxels does not turn
    smooth = support_sphere(N, 11) * Shells(N).filter(ours, np.exp(-0.5 * (np.arange(N // 2 + 1) / 6) ** 2))
    turned = symmetrise(smooth, point_group("D5"), 1)
    assert np.linalg.norm(turned - smooth) < 0.01 * np.linalg.norm(smooth)
    assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] > np.corrcoef(plain.ravel(), truth.ravel())[0, 1]
    assert "do not show symmetry" not in capfd.readouterr().out
    run(4, "T")
    assert "do not show symmetry T" in capfd.readouterr().out
    bands = {n: starfile.read(f"External/job{n:03d}/gem_fsc.star", always_dict=True)["fsc_bands"] for n in (2, 3)}
    independent = {n: table["gemIndependentCoefficients"].sum() for n, table in bands.items()}
    assert 0.05 < independent[3] / independent[2] < 0.2  # copies are not counted
    atoms, path = read_atoms(Path("External/job003/gem_half1_gaussians.cif")), Path("External/job003/gem_half1.mrc")
    assert len(atoms) == 300, "the assembly makes the other nine tenths"
    here = density_at(atoms, path)
    copies = here.reshape(10, 30)
    assert np.abs(copies - copies[0]).max() < 0.1 * here.max(), "each copy lies on the density of its original"
    assert all(here.mean() > 1.2 * density_at(atoms, path, step).mean() for step in steps(PIXEL))
