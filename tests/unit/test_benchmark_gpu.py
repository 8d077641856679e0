"""The script that measures a GPU, on the CPU's stand-in for one: every section runs, and what fails is told."""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu
import gpu_accumulate
import gpu_clock
import gpu_job
import gpu_machine
import gpu_page
import gpu_stand_ins
import gpu_step
import gpu_targets
from gpu_session import Session, stand_in_for_a_gpu

from gem_plugin.conventions import half_plane
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import read_particles
from gem_plugin.ops import engines
from gem_plugin.prediction import predicted_transforms
from tests.cuda_shim.emulator import EmulatedGpu, compile_for_cpu

MEASURED = ("environment", "compile", "check", "ceilings", "accumulate", "step", "images", "job")
CPU = torch.device("cpu")


def run(out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status = gpu.main(["--dry", "--out", str(out), *words])
    return status, json.loads((out / "dry.json").read_text())


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def session(tmp_path: Path, seconds: float = 60) -> Session:
    return Session(CPU, "cuda:0", True, gpu.time.monotonic() + seconds, tmp_path, 10)


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(item)
    elif isinstance(value, float):
        yield value


@pytest.mark.usefixtures("emulated_gpu")
def test_every_section_runs_and_finds_something(tmp_path: Path) -> None:
    status, result = run(tmp_path, *only(*MEASURED))
    assert [(name, part["outcome"]) for name, part in result["sections"].items()] == [(n, "done") for n in MEASURED]
    assert status == 0
    figures = {name: part["figures"] for name, part in result["sections"].items()}
    (first, second), file = figures["accumulate"]["cases"], figures["accumulate"]["from_a_cached_file"]
    assert (first["pixels"], second["pixels"]) == ("float16", "float32")
    parts = {"transforms of images", "centring", "CTFs", "digests", "spread b", "spread T"}
    assert set(first["parts"]) == parts  # a part that is not found any more would be missing, or "not_found"
    assert set(figures["step"]["profile"]["parts"]) == {
        "shapes of Gaussians", "draw", "FFTs, T and the loss", "gather", "chain rule", "optimiser",
    }  # fmt: skip
    assert set(figures["images"]["profile"]["parts"]) == {
        "images sent, transformed, CTFs", "project and transform", "compare", "gather", "chain rule", "optimiser",
    }  # fmt: skip
    assert figures["step"]["profile"]["not_found"] == figures["images"]["profile"]["not_found"] == []
    assert file["particles_per_second"] > 0
    assert figures["images"]["from_a_cached_file"]["images_per_second"] > 0
    assert figures["job"]["n_particles"] == 12
    assert all(number >= 0 for name in ("ceilings", "accumulate") for number in numbers_of(figures[name]))
    assert result["command"] == "python benchmarks/gpu.py --dry " + " ".join(only(*MEASURED))
    text = gpu_page.figures_of(result)
    for heading in ("Ceilings", "Compilation", "b and T", "A step of the collapsed fit", "A step of `--fit images`"):
        assert f"#### {heading}" in text
    assert "Not done" not in text


@pytest.mark.usefixtures("emulated_gpu")
def test_a_failure_is_told_and_does_not_stop_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(gpu_step, "_case", fail)
    monkeypatch.setattr(gpu_accumulate, "half_plane", fail)
    status, result = run(tmp_path, *only("accumulate", "step", "images"))
    sections = result["sections"]
    assert status == 1
    assert {name: part["outcome"] for name, part in sections.items()} == {
        "environment": "done", "ceilings": "done", "accumulate": "failed", "step": "failed", "images": "done",
    }  # fmt: skip
    assert "no such luck" in sections["step"]["why"]
    assert any("Traceback" in failure for failure in sections["step"]["failures"])


@pytest.mark.usefixtures("emulated_gpu")
def test_what_does_not_fit_is_left_out_and_an_earlier_result_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = run(tmp_path, *only("environment"))
    monkeypatch.setattr(Session, "seconds_left", property(lambda self: 1.0))
    status, result = run(tmp_path, *only("step", "images"))
    assert status == 0
    assert result["sections"]["environment"] == before["sections"]["environment"]
    assert result["sections"]["step"]["figures"].get("cases", []) == []
    assert "needs about 3 s" in result["sections"]["step"]["left_out"][0]
    monkeypatch.undo()
    assert session(tmp_path, 5).seconds_left == pytest.approx(5, abs=1)
    _, nothing = run(tmp_path, "--seconds", "0", *only("images"))
    assert nothing["sections"]["images"]["outcome"] == "skipped"


def test_missing_packages_have_stand_ins_that_refuse_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_stand_ins, "NEVER_CALLED", ("no_such_package", "numpy"))
    monkeypatch.setitem(sys.modules, "no_such_package", None)  # so that the entry goes with the test
    monkeypatch.setattr(gpu_stand_ins.importlib.util, "find_spec", lambda name: None if name[:2] == "no" else name)
    assert gpu_stand_ins.install() == ["no_such_package"]
    import no_such_package  # type: ignore[import-not-found]

    assert no_such_package.Frame | None  # an annotation
    with pytest.raises(gpu_stand_ins.NotInstalledError, match="no_such_package, of which Frame"):
        no_such_package.Frame(1)
    with pytest.raises(gpu_stand_ins.NotInstalledError, match="not installed: no_such_package, nothing_like_it"):
        gpu_stand_ins.require("numpy", "no_such_package", "nothing_like_it")


