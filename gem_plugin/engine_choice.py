"""Which engine a process of a run gets, made ready and, if it is a GPU, compared with the CPU."""

import torch

from gem_plugin.config import ReconstructionConfig
from gem_plugin.engine_check import engine_fault
from gem_plugin.errors import ResourceError
from gem_plugin.monitor import Monitor
from gem_plugin.ops import voxelize
from gem_plugin.ops.engines import parse_gpu_ids, resolve_engine, uses_cuda_kernels
from gem_plugin.team import Team


def engine_of(config: ReconstructionConfig, team: Team) -> tuple[str, str]:
    """The engine of this process, and why that one; members of a team on one machine take one GPU after the other.

    Raises
    ------
    OptionError, ResourceError
        If it cannot be had.
    """
    if config.gpu != "auto":
        ids = parse_gpu_ids(config.gpu)
        return resolve_engine(config.engine, str(ids[team.rank_on_machine % len(ids)]))
    n_gpus = torch.cuda.device_count()
    if config.engine in ("cpu", "reference") or team.size == 1 or n_gpus < 2:
        return resolve_engine(config.engine)
    try:
        return resolve_engine("cuda", str(team.rank_on_machine % n_gpus))
    except ResourceError as error:
        if config.engine == "cuda":
            raise
        return "cpu", f"Numba on the CPU. {error}"


def ready_engine(config: ReconstructionConfig, team: Team, monitor: Monitor) -> tuple[str, str]:
    """The engine and why that one; its kernels are compiled by a first use, which is kept for later runs.

    A GPU has to give the CPU's answers. Where "auto" chose one that does not, the CPU takes its place.

    Raises
    ------
    OptionError, ResourceError
        If the engine that was asked for cannot be had, or computes wrongly.
    """
    engine, reason = engine_of(config, team)
    if uses_cuda_kernels(engine):
        monitor.stage("Comparing the GPU with the CPU (both compiled once)", 1, "steps")
        fault = engine_fault(engine)
        monitor.advance(1)
        if not fault:
            return engine, reason
        wrong = f"{engine} computes wrongly ({fault}): please report this with the card's name and its driver"
        if config.engine != "auto" or config.gpu != "auto":
            raise ResourceError(f"{wrong}; another card (--gpu), or --engine cpu, will do")
        monitor.warn(f"{wrong}; the CPU takes its place")
        return "cpu", "Numba on the CPU: the GPU computes wrongly"
    if engine == "cpu":
        monitor.stage("Preparing the CPU engine (compiled once)", 1, "steps")
        one = torch.zeros(1, 3, requires_grad=True)
        voxelize(one, torch.zeros(1, 3), torch.ones(1, 4), torch.ones(1), 8).sum().backward()  # type: ignore[no-untyped-call]
        monitor.advance(1)
    return engine, reason
