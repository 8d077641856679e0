"""Images from disk to a device: every one, in order, as stored, and none with a pixel that is no number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gem_plugin.conventions import half_plane
from gem_plugin.dataset import stream
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.device_stream import MOST_READERS, READ_AHEAD_BYTES, reading_threads, stream_to_device
from gem_plugin.errors import InputError
from gem_plugin.io.images import ReaderPool
from tests.unit.small_project import BOX_SIZE_PX, STACKS, SmallProject, write_mrc

CPU = torch.device("cpu")
PLANES = (half_plane(BOX_SIZE_PX, BOX_SIZE_PX / 2 - 0.5),)

pytestmark = pytest.mark.usefixtures("emulated_gpu")


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_all_images_come_in_the_hosts_order(project: SmallProject, n_threads: int, batch_size: int) -> None:
    particles = project.read()
    everyone = np.arange(len(particles))
    with ReaderPool(particles) as readers:
        found = list(stream_to_device(particles, readers, everyone, PLANES, batch_size, CPU, n_threads))
        expected = list(stream(particles, readers.reader(), everyone, PLANES, batch_size))
    assert [batch.indices.tolist() for batch in found] == [batch.indices.tolist() for batch in expected]
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs.observed).max()
        np.testing.assert_allclose(ours.observed.numpy(), theirs.observed, atol=1e-5 * scale)
        np.testing.assert_allclose(ours.ctf.numpy(), theirs.ctf, atol=1e-5)


def test_float16_goes_to_the_device_as_it_is(project: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in zip(STACKS, range(len(STACKS)), strict=True):
        values = np.random.default_rng(seed).normal(size=project.stacks[name].shape)
        write_mrc(project.root / name, values.astype(np.float16).astype(np.float32), mode=12)
    particles = project.read()
    kinds = []
    makes = DeviceBatches.batch

    def seen(self: DeviceBatches, images: torch.Tensor, indices: np.ndarray) -> object:
        kinds.append(images.dtype)
        return makes(self, images, indices)

    monkeypatch.setattr(DeviceBatches, "batch", seen)
    with ReaderPool(particles) as readers:
        assert list(stream_to_device(particles, readers, np.arange(6), PLANES, 4, CPU, 1))
    assert set(kinds) == {torch.float16}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e20])
@pytest.mark.parametrize("row", [0, 2])
def test_a_pixel_that_is_no_number_ends_the_stream(project: SmallProject, value: float, row: int) -> None:
    """In whatever batch, also the last."""
    particles = project.read()
    stack, section = particles.stack_of_particle[row], particles.image_in_stack[row]
    path = particles.stack_paths[stack]
    name = next(one for one in STACKS if (project.root / one).samefile(path))
    images = project.stacks[name].copy()
    images[section, 1, 2] = value
    write_mrc(project.root / name, images)
    particles = project.read()
    with (
        ReaderPool(particles) as readers,
        pytest.raises(InputError, match=rf"Image {section + 1} of .*particle {row + 1}"),
    ):
        list(stream_to_device(particles, readers, np.arange(6), PLANES, 2, CPU, 1))


def test_more_readers_than_pay_or_fit_are_not_started() -> None:
    assert [reading_threads(n, 1.0) for n in (0, 1, 3, 64)] == [1, 1, 3, MOST_READERS]
    assert reading_threads(64, READ_AHEAD_BYTES / 3) == 3
    assert reading_threads(64, 2 * READ_AHEAD_BYTES) == 1
