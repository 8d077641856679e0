"""The comparison of a GPU with the CPU: the stand-in passes, and one that computes anything wrongly does not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gem_plugin import engine_check
from gem_plugin.engine_check import engine_fault
from tests.cuda_shim.emulator import EmulatedGpu


@pytest.mark.usefixtures("emulated_gpu")
def test_right_answers_pass() -> None:
    assert engine_fault("cuda:0") is None


def wrong_by(share: float, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but on a GPU all values are too large by a share."""

    def change(*arguments: Any, engine: str, **named: Any) -> torch.Tensor:
        result: torch.Tensor = work(*arguments, engine=engine, **named)
        return result * (1 + share) if engine.startswith("cuda") else result

    return change


@pytest.mark.parametrize("name", ["voxelize", "project"])
@pytest.mark.parametrize("share", [0.01, float("nan")])
def test_wrong_answers_are_named(
    emulated_gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    assert emulated_gpu
    monkeypatch.setattr(engine_check, name, wrong_by(share, getattr(engine_check, name)))
    fault = engine_fault("cuda:0")
    assert fault is not None
    assert ("map" if name == "voxelize" else "images") in fault


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.parametrize("name", ["sums of images", "sums of transfer functions", "products of maps and sums"])
def test_wrong_sums_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    right = engine_check._accumulated

    def change(engine: str) -> dict[str, torch.Tensor]:
        answers = right(engine)
        return {**answers, name: answers[name].roll(1, 2)} if engine.startswith("cuda") else answers

    monkeypatch.setattr(engine_check, "_accumulated", change)
    fault = engine_fault("cuda:0")
    assert fault is not None
    assert fault.startswith(name)
