"""What a run would take, and settings that cannot work."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import InputError, OptionError, ResourceError
from gem_plugin.image_checks import shifts_sentences
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.monitor import SilentMonitor
from gem_plugin.phantom import random_particles
from gem_plugin.reconstruct import _warn_where_the_mask_misses, plan


def particles(box_size_px: int = 64, count: int = 100):  # type: ignore[no-untyped-def]
    return random_particles(count, OpticsGroup("one", 2.0, box_size_px, 300.0, 2.7, 0.1))


def test_the_plan_says_what_would_run() -> None:
    text = "\n".join(plan(particles(), ReconstructionConfig(), n_threads=2).lines())
    for word in ("50 in half 1", "64 px of 2 Angstrom", "chosen from the data", "memory", "disk", "time", "Numba"):
        assert word in text


def test_the_plan_says_what_is_fitted_to() -> None:
    for fit, words in (("collapsed", "all images at once"), ("images", "a few images a step")):
        assert words in "\n".join(plan(particles(), ReconstructionConfig(fit=fit), n_threads=2).lines())


def test_more_takes_more() -> None:
    def of(box_size_px: int = 64, count: int = 100, n_threads: int = 2, **settings: float | str):  # type: ignore[no-untyped-def]
        return plan(particles(box_size_px, count), ReconstructionConfig(**settings), n_threads=n_threads)

    assert of(128).memory_bytes > of().memory_bytes
    assert of(128).disk_bytes > 4 * of().disk_bytes
    assert of(128).checkpoint_bytes > 4 * of().checkpoint_bytes
    assert of(count=100_000).seconds > of().seconds
    assert of(n_threads=8).seconds < of().seconds
    assert of(steps=1000).seconds > of(steps=10).seconds
    assert of(256, sym="C3", maxres=16.0).memory_bytes > 1.5 * of(256, maxres=16.0).memory_bytes
    assert of(256, sym="I1").seconds > of(256, sym="C3").seconds > of(256).seconds
    assert of(256, sym="D2").memory_bytes == of(256).memory_bytes  # its operators only move voxels
    assert of(count=100_000, fit="images").seconds > 2 * of(count=100_000).seconds


def test_images_that_fit_into_no_memory_take_scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = ReconstructionConfig(fit="images", scratch=tmp_path)
    assert plan(particles(), few, n_threads=2).scratch_bytes == 0
    monkeypatch.setattr("gem_plugin.plan.available_memory_bytes", lambda: 1e5)
    assert plan(particles(), few, n_threads=2).scratch_bytes == 50 * 64**2 * 4
    assert plan(particles(), ReconstructionConfig(fit="images"), n_threads=2).scratch_bytes == 0


def test_each_kind_of_images_takes_its_own_arrays() -> None:
    one = particles(256)
    finer = dataclasses.replace(one.optics_groups[0], pixel_size_in_angstroms=1.9)
    groups = (np.arange(len(one)) % 3 == 0).astype(np.int32)
    two = dataclasses.replace(one, optics_groups=(*one.optics_groups, finer), group_of_particle=groups)
    memory = [plan(some, ReconstructionConfig(), n_threads=2).memory_bytes for some in (one, two)]
    assert memory[1] > 1.2 * memory[0]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"maxres": 100.0}, "--maxres"),
        ({"particle_diameter": 200.0}, "wider than the box"),
        ({"locres_radius": 0.001}, "--locres_radius 0.001 Angstrom .* between 4.0 and 64.0"),
        ({"locres_radius": 70.0}, "--locres_radius 70 Angstrom"),
        ({"particle_diameter": 5.0}, "fewer than"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, float], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        plan(particles(), ReconstructionConfig(**settings), n_threads=1)


def test_a_box_that_does_not_fit_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gem_plugin.reconstruct.available_memory_bytes", lambda: 1e9)
    with pytest.raises(ResourceError, match="256 px takes about"):
        plan(particles(256), ReconstructionConfig(), n_threads=1)


@pytest.mark.parametrize("box_size_px", [8, 30_000])
def test_absurd_boxes_are_refused(box_size_px: int) -> None:
    with pytest.raises(InputError, match=f"{box_size_px} px"):
        plan(particles(box_size_px), ReconstructionConfig(), n_threads=1)


def test_shifts_beyond_the_box_are_noticed() -> None:
    good = particles()
    one, all_of_them = good.shifts_in_angstroms.copy(), good.shifts_in_angstroms + 5000
    one[7, 1] = -90.0
    sentences = shifts_sentences(dataclasses.replace(good, shifts_in_angstroms=one))
    assert len(sentences) == 1
    assert "1 of 100" in sentences[0]
    assert "particle 8" in sentences[0]
    with pytest.raises(InputError, match="100 of 100"):
        shifts_sentences(dataclasses.replace(good, shifts_in_angstroms=all_of_them))
    assert not shifts_sentences(good)
    wider = dataclasses.replace(good.optics_groups[0], box_size_px=128)  # of the group of particle 8
    groups = (np.arange(len(good)) == 7).astype(np.int32)
    two = dataclasses.replace(good, optics_groups=(*good.optics_groups, wider), group_of_particle=groups)
    assert not shifts_sentences(dataclasses.replace(two, shifts_in_angstroms=one))


def test_a_mask_that_leaves_the_particle_out_is_named() -> None:
    sentences: list[str] = []

    class Heard(SilentMonitor):
        def warn(self, message: str) -> None:
            sentences.append(message)

    volume = np.zeros((16, 16, 16), dtype=np.float32)
    volume[6:10, 6:10, 6:10] = 1
    heard = Heard()
    _warn_where_the_mask_misses(volume, volume, heard)
    assert not sentences
    _warn_where_the_mask_misses(volume, 1 - volume, heard)
    assert "holds 0% of the map" in sentences[0]
