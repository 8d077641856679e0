"""Whole jobs with the science inside, on a small simulated project."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from relion_external.job import main
from tests.atoms import density_at, read_atoms, steps
from tests.job.conftest import standing_markers
from tests.job.project import PIXEL_SIZE_IN_ANGSTROMS, Project, make_project

N_PARTICLES = 120


@dataclass
class Result:
    """A finished job."""

    job: Path
    truth: NDArray[np.float32]

    def map(self, name: str) -> NDArray[np.float32]:
        with mrcfile.open(self.job / name) as file:
            return np.array(file.data)

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        with np.load(self.job / name, allow_pickle=False) as stored:
            return {key: np.array(stored[key]) for key in stored.files}


@pytest.fixture(scope="module")
def run_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """Simulate the project, let `change` spoil it, run the job in it with default settings."""

    def run(change: Callable[[Project], None] = lambda project: None, *words: str, snr: float = 0.5) -> Result:
        directory = tmp_path_factory.mktemp("project")
        project = make_project(directory, n_particles=N_PARTICLES, snr=snr)
        change(project)
        project.write()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(directory)
            assert main(["--o", "External/job012/", "--in_parts", project.table, *words, "--j", "2"]) == 0
        return Result(directory / "External/job012", project.truth)

    return run


@pytest.fixture(scope="module")
def plain(run_on: Callable[..., Result]) -> Result:
    """The job on the project as it is."""
    return run_on()


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_the_maps_show_the_molecule_in_its_place_and_hand(plain: Result):
    truth = plain.truth
    for name in ("run_class001.mrc", "gem_half1.mrc", "gem_half2.mrc"):
        volume = plain.map(name)
        assert volume.dtype == np.float32
        right = correlation(volume, truth)
        assert right > 0.8, name
        for wrong in (truth[::-1], truth.transpose(2, 1, 0), np.roll(truth, 1, axis=2)):
            assert correlation(volume, wrong) < right - 0.02, name
    assert correlation(plain.map("model_free_half1.mrc"), truth) > 0.5


def test_the_greyscale_is_that_of_the_images(plain: Result):
    """The slope of the map on the truth, whose projections are the images' signal."""
    volume, truth = plain.map("run_class001.mrc"), plain.truth
    slope = np.sum(volume * truth) / np.sum(truth * truth)
    assert 0.7 < slope < 1.15


def test_the_calibrated_pair_keeps_the_mean_of_the_halves(plain: Result):
    """Inside the mask one half gets the noise that the other loses; the mask's edge leaks a little of it."""
    inside = plain.map("gem_mask.mrc") > 0.999
    mean = (plain.map("gem_half1.mrc") + plain.map("gem_half2.mrc")) / 2
    calibrated = (plain.map("run_half1_class001_unfil.mrc") + plain.map("run_half2_class001_unfil.mrc")) / 2
    assert inside.sum() > 100
    added = plain.map("run_half1_class001_unfil.mrc") - plain.map("gem_half1.mrc")
    error = np.linalg.norm((calibrated - mean)[inside])
    assert error < 0.05 * np.linalg.norm(mean[inside])
    assert error < 0.3 * np.linalg.norm(added[inside]), "the noise does not cancel"


def test_the_pseudo_atoms_lie_on_the_maps(plain: Result):
    for half in (1, 2):
        atoms, path = read_atoms(plain.job / f"gem_half{half}_gaussians.cif"), plain.job / f"gem_half{half}.mrc"
        assert len(atoms) == len(plain.arrays(f"gem_half{half}_gaussians.npz")["amplitudes"])
        weight = np.array([atom.occ for atom in atoms])
        here = weight @ density_at(atoms, path)
        for step in steps(PIXEL_SIZE_IN_ANGSTROMS):
            assert here > 1.02 * (weight @ density_at(atoms, path, step)), step


def test_the_results_are_complete_and_the_log_is_a_pdf(plain: Result):
    assert standing_markers(plain.job) == ["RELION_JOB_EXIT_SUCCESS"]
    assert (plain.job / "logfile.pdf").read_bytes().startswith(b"%PDF")
    table = starfile.read(plain.job / "run_data.star", always_dict=True)["particles"]
    assert len(table) == N_PARTICLES
    with mrcfile.open(plain.job / "run_class001.mrc") as file:
        assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE_IN_ANGSTROMS, rel=1e-6)
        assert (int(file.header.mapc), int(file.header.mapr), int(file.header.maps)) == (1, 2, 3)


