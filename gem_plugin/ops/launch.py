"""How a CUDA kernel is started, whatever runs it: CuPy on a GPU or, in tests, a stand-in on the CPU."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from gem_plugin.ops.cuda_source import KernelSource

# A kernel's argument: a contiguous tensor on the launcher's device is passed as its address; a number must have the
# type of the kernel's parameter, because nobody checks it.
Argument = torch.Tensor | np.int32 | np.int64 | np.float32 | np.float64


class Launcher(Protocol):
    """Starts kernels on one device, on torch's current stream there."""

    def launch(
        self,
        source: KernelSource,
        kernel: str,
        grid: tuple[int, int, int],
        n_threads: int,
        arguments: tuple[Argument, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel and return; what it writes is there for everything that is started later on that stream.

        Parameters
        ----------
        kernel : its name in the source, where it is declared ``extern "C" __global__``
        grid : blocks on x, y, z; nothing is started if one of them is 0
        n_threads : of a block, all along x
        shared_bytes : of dynamic shared memory for each block
        """


_LAUNCHERS: dict[str, Callable[[torch.device], Launcher]] = {}


def register_launcher(device_type: str, make: Callable[[torch.device], Launcher]) -> None:
    """Say who starts kernels on devices of a type ("cuda"; "cpu" in tests alone)."""
    _LAUNCHERS[device_type] = make


def forget_launcher(device_type: str) -> None:
    """Take back `register_launcher`."""
    _LAUNCHERS.pop(device_type, None)


def launcher_for(device: torch.device) -> Launcher:
    """Who starts kernels on a device.

    Raises
    ------
    RuntimeError
        If nobody does.
    """
    if device.type == "cuda" and "cuda" not in _LAUNCHERS:
        from gem_plugin.ops import cupy_cuda  # CuPy is imported where a GPU is used, and nowhere else

        register_launcher("cuda", cupy_cuda.CupyLauncher)
    make = _LAUNCHERS.get(device.type)
    if make is None:
        raise RuntimeError(f"no CUDA kernels on a device of type '{device.type}'")
    return make(device)


def checked(tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor that a kernel may take by its address.

    Raises
    ------
    ValueError
        If its shape, type or device is another, or it is not contiguous.
    """
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != device or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel's argument is {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            f"{'' if tensor.is_contiguous() else ', not contiguous'}; expected contiguous {shape} {dtype} on {device}"
        )
    return tensor
