"""Images by index, from every kind of stack."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gem_plugin.dataset import read_ahead
from gem_plugin.errors import InputError
from gem_plugin.io import images as images_module
from gem_plugin.io.images import ImageReader, ReaderPool
from gem_plugin.io.particles import read_particles
from tests.unit.small_project import BOX_SIZE_PX, STACKS, SmallProject, write_mrc


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 5), max_size=12))
def test_images_come_in_the_order_asked_for(project: SmallProject, rows: list[int]) -> None:
    with ImageReader(project.read()) as reader:
        images = reader.read(np.array(rows, dtype=np.int64))
    assert images.shape == (len(rows), BOX_SIZE_PX, BOX_SIZE_PX)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_array_equal(image, project.image(row))


def test_each_optics_group_has_its_own_box_and_groups_are_read_apart(project: SmallProject) -> None:
    """Boxes of 8 and 11 px: an odd one is read as it is."""
    wide = np.random.default_rng(5).normal(size=(3, 11, 11)).astype(np.float32)
    write_mrc(project.root / STACKS[1], wide)
    project.stacks[STACKS[1]] = wide
    project.optics = {name: [*values, *values] for name, values in project.optics.items()}
    project.optics["rlnOpticsGroup"] = [1, 2]
    project.optics["rlnOpticsGroupName"] = ["first", "second"]
    project.optics["rlnImageSize"] = [BOX_SIZE_PX, 11]
    project.particles["rlnOpticsGroup"] = [1, 2, 1, 2, 2, 1]
    with ImageReader(project.read()) as reader:
        for rows in ([0, 5, 2], [4, 1]):
            for image, row in zip(reader.read(np.array(rows)), rows, strict=True):
                np.testing.assert_array_equal(image, project.image(row))
        with pytest.raises(ValueError, match="one box size"):
            reader.read(np.array([0, 1]))


@pytest.mark.parametrize("name", ["Extract/job003/mic1.mrc", "Extract/job003/mic1.st", "linked/deep/mic1.mrcs"])
def test_stacks_of_other_names_and_behind_links_are_read(project: SmallProject, name: str) -> None:
    elsewhere = project.root / "elsewhere.data"
    write_mrc(elsewhere, project.stacks[STACKS[0]])
    (project.root / "linked").mkdir()
    (project.root / "linked/deep").symlink_to(project.root / "linked")
    (project.root / name).symlink_to(elsewhere)
    for row, text in enumerate(project.particles["rlnImageName"]):
        project.particles["rlnImageName"][row] = str(text).replace(STACKS[0], name)
    project.stacks[name] = project.stacks[STACKS[0]]
    with ImageReader(project.read()) as reader:
        images = reader.read(np.arange(6))
    for row in range(6):
        np.testing.assert_array_equal(images[row], project.image(row))


def test_a_name_may_tell_its_format_as_relion_lets_it(project: SmallProject) -> None:
    (project.root / STACKS[0]).rename(project.root / "mic1.mrc")
    for row, text in enumerate(project.particles["rlnImageName"]):
        project.particles["rlnImageName"][row] = str(text).replace(STACKS[0], "mic1.mrc:mrcs")
    with ImageReader(project.read()) as reader:
        image = reader.read(np.array([2]))[0]
    np.testing.assert_array_equal(image, project.stacks[STACKS[0]][1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
@pytest.mark.parametrize("extended_header", [b"", b"FEI1" * 77])
def test_every_mode_and_byte_order(project: SmallProject, mode: int, order: str, extended_header: bytes) -> None:
    values = np.arange(3 * BOX_SIZE_PX**2, dtype=np.float32).reshape(3, BOX_SIZE_PX, BOX_SIZE_PX) % 120 + 1
    if mode in (0, 1, 2, 12):
        values *= np.array([1, -1, 1], np.float32)[:, None, None]
    if mode in (2, 12):
        values += 0.5
    for name in STACKS:
        write_mrc(project.root / name, values, mode=mode, order=order, extended_header=extended_header)
        project.stacks[name] = values
    with ImageReader(project.read()) as reader:
        images = reader.read(np.arange(6))
    for row in range(6):
        np.testing.assert_array_equal(images[row], project.image(row))


def test_float16_is_kept_where_all_pixels_are_stored_so(project: SmallProject) -> None:
    halves = np.arange(3 * BOX_SIZE_PX**2, dtype=np.float32).reshape(3, BOX_SIZE_PX, BOX_SIZE_PX) % 90 + 0.5
    write_mrc(project.root / STACKS[0], halves, mode=12)
    with ImageReader(project.read()) as reader:
        expected = reader.read(np.arange(6))
        own = reader._particles.stack_of_particle == reader._particles.stack_of_particle[2]
        stored, all_rows = np.flatnonzero(own), np.arange(6)
        assert 0 < len(stored) < 6
        assert reader.stored_type(stored) is np.float16
        assert reader.stored_type(all_rows) is np.float32
        for rows in (stored, all_rows):
            images = np.zeros((len(rows), BOX_SIZE_PX, BOX_SIZE_PX), reader.stored_type(rows))
            reader.read_unchecked(images, rows)
            np.testing.assert_array_equal(images, expected[rows])
    write_mrc(project.root / STACKS[0], halves, mode=12, order=">")
    with ImageReader(project.read()) as reader:
        assert reader.stored_type(stored) is np.float32  # of the other byte order


def test_each_thread_has_its_own_reader(project: SmallProject) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ReaderPool(project.read()) as pool:
        expected = pool.reader().read(np.arange(6))
        assert pool.reader() is pool.reader()
        with ThreadPoolExecutor(max_workers=1) as other:
            assert other.submit(pool.reader).result() is not pool.reader()
            found = other.submit(lambda: pool.reader().read(np.arange(6))).result()
        np.testing.assert_array_equal(found, expected)
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


def test_chunks_that_are_read_ahead_come_in_order() -> None:
    chunks = [np.array([i]) for i in range(7)]
    started: list[int] = []

    def load(chunk: np.ndarray) -> int:
        started.append(int(chunk[0]))
        time.sleep(0.002 * (7 - chunk[0]))  # the first take longest
        return int(chunk[0])

    for n_threads in (1, 3, 20):
        started.clear()
        read = read_ahead(load, chunks, n_threads)
        assert next(read) == 0
        assert len(started) <= n_threads + 1  # no more is held than that
        assert list(read) == [1, 2, 3, 4, 5, 6]
    assert list(read_ahead(load, [], 2)) == []


def test_reading_ahead_ends_when_nobody_wants_more() -> None:
    before = set(threading.enumerate())
    started: list[int] = []

    def load(chunk: np.ndarray) -> int:
        started.append(int(chunk[0]))
        time.sleep(0.01)
        return int(chunk[0])

    read = read_ahead(load, [np.array([i]) for i in range(50)], 2)
    assert next(read) == 0
    assert set(threading.enumerate()) > before
    read.close()
    assert set(threading.enumerate()) == before
    assert len(started) < 5
    finished = len(started)
    time.sleep(0.03)
    assert len(started) == finished


def test_few_files_are_open_and_none_afterwards(project: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "MAX_OPEN_FILES", 1)
    before = len(os.listdir("/proc/self/fd"))
    with ImageReader(project.read()) as reader:
        images = reader.read(np.arange(6))
        assert len(os.listdir("/proc/self/fd")) == before + 1
        np.testing.assert_array_equal(reader.read(np.array([4, 0]))[0], images[4])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_names_image_and_stack(project: SmallProject, value: float) -> None:
    stack = project.stacks[STACKS[0]].copy()
    stack[1, 2, 3] = value
    write_mrc(project.root / STACKS[0], stack)
    with ImageReader(project.read()) as reader:
        assert len(reader.read(np.array([0, 1, 3, 4, 5]))) == 5  # the other images are good
        with pytest.raises(InputError, match=rf"^Image 2 of {project.root / STACKS[0]} \(particle 3\) has 1 pixels"):
            reader.read(np.array([5, 2, 0]))


def test_a_stack_that_shrinks_or_vanishes_during_the_run_is_noticed(project: SmallProject) -> None:
    particles = project.read()
    path = project.root / STACKS[0]
    with ImageReader(particles) as reader:
        reader.read(np.array([5]))
        os.truncate(path, 1024 + 10)
        with pytest.raises(InputError, match="ends before section 3: it was changed during the run"):
            reader.read(np.array([0]))
    with ImageReader(particles) as reader, pytest.raises(InputError, match="is truncated"):
        reader.read(np.array([0]))
    write_mrc(path, np.zeros((2, BOX_SIZE_PX, BOX_SIZE_PX)))
    unstamped = replace(particles, stack_stamps=())
    with ImageReader(unstamped) as reader, pytest.raises(InputError, match="holds 2 images, but image 3 is needed"):
        reader.read(np.array([0]))
    write_mrc(path, np.zeros((3, 10, 10)))
    with ImageReader(particles) as reader, pytest.raises(InputError, match="10 x 10 pixels; expected 8 x 8"):
        reader.read(np.array([0]))
    path.unlink()
    with ImageReader(particles) as reader, pytest.raises(InputError, match="cannot be read: No such file"):
        reader.read(np.array([0]))


def test_a_stack_of_the_same_size_that_replaces_another_is_noticed(project: SmallProject) -> None:
    """Half of the images of one file and half of another's make a map of nothing."""
    particles = project.read()
    path = project.root / STACKS[0]
    with ImageReader(particles) as reader:
        before = reader.read(np.array([0]))
        write_mrc(project.root / "other.mrcs", -project.stacks[STACKS[0]])
        os.replace(project.root / "other.mrcs", path)
        np.testing.assert_array_equal(reader.read(np.array([0])), before)  # the open file is the old one
        reader.close()
        with pytest.raises(InputError, match=rf"{path} was changed or replaced during the run"):
            reader.read(np.array([0]))
    with ImageReader(project.read()) as reader:
        np.testing.assert_array_equal(reader.read(np.array([0])), -before)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nz": 2**31 - 1}, "is truncated"),
        ({"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1}, "is not an MRC file that can be used"),
        ({"nx": 65534, "ny": 65534, "nz": 2**31 - 1}, "is truncated"),
        ({"nx": -8}, "is not an MRC file that can be used"),
        ({"nz": 0}, "is not an MRC file that can be used"),
        ({"header_mode": 4}, "mode 4; expected"),
        ({"header_mode": 101}, "mode 101; expected"),
        ({"nsymbt": -1}, "damaged header"),
        ({"nsymbt": 2**31 - 1}, "is truncated"),
    ],
)
def test_an_absurd_header_is_refused_without_allocating(
    project: SmallProject, fields: dict[str, float], words: str
) -> None:
    write_mrc(project.root / STACKS[0], project.stacks[STACKS[0]], **fields)
    with pytest.raises(InputError, match=words) as caught:
        project.read()
    assert str(project.root / STACKS[0]) in str(caught.value)


def test_a_file_that_is_no_stack_is_refused(project: SmallProject) -> None:
    for content in (b"", b"short", b"\xff" * 5000, b"data_particles\n" * 500):
        (project.root / STACKS[0]).write_bytes(content)
        with pytest.raises(InputError, match="is not an MRC file"):
            project.read()


SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not there")
def test_real_float16_stacks_are_normalised_as_relion_leaves_them() -> None:
    root = SHARED_DATA / "betagal_10204"
    particles = read_particles(root / "Refine3D/job029/run_data.star", project_directory=root)
    assert len(particles) == 547
    np.testing.assert_array_equal(np.bincount(particles.half_set), [0, 251, 296])
    with ImageReader(particles) as reader:
        images = reader.read(np.arange(len(particles)))
    y, x = np.mgrid[-32:32, -32:32]
    background = images[:, np.hypot(x, y) > 30]
    np.testing.assert_allclose(background.mean(), 0, atol=0.05)
    np.testing.assert_allclose(background.std(), 1, atol=0.05)
