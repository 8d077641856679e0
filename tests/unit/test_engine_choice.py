"""Which engine a run gets where GPUs work, do not, or compute wrongly."""

import pytest
import torch

from gem_plugin import engine_choice
from gem_plugin.config import ReconstructionConfig
from gem_plugin.engine_choice import engine_of, ready_engine
from gem_plugin.errors import ResourceError
from gem_plugin.monitor import SilentMonitor
from gem_plugin.ops import engines
from gem_plugin.team import SOLO, Team


class Member(Team):
    """One of several processes on one machine."""

    size = 3

    def __init__(self, rank_on_machine: int) -> None:
        self.rank_on_machine = rank_on_machine


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "try_gpu", lambda index: f"card {index}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_members_on_one_machine_take_one_gpu_after_the_other() -> None:
    config = ReconstructionConfig(gpu="5:7")
    assert [engine_of(config, Member(rank))[0] for rank in range(3)] == ["cuda:5", "cuda:7", "cuda:5"]
    config = ReconstructionConfig()
    assert [engine_of(config, Member(rank))[0] for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert engine_of(config, SOLO) == ("cuda:0", "card 0: it works")
    assert engine_of(ReconstructionConfig(engine="cpu"), Member(1))[0] == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_fails_is_replaced_only_where_nobody_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(index: int) -> str:
        raise ResourceError(f"There is no GPU {index}.")

    monkeypatch.setattr(engines, "try_gpu", broken)
    for team in (SOLO, Member(1)):
        engine, reason = engine_of(ReconstructionConfig(), team)
        assert engine == "cpu"
        assert "There is no GPU" in reason
    for config in (ReconstructionConfig(engine="cuda"), ReconstructionConfig(gpu="1")):
        for team in (SOLO, Member(1)):
            with pytest.raises(ResourceError, match="There is no GPU"):
                engine_of(config, team)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_computes_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "engine_fault", lambda engine: "gradients differ")
    monitor = SilentMonitor()
    assert ready_engine(ReconstructionConfig(), SOLO, monitor)[0] == "cpu"
    assert "cuda:0 computes wrongly (gradients differ)" in monitor.warnings[0]
    with pytest.raises(ResourceError, match="gradients differ"):
        ready_engine(ReconstructionConfig(engine="cuda"), SOLO, monitor)
    monkeypatch.setattr(engine_choice, "engine_fault", lambda engine: None)
    assert ready_engine(ReconstructionConfig(), SOLO, monitor)[0] == "cuda:0"
