"""The benchmarks' particles: errors of poses are what they are said to be, and so are the solvent and the noise."""

import sys
from dataclasses import astuple
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import images
from grid import Cell
from molecules import PIXEL_SIZE_IN_ANGSTROMS, with_solvent
from poses import PoseErrors, Poses, draw_poses, with_errors

from gem_plugin.conventions import rotation_matrices

PIXEL = 1.5
N = 20_000


def matrices(poses: Poses) -> np.ndarray:
    return rotation_matrices(np.column_stack([poses.rot, poses.tilt, poses.psi]))


def turned_by_deg(poses: Poses, found: Poses) -> np.ndarray:
    relative = matrices(found) @ np.swapaxes(matrices(poses), 1, 2)
    return np.degrees(np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)))


@pytest.fixture(scope="module")
def poses() -> Poses:
    return draw_poses(np.random.default_rng(1), N, PIXEL)


def test_rotation_errors_have_the_stated_size_wherever_the_particle_looks(poses: Poses) -> None:
    found = with_errors(poses, PoseErrors(3.0, 1.0), np.random.default_rng(2), PIXEL)
    angle = turned_by_deg(poses, found)
    assert np.sqrt((angle**2).mean()) == pytest.approx(3.0, rel=0.03)
    assert (angle < 3.0).mean() == pytest.approx(0.683, abs=0.02)  # normal, not of fixed size
    near_pole = np.abs(np.cos(np.radians(poses.tilt))) > 0.95
    assert np.sqrt((angle[near_pole] ** 2).mean()) == pytest.approx(3.0, rel=0.1)


