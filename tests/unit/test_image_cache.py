"""Images that are asked for again: read once, kept where there is room, the same wherever they are kept."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gem_plugin import image_cache
from gem_plugin.errors import InputError
from gem_plugin.image_cache import ImageCache
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from tests.unit.small_project import STACKS, SmallProject, write_mrc

CPU = torch.device("cpu")
EVERYONE = np.arange(6)


class Counting(ImageReader):
    """Counts what is read."""

    def __init__(self, particles: Particles) -> None:
        super().__init__(particles)
        self.rows: list[int] = []

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        self.rows.extend(indices.tolist())
        return super().read(indices)


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


def epochs(cache: ImageCache, reader: Counting, expected: NDArray[np.float32]) -> None:
    """Two epochs of minibatches in random orders."""
    random = np.random.default_rng(1)
    for _ in range(2):
        for part in np.split(random.permutation(EVERYONE), 3):
            found = cache.read(part)
            assert np.array_equal(np.asarray(found), expected[part])
    if cache._kept:
        assert sorted(reader.rows) == EVERYONE.tolist()
    else:
        assert len(reader.rows) == 12


@pytest.mark.parametrize("free", [1e9, 1.0])
@pytest.mark.parametrize("has_scratch", [False, True])
@pytest.mark.parametrize("mode", [2, 12])
def test_each_image_is_read_once_where_there_is_room(
    project: SmallProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, has_scratch: bool, mode: int
) -> None:
    for name in STACKS:
        values = np.random.default_rng(len(name)).normal(size=project.stacks[name].shape)
        write_mrc(project.root / name, values.astype(np.float16).astype(np.float32), mode=mode)
    monkeypatch.setattr(image_cache, "available_memory_bytes", lambda: free)
    scratch = tmp_path / "scratch" if has_scratch else None
    if scratch is not None:
        scratch.mkdir()
    told: list[str] = []
    particles = project.read()
    with Counting(particles) as reader, ImageReader(particles) as plain:
        cache = ImageCache(particles, EVERYONE, reader, CPU, scratch, told.append)
        epochs(cache, reader, plain.read(EVERYONE))
        for kept in cache._kept.values():
            assert kept.images.dtype == (np.float16 if mode == 12 else np.float32)
            assert isinstance(kept.images, np.memmap) == (free == 1 and has_scratch)
    where = "kept in memory" if free > 1 else f"kept in {scratch}" if has_scratch else "read again in every epoch"
    assert len(told) == 1
    assert where in told[0]
    assert scratch is None or not os.listdir(scratch)  # nothing that could be left behind


def test_images_on_a_device_are_tensors_there(project: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageCache, "_choose", lambda self, *_: self._on_device)
    particles = project.read()
    with Counting(particles) as reader, ImageReader(particles) as plain:
        cache = ImageCache(particles, EVERYONE, reader, CPU, None, lambda _: None)
        assert isinstance(cache.read(EVERYONE[:2]), torch.Tensor)
        reader.rows.clear()
        cache._kept[0].is_there[:] = False
        epochs(cache, reader, plain.read(EVERYONE))


def test_a_scratch_folder_that_cannot_be_used_is_named(
    project: SmallProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "available_memory_bytes", lambda: 1.0)
    particles = project.read()
    with (
        Counting(particles) as reader,
        pytest.raises(InputError, match=r"nowhere \(No such file or directory\): give --scratch"),
    ):
        ImageCache(particles, EVERYONE, reader, CPU, tmp_path / "nowhere", lambda _: None)

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Counting(particles) as reader, pytest.raises(InputError, match="No space left on device"):
        ImageCache(particles, EVERYONE, reader, CPU, tmp_path, lambda _: None)
