"""Which engine runs: the name that a user gave -> the engine that is used, and why."""

import contextlib
import re

import torch

from gem_plugin.errors import GemError, OptionError, ResourceError


def resolve_engine(name: str, gpu_ids: str = "") -> tuple[str, str]:
    """Choose the engine for a requested name.

    Parameters
    ----------
    name : auto, cpu, cuda or reference
    gpu_ids : which GPUs may be used, as `parse_gpu_ids` takes them; the engine is on the first

    Returns
    -------
    the engine ("cpu", "reference", or "cuda:0" and the like) and the reason in words, for the log

    Raises
    ------
    OptionError
        If there is no such engine, or the ids are no ids, or they are given to an engine without GPUs.
    ResourceError
        If the engine "cuda" is asked for, or GPUs are named, and one of them cannot be used.
    """
    if name not in ("auto", "cpu", "cuda", "reference"):
        raise OptionError(f"there is no engine '{name}': expected auto, cpu, cuda or reference")
    ids = parse_gpu_ids(gpu_ids)
    if ids and name in ("cpu", "reference"):
        raise OptionError(f"--gpu {gpu_ids} names GPUs, but --engine {name} uses none: leave one of them out")
    if name == "cpu":
        return "cpu", "Numba on the CPU, as asked"
    if name == "reference":
        return "reference", "the slow float64 reference, as asked"
    if name == "cuda" or ids:
        return f"cuda:{(ids or (0,))[0]}", ", ".join([try_gpu(index) for index in ids or (0,)]) + ", as asked"
    try:
        return "cuda:0", f"{try_gpu(0)}: it works"
    except GemError as error:
        return "cpu", f"Numba on the CPU. {error}"


def parse_gpu_ids(text: str) -> tuple[int, ...]:
    """GPUs of RELION's --gpu: indices into CUDA_VISIBLE_DEVICES, between commas or colons, each once.

    RELION puts colons between processes and commas between the threads of one; here a GPU is shared out once.

    Raises
    ------
    OptionError
        If it is something else.
    """
    if not text.strip():
        return ()
    words = [word.strip() for word in re.split("[,:]", text)]
    if not all(re.fullmatch("[0-9]{1,3}", word) for word in words):
        raise OptionError(f'--gpu "{text}": expected numbers of GPUs, from 0, such as 0 or 0,1 or 0:1')
    return tuple(dict.fromkeys(int(word) for word in words))


def try_gpu(index: int) -> str:
    """Run a small kernel on a GPU and say which GPU it is.

    Raises
    ------
    ResourceError
        If it cannot be used, or counts wrong.
    """
    from gem_plugin.ops import cuda_voxelize, cupy_cuda  # where a GPU may be used, and nowhere else

    cupy_cuda.check_gpu(index)
    with cupy_cuda.memory_explained(index):
        found = cuda_voxelize.trial(device_of(f"cuda:{index}"))
    if not abs(found - 1) < 0.01:
        raise ResourceError(
            f"GPU {index} counts wrong ({found:.4f} for 1): choose another with --gpu, or use --engine cpu."
        )
    return f"CUDA kernels on GPU {index} ({torch.cuda.get_device_name(index)})"


def device_of(engine: str) -> torch.device:
    """Where an engine's tensors live: "cuda:1" is a device of torch, "cuda" the first, all others are on the CPU."""
    if not uses_cuda_kernels(engine):
        return torch.device("cpu")
    return torch.device(engine if ":" in engine else "cuda:0")


def uses_cuda_kernels(engine: str) -> bool:
    """Whether an engine runs the kernels of the `cuda` folder."""
    return engine.split(":")[0] == "cuda"


def memory_explained(engine: str) -> contextlib.AbstractContextManager[None]:
    """Turn what a full GPU makes torch say into a GpuMemoryError that says how full it is."""
    if not uses_cuda_kernels(engine):
        return contextlib.nullcontext()
    from gem_plugin.ops import cupy_cuda  # where a GPU is used, and nowhere else

    return cupy_cuda.memory_explained(device_of(engine).index or 0)
