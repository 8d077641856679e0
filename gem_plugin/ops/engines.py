"""Which engine runs: the name that a user gave -> the engine that is used, and why."""

import torch

from gem_plugin.errors import OptionError


def resolve_engine(name: str) -> tuple[str, str]:
    """Choose the engine for a requested name.

    Returns
    -------
    the engine ("cpu" or "reference") and the reason in words, for the log

    Raises
    ------
    OptionError
        If there is no such engine.
    """
    if name == "auto":
        return "cpu", "Numba on the CPU: there is no GPU engine in this version"
    if name == "cpu":
        return "cpu", "Numba on the CPU, as asked"
    if name == "reference":
        return "reference", "the slow float64 reference, as asked"
    raise OptionError(f"there is no engine '{name}': expected auto, cpu or reference")


def device_of(engine: str) -> torch.device:
    """Where an engine's tensors live: "cuda" and "cuda:1" are devices of torch, all others the CPU."""
    return torch.device(engine if engine.split(":")[0] == "cuda" else "cpu")


def uses_cuda_kernels(engine: str) -> bool:
    """Whether an engine runs the kernels of the `cuda` folder."""
    return engine.split(":")[0] == "cuda"
