"""Particle stacks in TIFF format: pages, rows from the bottom as RELION reads them, and clear refusals."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError, ResourceError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.maps import read_map
from gem_plugin.io.stack_files import MrcStack, open_stack
from tests.unit.small_project import BOX_SIZE_PX, STACKS, SmallProject

tifffile = pytest.importorskip("tifffile")


def _stack(dtype: str = "f4") -> np.ndarray:
    values = np.random.default_rng(2).normal(size=(3, BOX_SIZE_PX, BOX_SIZE_PX)) * 20
    return (np.abs(values) if dtype[0] == "u" else values).astype(dtype)


def _read(path: Path) -> np.ndarray:
    with contextlib.closing(open_stack(path)) as file:
        images = np.empty((file.n_images, file.n_rows, file.n_columns), np.float32)
        file.read(0, images)
        return images


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF"])
@pytest.mark.parametrize("dtype", ["f4", "i2", "u2", "u1"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pages_are_images_and_their_first_row_is_the_last(
    tmp_path: Path, suffix: str, dtype: str, byteorder: str
) -> None:
    stack = _stack(dtype)
    path = tmp_path / f"x{suffix}"
    tifffile.imwrite(path, stack, photometric="minisblack", byteorder=byteorder)
    np.testing.assert_array_equal(_read(path), stack[:, ::-1])
    file = open_stack(path)
    one = np.empty((1, BOX_SIZE_PX, BOX_SIZE_PX), np.float32)
    file.read(2, one)
    file.close()
    np.testing.assert_array_equal(one[0], stack[2, ::-1])


@pytest.mark.relion
def test_relion_reads_the_same_images(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, _stack(), photometric="minisblack")
    program = shutil.which("relion_image_handler")
    assert program
    subprocess.run([program, "--i", str(path), "--o", str(tmp_path / "x.mrcs")], check=True, capture_output=True)
    judged = MrcStack(tmp_path / "x.mrcs")
    expected = np.empty((3, BOX_SIZE_PX, BOX_SIZE_PX), np.float32)
    judged.read(0, expected)
    judged.close()
    np.testing.assert_array_equal(_read(path), expected)


def test_a_table_may_name_tiff_stacks(project: SmallProject) -> None:
    stack = project.stacks[STACKS[0]]
    tifffile.imwrite(project.root / "mic1.tif", stack[:, ::-1], photometric="minisblack")
    for row, text in enumerate(project.particles["rlnImageName"]):
        project.particles["rlnImageName"][row] = str(text).replace(STACKS[0], "mic1.tif")
    project.stacks["mic1.tif"] = stack
    with ImageReader(project.read()) as reader:
        images = reader.read(np.arange(6))
    for row in range(6):
        np.testing.assert_array_equal(images[row], project.image(row))


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


def test_without_the_library_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, _stack(), photometric="minisblack")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ResourceError, match="pip install tifffile") as caught:
        open_stack(path)
    assert str(path) in str(caught.value)


def test_tiff_files_that_are_no_stacks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for content in (b"", b"short", b"II*\0" + b"\xff" * 100, b"II*\0\x08\0\0\0" + b"\0" * 8):
        path.write_bytes(content)
        with pytest.raises(InputError, match="TIFF"):
            open_stack(path)
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((8, 8), np.float32), photometric="minisblack")
        writer.write(np.zeros((8, 9), np.float32), photometric="minisblack")
    with pytest.raises(InputError, match="8x8 and 8x9"):
        open_stack(path)
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="grey images"):
        open_stack(path)
    with pytest.raises(InputError, match="No such file"):
        open_stack(tmp_path / "none.tif")


def test_a_truncated_or_lying_tiff_is_noticed_without_allocating(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.full((8, 8), 7, np.float32), photometric="minisblack")
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].tags["ImageWidth"].valueoffset, file.pages[0].tags["ImageLength"].valueoffset
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError):
        _read(path)
    lying = bytearray(whole)
    for place in offset:
        lying[place : place + 2] = (60000).to_bytes(2, "little")
    path.write_bytes(bytes(lying))
    with pytest.raises(InputError, match="damaged"):
        open_stack(path)


def test_maps_are_never_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8, 8), np.float32), photometric="minisblack")
    with pytest.raises(InputError, match="not an MRC file"):
        read_map(tmp_path / "x.tif")
