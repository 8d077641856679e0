"""Maps: what is written is what RELION and everybody else reads."""

import os
import re
import stat
import struct
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.errors import InputError, OutputError
from gem_plugin.io.atomic import replacing
from gem_plugin.io.maps import read_map, write_map
from gem_plugin.io.particles import write_particles
from tests.unit.small_project import SmallProject, write_mrc


@pytest.fixture
def density() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)


def test_the_header_is_what_relion_and_chimerax_expect(tmp_path: Path, density: NDArray[np.float32]) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, density, 1.0635, "gem_plugin half map 1")
    raw = path.read_bytes()
    assert struct.unpack_from("<10i", raw) == (6, 6, 6, 2, 0, 0, 0, 6, 6, 6)
    np.testing.assert_array_equal(struct.unpack_from("<3f", raw, 40), [np.float32(6 * 1.0635)] * 3)
    assert struct.unpack_from("<3f", raw, 52) == (90, 90, 90)
    assert struct.unpack_from("<3i", raw, 64) == (1, 2, 3)
    assert struct.unpack_from("<2i", raw, 88) == (1, 0)  # one volume, no extended header
    assert struct.unpack_from("<3f", raw, 196) == (0, 0, 0)
    assert raw[208:212] == b"MAP "
    assert raw[224:304].rstrip(b"\0 ") == b"gem_plugin half map 1"
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4", offset=1024).reshape(6, 6, 6), density)
    np.testing.assert_allclose(
        struct.unpack_from("<3f", raw, 76), [density.min(), density.max(), density.mean()], rtol=1e-5
    )
    assert mrcfile.validate(path)


def test_what_is_written_comes_back(tmp_path: Path, density: NDArray[np.float32]) -> None:
    for array in (density, density.transpose(2, 0, 1), density.astype(np.float64)):
        write_map(tmp_path / "map.mrc", array, 3.54)  # the second write replaces the first
        found = read_map(tmp_path / "map.mrc")
        np.testing.assert_array_equal(found.data, array.astype(np.float32))
        assert found.pixel_size_in_angstroms == pytest.approx(3.54, rel=1e-7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.mrc"]


def test_the_mode_of_the_file_follows_the_umask(tmp_path: Path, density: NDArray[np.float32]) -> None:
    old = os.umask(0o027)
    try:
        write_map(tmp_path / "map.mrc", density, 1.0)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "map.mrc").stat().st_mode) == 0o640


def test_a_map_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, density: NDArray[np.float32]) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, density, 1.0)
    before = path.read_bytes()
    spoiled = density.copy()
    spoiled[0, 0, 0] = np.nan
    with pytest.raises(OutputError, match="is not written: the map holds values that are NaN"):
        write_map(path, spoiled, 1.0)
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        write_map(tmp_path / "absent" / "map.mrc", density, 1.0)
    (tmp_path / "folder.mrc").mkdir()
    with pytest.raises(OutputError, match=r"folder\.mrc cannot be written"):
        write_map(tmp_path / "folder.mrc", density, 1.0)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.mrc", "map.mrc"]


def test_who_reads_the_old_file_never_sees_half_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    path.with_name("link").hardlink_to(path)
    with replacing(path) as temporary:
        temporary.write_text("newer")
    assert path.with_name("link").read_text() == "new"  # another file took the name; the old bytes were not touched


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.txt"]


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"

    def write() -> None:
        with replacing(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x" * 100000)

    with pytest.raises(OutputError, match="No space left on device"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0, 1, 2, 12])
@pytest.mark.parametrize("order", ["<", ">"])
def test_masks_and_maps_of_every_mode_are_read(tmp_path: Path, mode: int, order: str) -> None:
    values = (np.arange(64).reshape(4, 4, 4) % 2).astype(np.float32)
    values[0, 0, 0] = -3
    write_mrc(tmp_path / "mask.mrc", values, mode=mode, order=order, extended_header=b"x" * 80)
    found = read_map(tmp_path / "mask.mrc")
    np.testing.assert_array_equal(found.data, values)
    assert found.data.dtype == np.float32
    assert found.pixel_size_in_angstroms == 2.0


@pytest.mark.parametrize(
    ("shape", "fields", "words"),
    [
        ((4, 4, 6), {}, "is not a cubic map: 6 x 4 x 4 voxels (x, y, z)"),
        ((4, 4, 4), {"cell": 0.0}, "does not tell its pixel size"),
        ((4, 4, 4), {"cell": np.nan}, "does not tell its pixel size"),
        ((4, 4, 4), {"mapc": 3}, "axes in the order (3, 2, 1)"),
        ((4, 4, 4), {"nz": 5, "nx": 5, "ny": 5}, "is truncated"),
        ((4, 4, 4), {"header_mode": 3}, "mode 3; expected"),
    ],
)
def test_maps_that_cannot_be_used_are_refused(
    tmp_path: Path, shape: tuple[int, int, int], fields: dict[str, float], words: str
) -> None:
    path = tmp_path / "map.mrc"
    write_mrc(path, np.ones(shape), **fields)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_map(path)
    assert str(path) in str(caught.value)


def test_unequal_voxels_and_bad_values_are_refused(tmp_path: Path, density: NDArray[np.float32]) -> None:
    path = tmp_path / "map.mrc"
    write_map(path, density, 2.0)
    with mrcfile.open(path, mode="r+") as file:
        file.header.cella.z = 13.0
    with pytest.raises(InputError, match=re.escape("2.0000 x 2.0000 x 2.1667 A")):
        read_map(path)
    density[1, 2, 3] = np.inf
    write_mrc(path, density)
    with pytest.raises(InputError, match="1 voxels that are NaN or infinite"):
        read_map(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_map(tmp_path / "absent.mrc")


def run(command: str, folder: Path) -> str:
    return subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.relion
def test_relion_reads_the_map_with_its_axes_and_pixel_size(tmp_path: Path) -> None:
    density = np.zeros((32, 32, 32), np.float32)
    density[20, 12, 9] = 1000.0  # z, y, x
    write_map(tmp_path / "map.mrc", density, 1.25)
    stats = run("relion_image_handler --i map.mrc --stats", tmp_path)
    assert "32 x 32 x 32 x 1" in stats
    assert "angpix = 1.25" in stats
    run("relion_image_handler --i map.mrc --o moved.mrc --shift_x 3 --shift_y -2 --shift_z 1", tmp_path)
    moved = read_map(tmp_path / "moved.mrc")
    assert np.unravel_index(np.argmax(moved.data), moved.data.shape) == (21, 10, 12)
    assert moved.pixel_size_in_angstroms == pytest.approx(1.25, rel=1e-6)


@pytest.mark.relion
def test_relion_reads_the_particles_that_are_written(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.particles["rlnDefocusU"][2] = "12345.678901"
    write_particles(project.read(), tmp_path / "written.star")
    run("relion_star_handler --i written.star --o relion.star --select rlnRandomSubset --minval 2 --maxval 2", tmp_path)
    text = (tmp_path / "relion.star").read_text()
    assert "data_optics" in text
    assert "12345.678901" in text
    for row, name in enumerate(project.particles["rlnImageName"]):
        assert (str(name) in text) == (project.particles["rlnRandomSubset"][row] == 2)
    run("relion_reconstruct --i written.star --o map.mrc --ctf --skip_gridding", tmp_path)
    found = read_map(tmp_path / "map.mrc")
    assert found.data.shape == (8, 8, 8)
    assert found.pixel_size_in_angstroms == pytest.approx(1.25, rel=1e-6)