def test_the_halves_are_independent(plain: Result, run_on: Callable[..., Result]):
    """Whatever happens to the images and poses of half 2, not one bit of half 1 changes."""

    def spoil_half_2(project: Project) -> None:
        in_half_2 = np.array(project.particles["rlnRandomSubset"]) == "2"
        project.images[in_half_2] = np.random.default_rng(5).normal(size=project.images[in_half_2].shape)
        tilts = project.particles["rlnAngleTilt"]
        project.particles["rlnAngleTilt"] = [
            f"{180 - float(tilt)}" if is_in else tilt for tilt, is_in in zip(tilts, in_half_2, strict=True)
        ]

    spoiled = run_on(spoil_half_2)
    for name in ("gem_half{}.mrc", "model_free_half{}.mrc"):
        assert np.array_equal(plain.map(name.format(1)), spoiled.map(name.format(1))), name
        assert not np.array_equal(plain.map(name.format(2)), spoiled.map(name.format(2))), name
    before, after = (result.arrays("gem_half1_gaussians.npz") for result in (plain, spoiled))
    assert set(before) == set(after)
    for key, values in before.items():
        assert values.tobytes() == after[key].tobytes(), key
    other_before, other_after = (result.arrays("gem_half2_gaussians.npz") for result in (plain, spoiled))
    assert any(values.tobytes() != other_after[key].tobytes() for key, values in other_before.items())


def test_a_fit_image_by_image_gives_the_same_map_by_another_way(plain: Result, run_on: Callable[..., Result]):
    """Nothing but the data term differs: the same model-free map, nearly the same map, at other numbers."""
    images = run_on(lambda project: None, "--fit", "images")
    assert np.array_equal(images.map("model_free_half1.mrc"), plain.map("model_free_half1.mrc"))
    ours, other = images.map("run_class001.mrc"), plain.map("run_class001.mrc")
    assert not np.array_equal(ours, other)
    assert correlation(ours, other) > 0.95
    assert correlation(ours, plain.truth) > correlation(other, plain.truth) - 0.05


def test_bad_particles_are_told_by_their_results(run_on: Callable[..., Result]):
    """One particle holds nothing but noise, another is twice as noisy as the rest."""

    def spoil(project: Project) -> None:
        random = np.random.default_rng(3)
        project.images[10] = random.normal(size=project.images[10].shape)
        project.images[11] = project.images[11] + random.normal(size=project.images[11].shape)

    table = starfile.read(run_on(spoil).job / "run_data.star", always_dict=True)["particles"]
    scale, residual = (table[name].astype(float).to_numpy() for name in ("gemParticleScale", "gemNormalisedResidual"))
    good = np.delete(np.arange(N_PARTICLES), [10, 11])
    assert 0.85 < np.median(scale[good]) < 1.15
    assert abs(scale[10]) < 0.3
    assert abs(scale[10] - 1) > 4 * scale[good].std()
    assert 0.9 < np.median(residual[good]) < 1.1
    assert 1.7 < residual[11] / np.median(residual[good]) < 2.3
    assert np.all(residual[good] < 1.5)


def test_a_noise_control_finds_nothing_where_the_data_have_signal(run_on: Callable[..., Result]):
    """Beyond 16 Angstrom (shell 4) the control's images hold noise alone."""
    controlled = run_on(lambda project: None, "--noise_control", "16", "--steps", "25", snr=5)
    curves = starfile.read(controlled.job / "gem_fsc.star", always_dict=True)
    bands, shells = curves["fsc_control"], curves["fsc_control_shells"]
    beyond = bands["gemControlIsBeyond"].astype(int).to_numpy() == 1
    assert beyond.any()
    found, error = (
        bands[f"gemControlCrossValidatedFsc{name}"].astype(float).to_numpy()[beyond] for name in ("", "Error")
    )
    assert np.all(np.abs(found) < 4 * error)
    data = curves["fsc_bands"]["gemCrossValidatedFsc"].astype(float).to_numpy()[beyond]
    assert np.all(data > found + 5 * error), "the data have signal there"
    model_free = shells["gemControlModelFreeHalfMapFsc"].astype(float).to_numpy()
    assert model_free[1:3].min() > 0.8
    assert np.abs(model_free[7:15].mean()) < 0.15
