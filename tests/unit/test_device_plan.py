"""What a run takes of a GPU's memory, and what it leaves out where there is not enough."""

import pytest
import torch

from gem_plugin import device_plan
from gem_plugin.conventions import half_plane
from gem_plugin.device_plan import LEAST_SHARE, USABLE, gpu_bytes, gpu_sentence, plane_with_room
from gem_plugin.errors import ResourceError
from gem_plugin.map_operators import SLAB_BYTES, slab_bytes
from gem_plugin.ops import engines
from gem_plugin.render import choose_render_box

GB = 1e9


def free(monkeypatch: pytest.MonkeyPatch, n_bytes: float) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (n_bytes, 80 * GB))


@pytest.mark.parametrize(("box", "most"), [(256, 8 * GB), (512, 24 * GB)])
def test_runs_fit_on_the_cards_that_they_are_meant_for(box: int, most: float) -> None:
    plane = half_plane(box, box / 2 - 0.5)
    assert most / 4 < gpu_bytes(plane, choose_render_box(plane)) < most


def test_frequencies_are_left_out_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = half_plane(256, 127.5)
    whole = gpu_bytes(plane, choose_render_box(plane))
    free(monkeypatch, 1.2 * whole)
    assert plane_with_room("cuda:1", plane, 1.0) == (plane, "")
    free(monkeypatch, 0.95 * whole)
    fewer, sentence = plane_with_room("cuda:1", plane, 1.0)
    assert LEAST_SHARE * 127 < fewer.radius.max() < plane.radius.max()
    assert gpu_bytes(fewer, choose_render_box(fewer)) < USABLE * 0.95 * whole
    assert sentence.startswith("cuda:1 has ")
    assert f"frequencies up to {256 / fewer.radius.max():.1f}" in sentence
    free(monkeypatch, 0.3 * GB)
    with pytest.raises(ResourceError, match=r"0\.3 of 80\.0 GB are free.*--engine cpu"):
        plane_with_room("cuda:1", plane, 1.0)


def test_the_cpu_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0)
    plane = half_plane(64, 31.5)
    assert plane_with_room("cpu", plane, 1.0) == (plane, "")
    assert slab_bytes(torch.device("cpu")) == SLAB_BYTES


def test_slabs_are_thinner_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda:0")
    free(monkeypatch, 80 * GB)
    assert slab_bytes(device) == SLAB_BYTES
    free(monkeypatch, 2 * GB)
    assert 0.05 * GB < slab_bytes(device) < 0.25 * 2 * GB / 4 * 1.1


def test_the_plan_says_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "device_of", lambda engine: torch.device("cpu"))
    monkeypatch.setattr(device_plan, "batch_size_for", lambda planes, device: 777)
    plane = half_plane(128, 63.5)
    sentence = gpu_sentence("cuda:0", plane, (plane,), 160)
    assert f"about {gpu_bytes(plane, 160) / GB:.1f} GB" in sentence
    assert "777 particles at a time" in sentence