def test_the_images_of_a_job_are_what_its_table_says(
    tmp_path: Path, emulated_gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert emulated_gpu
    monkeypatch.setattr(gpu_job, "SIGNAL_TO_NOISE", 1e6)
    box, count = 16, 4
    gpu_job.make_project(session(tmp_path), tmp_path / "project", box, count)
    particles = read_particles(tmp_path / "project" / "particles.star", project_directory=tmp_path / "project")
    assert (particles.half_set == [1, 2, 1, 2]).all()
    everyone, plane = np.arange(count), half_plane(box, box / 2)
    with ImageReader(particles) as reader:
        batch = DeviceBatches(particles, (plane,), CPU).batch(reader.read(everyone), everyone)
    whole = gpu_job.tensors(gpu_job.some_gaussians(20, box, seed=3), CPU)
    expected = batch.ctf * predicted_transforms(whole, batch.slices, plane, box, engine="reference")
    for found, wanted in zip(batch.observed.numpy(), expected.numpy(), strict=True):
        agreement = np.vdot(wanted, found).real / np.linalg.norm(wanted) / np.linalg.norm(found)
        assert agreement > 0.999  # 16-bit pixels


def test_stages_of_a_job_are_read_from_what_it_says() -> None:
    said = [
        (1.0, "engine: cuda:0 (as asked)"),
        (2.0, "  Half 1: reading particles: 4000/8000 particles, 2000 particles/s, about 2 s left"),
        (4.0, "  Half 1: reading particles: 8000/8000 particles, 2000 particles/s, done in 3 s"),
        (9.5, "  Half 1: fitting 20000 Gaussians: 80/80 steps, 14.2 steps/s, loss 1.5, done in 6 s"),
    ]
    assert gpu_job.stages(said) == [
        {"stage": "Half 1: reading particles", "figures": "8000/8000 particles, 2000 particles/s", "seconds": 4.0},
        {"stage": "Half 1: fitting 20000 Gaussians", "figures": "80/80 steps, 14.2 steps/s, loss 1.5", "seconds": 5.5},
    ]


def test_targets_are_met_missed_or_not_measured() -> None:
    rows = [{"box_size_px": 256, "particles_per_second": rate, "peak_gb": 3.0} for rate in (15000.0, 25000.0)]
    steps = [{"box": 256, "n_gaussians": 50_000, "median_ms": 7.0, "peak_gb": 9.0}]
    job = {"warm": [{"seconds": 50.0}], "cold": {"seconds": 40.0}, "cold_read_seconds": 10.0}
    sections = {"accumulate": {"cases": rows}, "step": {"cases": steps}, "job": job}
    found = gpu_targets.targets({name: {"figures": figures} for name, figures in sections.items()})
    assert [(one["measured"], one["met"]) for one in found] == [
        (25000.0, True), (7.0, False), (None, None), (50.0, True), (9.0, False), (None, None), (40.0, False),
    ]  # fmt: skip


def test_parts_are_of_a_turn_and_what_lies_within_another_is_not_counted_twice() -> None:
    parts = gpu_clock.Parts(gpu_clock.Clock(CPU))
    parts.watch("gpu_clock", "summary", "whole").watch("statistics", "median", "within").watch("gpu_clock", "gone", "x")
    with parts:
        for _ in range(4):
            gpu_clock.summary([1.0])
            gpu_clock.summary([1.0])
            parts.turn()
    assert list(parts.medians()) == ["whole"]
    assert parts.not_found == ["gpu_clock.gone"]
    assert len(parts._spans) == 8
    gpu_clock.summary([1.0])
    assert len(parts._spans) == 8  # what was replaced is back


def test_the_stand_in_for_a_gpu_goes_as_it_came() -> None:
    before = engines.device_of
    with stand_in_for_a_gpu():
        assert engines.device_of("cuda:0") == CPU
    assert engines.device_of is before


def test_the_page_shows_what_was_measured_and_says_what_was_not() -> None:
    """Without a result file it states no speed, and the memory is that of the program's own formulas."""
    text = gpu_page.PAGE.read_text()
    results = gpu_page.results_in(gpu_page.HERE / "results")
    shown = gpu_page.with_part(
        text, "figures", "\n".join(map(gpu_page.figures_of, results)) if results else gpu_page.NO_CARD
    )
    assert shown == text, "run python benchmarks/gpu_page.py"
    assert gpu_page.memory_table((128,)).splitlines()[-1] in text, "run python benchmarks/gpu_page.py"
    with pytest.raises(ValueError, match="no marks for figures"):
        gpu_page.with_part("a page", "figures", "")


def test_the_page_tells_what_failed_was_skipped_or_left_out() -> None:
    sections = {
        "step": {
            "outcome": "failed",
            "why": "ValueError: no such luck",
            "left_out": ["box 512: needs about 23 s, 2 s are left"],
            "figures": {
                "cases": [
                    {"box": 256, "n_gaussians": 50_000, "median_ms": 4.2, "peak_gb": 2.5, "floor_of_ffts_ms": 0.5},
                    {"box": 384, "n_gaussians": 10_000, "median_ms": 9.9, "peak_gb": None, "floor_of_ffts_ms": 1.6},
                ]
            },
        },
        "job": {"outcome": "skipped", "why": "not installed: starfile", "figures": {}},
    }
    result = {
        "card": "a-card", "command": "python benchmarks/gpu.py", "date": "2026-01-01", "commit": "abc1234",
        "machine": {"cores": 16, "cpu": "a processor"}, "targets": gpu_targets.targets(sections), "sections": sections,
    }  # fmt: skip
    text = gpu_page.figures_of(result)
    assert "| 256 |  | 4.2 | 0.5 | 2.5 |" in text
    assert "| 384 | 9.9 |  | 1.6 | not measured |" in text
    assert "| a collapsed step, box 256, 50,000 Gaussians | <= 6 ms | 4.2 | yes |" in text
    assert "* step failed: ValueError: no such luck\n* step: left out box 512" in text
    assert "* job skipped: not installed: starfile" in text


def test_the_floor_of_a_call_is_the_copy_or_all_the_rest() -> None:
    assert gpu_page.floor_of({"copy_to_device": 5.0, "CTFs": 1.0, "spread b and T": 2.0}) == 5.0
    assert gpu_page.floor_of({"copy_to_device": 2.0, "CTFs": 1.0, "spread b and T": 2.0}) == 3.0


@pytest.mark.usefixtures("emulated_gpu")
def test_every_kernel_of_every_source_is_compiled_and_its_registers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    class RawModule:
        def __init__(self, code: str, options: tuple[str, ...]) -> None:
            self.code = code

        def compile(self) -> None:
            compiled.append(self.code)

        def get_function(self, name: str) -> types.SimpleNamespace:
            assert f" {name}(" in self.code
            return types.SimpleNamespace(num_regs=40, local_size_bytes=0, shared_size_bytes=len(name))

    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(RawModule=RawModule))
    on_gpu = session(tmp_path)
    on_gpu.is_dry = False
    variants = gpu_machine.compile_all(on_gpu)["variants"]
    sources = gpu_machine.all_sources()
    assert [compiled.count(source.text) for source in sources] == [2] * len(sources)  # once more, from the disk
    for source, variant in zip(sources, variants, strict=True):
        assert set(variant["kernels"]) == set(compile_for_cpu(source.text).bounds)


def test_the_clock_is_nvidia_smis() -> None:
    assert gpu_machine.clock_ghz({"clocks.max.sm": "1755 MHz"}) == 1.755
    assert gpu_machine.clock_ghz({"note": "none"}) == gpu_machine.MAXIMAL_CLOCK_GHZ
