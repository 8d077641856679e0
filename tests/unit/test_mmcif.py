"""Gaussians as pseudo-atoms lie on the map's density: gemmi, which reads MRC and mmCIF by itself, is the judge."""

import dataclasses
from pathlib import Path

import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gem_plugin.gaussians.mmcif import save_mmcif
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.maps import write_map
from gem_plugin.render import gaussian_map
from tests.atoms import density_at, read_atoms, steps

BOX, PIXEL = 32, 1.7


def some_gaussians(symmetry: str = "C1", n: int = 12, seed: int = 1) -> Gaussians:
    random = np.random.default_rng(seed)
    return Gaussians(
        centres_px=random.uniform(-8, 8, (n, 3)).astype(np.float32),
        log_scales=np.log(random.uniform(0.8, 2.0, (n, 3))).astype(np.float32),
        quaternions=Rotation.random(n, random_state=seed).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        amplitudes=random.uniform(0.5, 2.0, n).astype(np.float32),
        symmetry=symmetry,
    )


def density_of(atoms: list[gemmi.Atom], voxels_xyz: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of the atoms' Gaussians at voxels [m, 3], up to a factor, from what the file says alone."""
    points = voxels_xyz * PIXEL
    total = np.zeros(len(points))
    for atom in atoms:
        u = atom.aniso
        tensor = np.array([[u.u11, u.u12, u.u13], [u.u12, u.u22, u.u23], [u.u13, u.u23, u.u33]])
        assert atom.b_iso == pytest.approx(8 * np.pi**2 * np.trace(tensor) / 3, rel=1e-3)
        away = points - np.array(atom.pos.tolist())
        exponent = np.einsum("mi,ij,mj->m", away, np.linalg.inv(tensor), away)
        total += atom.occ / np.sqrt(np.linalg.det(tensor)) * np.exp(-exponent / 2)
    return total


def agreement(atoms: list[gemmi.Atom], volume: NDArray[np.float32]) -> float:
    """Correlation of the atoms' Gaussians with a map."""
    zyx = np.argwhere(np.ones_like(volume, dtype=bool))
    return float(np.corrcoef(density_of(atoms, zyx[:, ::-1]), volume.ravel())[0, 1])


def test_the_atoms_alone_make_the_map_again(tmp_path: Path) -> None:
    gaussians = some_gaussians()
    volume = gaussian_map(gaussians, BOX, BOX, engine="reference")
    save_mmcif(tmp_path / "a.cif", gaussians, box_size_px=BOX, pixel_size_in_angstroms=PIXEL)
    atoms = read_atoms(tmp_path / "a.cif")
    assert len(atoms) == len(gaussians)
    assert agreement(atoms, volume) > 0.9999
    # the measure itself notices each mistake that the file could hold
    for wrong in (
        np.roll(volume, 1, axis=2),
        volume.transpose(2, 1, 0),
        np.roll(volume[::-1], 1, axis=0),
        np.roll(volume, BOX // 2, axis=(0, 1, 2)),
    ):
        assert agreement(atoms, wrong) < 0.98
    for change in (
        {"quaternions": gaussians.quaternions * np.array([1, -1, -1, -1], np.float32)},
        {"amplitudes": np.ones_like(gaussians.amplitudes)},
        {"log_scales": gaussians.log_scales + np.float32(np.log(PIXEL))},
    ):
        other = gaussian_map(dataclasses.replace(gaussians, **change), BOX, BOX, engine="reference")
        assert agreement(atoms, other) < 0.999


def test_gemmi_finds_density_of_the_written_mrc_at_the_atoms(tmp_path: Path) -> None:
    gaussians = dataclasses.replace(some_gaussians(n=6), log_scales=np.full((6, 3), np.log(1.2), np.float32))
    volume = gaussian_map(gaussians, BOX, BOX, engine="reference")
    write_map(tmp_path / "map.mrc", volume, PIXEL)
    save_mmcif(tmp_path / "a.cif", gaussians, box_size_px=BOX, pixel_size_in_angstroms=PIXEL)
    atoms = read_atoms(tmp_path / "a.cif")
    here = density_at(atoms, tmp_path / "map.mrc")
    zyx = gaussians.centres_px[:, ::-1] + BOX // 2
    peak = gaussians.amplitudes / ((2 * np.pi) ** 1.5 * 1.2**3)
    assert np.all(zyx < BOX)
    assert np.all(here > 0.9 * peak)
    for step in steps(PIXEL):
        assert here.sum() > 1.2 * density_at(atoms, tmp_path / "map.mrc", step).sum(), "a voxel away there is less"


@pytest.mark.parametrize("symmetry", ["C3", "D2", "O"])
def test_the_assembly_makes_the_symmetric_map(tmp_path: Path, symmetry: str) -> None:
    gaussians = some_gaussians(symmetry, n=4)
    volume = gaussian_map(gaussians, BOX, BOX, engine="reference")
    write_map(tmp_path / "map.mrc", volume, PIXEL)
    save_mmcif(tmp_path / "a.cif", gaussians, box_size_px=BOX, pixel_size_in_angstroms=PIXEL)
    atoms = read_atoms(tmp_path / "a.cif")
    order = {"C3": 3, "D2": 4, "O": 24}[symmetry]
    assert len(atoms) == 4 * order
    values = density_at(atoms, tmp_path / "map.mrc").reshape(order, 4)
    np.testing.assert_allclose(values, np.tile(values[0], (order, 1)), rtol=0.05)
    assert values.min() > 0.1 * volume.max()


def test_atoms_are_in_the_order_of_the_gaussians_and_unbonded(tmp_path: Path) -> None:
    gaussians = some_gaussians()
    save_mmcif(tmp_path / "a.cif", gaussians, box_size_px=BOX, pixel_size_in_angstroms=PIXEL)
    (chain,) = gemmi.read_structure(str(tmp_path / "a.cif"))[0]
    assert [residue.seqid.num for residue in chain] == list(range(1, len(gaussians) + 1))
    assert {(residue.name, residue.het_flag, len(residue)) for residue in chain} == {("UNX", "H", 1)}
    np.testing.assert_allclose(
        [residue[0].occ for residue in chain], gaussians.amplitudes / gaussians.amplitudes.max(), atol=1e-5
    )


def test_no_gaussians_are_a_readable_file(tmp_path: Path) -> None:
    nothing = Gaussians(*(np.zeros(shape, np.float32) for shape in ((0, 3), (0, 3), (0, 4), (0,))))
    save_mmcif(tmp_path / "a.cif", nothing, box_size_px=BOX, pixel_size_in_angstroms=PIXEL)
    assert len(gemmi.cif.read(str(tmp_path / "a.cif"))) == 1
