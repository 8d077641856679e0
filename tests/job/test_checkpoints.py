"""A run that ended early and is continued ends as one that was not interrupted, and does not do its work twice."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin import shards
from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import JobAborted
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles, read_particles
from gem_plugin.monitor import SilentMonitor
from gem_plugin.reconstruct import plan, reconstruct
from gem_plugin.reconstruction import Reconstruction
from tests.job.project import make_project

pytestmark = pytest.mark.slow

COLLAPSED = ReconstructionConfig(n_gaussians=0)
IMAGES = ReconstructionConfig(fit="images", steps=12, n_gaussians=40)
CONTROL = ReconstructionConfig(n_gaussians=30, steps=3, noise_control=9.0)


class Memory:
    """Keeps arrays; ends the run after the first `last` times that it was asked to keep something."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, NDArray[Any]]] = {}
        self.names: list[str] = []  # in the order in which they were kept
        self.last: int | None = None
        self.most_bytes = 0
        self.most_names = 0

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        found = self.kept.get(name)
        return None if found is None else {key: value.copy() for key, value in found.items()}

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.kept[name] = {key: np.array(value) for key, value in arrays.items()}
        assert all(value.dtype != object for value in self.kept[name].values()), (
            "arrays that can be read without pickle"
        )
        self.names.append(name)
        self.most_bytes = max(
            self.most_bytes, sum(array.nbytes for kept in self.kept.values() for array in kept.values())
        )
        self.most_names = max(self.most_names, len(self.kept))
        if self.last is not None and len(self.names) >= self.last:
            raise JobAborted("the test ends the run here")

    def drop(self, prefix: str) -> None:
        for name in [name for name in self.kept if name.startswith(prefix)]:
            del self.kept[name]

    def is_due(self) -> bool:
        return True


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    folder = tmp_path_factory.mktemp("checkpoints")
    project = make_project(folder, n_particles=120, box_size_px=24, snr=2.0).write()
    return read_particles(folder / project.table, project_directory=folder)


def run(particles: Particles, config: ReconstructionConfig, memory: Memory) -> tuple[Reconstruction, SilentMonitor]:
    monitor = SilentMonitor()
    made = reconstruct(particles, config, n_threads=1, mask=None, reference=None, monitor=monitor, store=memory)
    return made, monitor


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """To the bit, in every field."""
    if dataclasses.is_dataclass(first):
        assert type(first) is type(second), where
        for field in dataclasses.fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name), f"{where}.{field.name}")
    elif isinstance(first, tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype, where
        np.testing.assert_array_equal(first, second, err_msg=where)
    else:
        assert first == second or (first != first and second != second), where


@pytest.mark.parametrize("config", [COLLAPSED, IMAGES, CONTROL], ids=["collapsed", "images", "control"])
def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    particles: Particles, config: ReconstructionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "POINTS_PER_SHARD", 20 * 220)  # a quarter set's 30 particles in two parts
    undisturbed = Memory()
    expected, _ = run(particles, config, undisturbed)
    kinds = {name.removeprefix("control_").partition("_")[2] for name in undisturbed.names}
    assert kinds == {"sums0", "sums1", "fits", "result"} | ({"choice"} if config is COLLAPSED else set())
    assert undisturbed.kept.keys() >= {"half1_result", "half2_result"}
    assert undisturbed.most_names <= 8
    assert undisturbed.most_bytes < plan(particles, config, n_threads=1).checkpoint_bytes
    n_kept = len(undisturbed.names)
    random = np.random.default_rng(3)
    of_each_kind = [undisturbed.names.index(name) + 1 for name in dict.fromkeys(undisturbed.names)]
    for last in sorted({*of_each_kind, *random.choice(np.arange(1, n_kept + 1), 6, replace=False).tolist()})[::2]:
        memory = Memory()
        memory.last = last
        with pytest.raises(JobAborted):
            run(particles, config, memory)
        memory.last, before = None, len(memory.names)
        continued, monitor = run(particles, config, memory)
        assert_same(continued, expected, f"after {last} of {n_kept}: ")
        assert len(memory.names) - before <= n_kept - last, "what was kept was not done again"
        assert any("checkpoint" in note for note in monitor.notes)


def test_a_run_interrupted_again_and_again_goes_on(particles: Particles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps a time; each time the images that are still needed are fewer."""
    monkeypatch.setattr(shards, "POINTS_PER_SHARD", 20 * 220)
    expected, _ = run(particles, CONTROL, Memory())
    read: list[int] = []
    count = [0]
    plain = ImageReader.read

    def counted(reader: ImageReader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        count[0] += len(rows)
        return plain(reader, rows)

    monkeypatch.setattr(ImageReader, "read", counted)
    memory = Memory()
    for _ in range(100):
        count[0] = 0
        memory.last = len(memory.names) + 3
        try:
            continued, _ = run(particles, CONTROL, memory)
        except JobAborted:
            read.append(count[0])
            continue
        break
    assert_same(continued, expected)
    assert len(read) > 5
    assert count[0] < read[0]


def test_sums_of_other_particles_are_not_used(particles: Particles) -> None:
    memory = Memory()
    memory.last = 1
    with pytest.raises(JobAborted):
        run(particles, CONTROL, memory)
    memory.last = None
    expected, _ = run(particles, CONTROL, Memory())
    kept = memory.kept["half1_sums0"]
    kept["rows"] = kept["rows"][::-1] + 1
    kept["right_side"] = kept["right_side"] * 2
    continued, _ = run(particles, CONTROL, memory)
    assert_same(continued, expected)


def test_warnings_before_the_interruption_are_in_the_report(
    particles: Particles, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONTROL.model_copy(update={"noise_control": 0.0})
    undisturbed = Memory()
    with monkeypatch.context() as patched:
        patched.setattr("gem_plugin.half_data.judge_contrast", lambda *_: "looks odd")
        expected, _ = run(particles, config, undisturbed)
        memory = Memory()
        memory.last = undisturbed.names.index("half1_result") + 1
        with pytest.raises(JobAborted):
            run(particles, config, memory)
        memory.last = None
    continued, monitor = run(particles, config, memory)  # half 2 does not look odd any more
    assert "Half 1: looks odd" in monitor.warnings
    assert [said for said in expected.warnings if said != "Half 2: looks odd"] == list(continued.warnings)
