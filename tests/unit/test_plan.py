"""What a run would take, and settings that cannot work."""

import pytest

from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import OptionError
from gem_plugin.io.particles import OpticsGroup
from gem_plugin.phantom import random_particles
from gem_plugin.reconstruct import plan


def particles(box_size_px: int = 64, count: int = 100):  # type: ignore[no-untyped-def]
    return random_particles(count, OpticsGroup("one", 2.0, box_size_px, 300.0, 2.7, 0.1))


def test_the_plan_says_what_would_run() -> None:
    text = "\n".join(plan(particles(), ReconstructionConfig(), n_threads=2).lines())
    for word in ("50 in half 1", "64 px of 2 Angstrom", "chosen from the data", "memory", "disk", "time", "Numba"):
        assert word in text


def test_more_takes_more() -> None:
    def of(box_size_px: int = 64, count: int = 100, n_threads: int = 2, **settings: int):  # type: ignore[no-untyped-def]
        return plan(particles(box_size_px, count), ReconstructionConfig(**settings), n_threads=n_threads)

    assert of(128).memory_bytes > of().memory_bytes
    assert of(128).disk_bytes > 4 * of().disk_bytes
    assert of(count=100_000).seconds > of().seconds
    assert of(n_threads=8).seconds < of().seconds
    assert of(steps=1000).seconds > of(steps=10).seconds


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"maxres": 100.0}, "--maxres"),
        ({"particle_diameter": 200.0}, "wider than the box"),
        ({"particle_diameter": 5.0}, "fewer than"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, float], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        plan(particles(), ReconstructionConfig(**settings), n_threads=1)