def test_rotation_errors_have_no_preferred_axis(poses: Poses) -> None:
    found = with_errors(poses, PoseErrors(3.0, 0.0), np.random.default_rng(3), PIXEL)
    relative = matrices(found) @ np.swapaxes(matrices(poses), 1, 2)
    axis = np.degrees(
        np.stack([relative[:, 1, 2] - relative[:, 2, 1], relative[:, 2, 0] - relative[:, 0, 2],
                  relative[:, 0, 1] - relative[:, 1, 0]]) / 2
    )  # fmt: skip
    np.testing.assert_allclose(axis.std(axis=1), 3.0 / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(axis.mean(axis=1), 0.0, atol=0.06)


def test_shift_errors_have_the_stated_size_along_each_axis(poses: Poses) -> None:
    found = with_errors(poses, PoseErrors(3.0, 1.0), np.random.default_rng(4), PIXEL)
    for before, after in ((poses.origin_x, found.origin_x), (poses.origin_y, found.origin_y)):
        assert (after - before).std() == pytest.approx(1.0 * PIXEL, rel=0.03)
        assert abs((after - before).mean()) < 0.05 * PIXEL


def test_without_errors_nothing_changes_and_optics_never_do(poses: Poses) -> None:
    none = with_errors(poses, PoseErrors(0.0, 0.0), np.random.default_rng(5), PIXEL)
    np.testing.assert_allclose(matrices(none), matrices(poses), atol=1e-12)
    some = with_errors(poses, PoseErrors(3.0, 1.0), np.random.default_rng(5), PIXEL)
    for before, after in zip(astuple(poses)[5:], astuple(some)[5:], strict=True):
        np.testing.assert_array_equal(before, after)


def test_views_are_even_over_the_sphere(poses: Poses) -> None:
    views = matrices(poses)[:, 2]
    np.testing.assert_allclose(views.T @ views / N, np.eye(3) / 3, atol=0.01)
    np.testing.assert_allclose(views.mean(axis=0), 0, atol=0.02)


def ball(box: int, radius: float) -> np.ndarray:
    axis = np.arange(box) - box // 2
    return (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2 <= radius**2).astype(np.float64)


def test_solvent_is_a_twentieth_of_the_mean_density_in_a_blurred_envelope() -> None:
    box, pixel = 64, 2.0
    molecule = 3.0 * ball(box, 12)
    removed = molecule - with_solvent(molecule, pixel)
    assert removed.sum() == pytest.approx(0.05 * molecule.sum(), rel=1e-4)
    assert (with_solvent(molecule, pixel) < -0.01).any()
    assert abs(with_solvent(molecule, pixel)[0]).max() < 1e-4
    # blurred by 6 A: the variance of the envelope along an axis grows by 6 A squared
    blurred = gaussian_filter(molecule, 2.0)
    envelope = (blurred > 0.05 * blurred.max()).astype(float)

    def variance_px(density: np.ndarray) -> float:
        along = density.sum(axis=(0, 1))
        x = np.arange(box) - box // 2
        return float((along * x**2).sum() / along.sum())

    assert variance_px(removed) - variance_px(envelope) == pytest.approx((6.0 / pixel) ** 2, rel=0.01)


CELL_IMAGES = np.random.default_rng(6).normal(size=(40, 96, 96)).astype(np.float32)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> images.ImageShop:
    def project(truth: Path, poses: Poses, directory: Path, *_: float) -> Path:
        stack = directory / "clean.mrcs"
        if not stack.exists():
            directory.mkdir(parents=True)
            with mrcfile.new(stack) as file:
                file.set_data(CELL_IMAGES)
        return stack

    monkeypatch.setattr(images, "project_images", project)
    monkeypatch.setattr(images.ImageShop, "truth", lambda *_: tmp_path / "truth.mrc")
    cells = [Cell("cxcr4", column, 0.015, 7, len(CELL_IMAGES)) for column in ("exact", "errors")]
    return images.ImageShop(tmp_path, tmp_path, cells, None)


def stack_and_poses(shop: images.ImageShop, cell: Cell, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    table = shop.make_project(cell, directory)
    with mrcfile.open(directory / images.STACK, permissive=True) as file:
        stack = np.array(file.data)
    particles = starfile.read(directory / table, always_dict=True)["particles"]
    return stack, particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst"]].to_numpy(float)


def test_errors_are_in_the_table_and_not_in_the_images(shop: images.ImageShop, tmp_path: Path) -> None:
    n = len(CELL_IMAGES)
    exact, exact_poses = stack_and_poses(shop, Cell("cxcr4", "exact", 0.015, 7, n), tmp_path / "a")
    errors, wrong_poses = stack_and_poses(shop, Cell("cxcr4", "errors", 0.015, 7, n), tmp_path / "b")
    np.testing.assert_array_equal(exact, errors)
    difference = rotation_matrices(wrong_poses[:, :3]) - rotation_matrices(exact_poses[:, :3])
    assert 0.01 < np.abs(difference).mean() < 0.1
    assert np.std(wrong_poses[:, 3] - exact_poses[:, 3]) == pytest.approx(PIXEL_SIZE_IN_ANGSTROMS, rel=0.4)


def test_one_seed_is_the_same_noise_of_unit_variance_at_every_ratio(shop: images.ImageShop, tmp_path: Path) -> None:
    noise = {}
    for ratio in (0.015, 0.2):
        cell = Cell("cxcr4", "exact", ratio, 7, len(CELL_IMAGES))
        stack, _ = stack_and_poses(shop, cell, tmp_path / f"{ratio}")
        noise[ratio] = stack - CELL_IMAGES / CELL_IMAGES.std() * np.sqrt(ratio)
        assert noise[ratio].std() == pytest.approx(1.0, rel=0.01)
    np.testing.assert_allclose(noise[0.015], noise[0.2], atol=1e-5)


def test_images_live_until_the_last_cell_that_needs_them(shop: images.ImageShop, tmp_path: Path) -> None:
    exact, errors = (Cell("cxcr4", column, 0.015, 7, len(CELL_IMAGES)) for column in ("exact", "errors"))
    shop.make_project(exact, tmp_path / "a")
    shop.release(exact)
    assert list(tmp_path.glob("images/*/clean.mrcs"))
    shop.release(errors)
    assert not list(tmp_path.glob("images/*/clean.mrcs"))
