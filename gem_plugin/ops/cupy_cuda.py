"""Starts CUDA kernels on a GPU through CuPy, beside torch: its tensors, its streams, its devices.

CuPy compiles a source with NVRTC when one of its kernels is first used on a device, and keeps the machine code in
CUPY_CACHE_DIR (~/.cupy/kernel_cache) under a hash of the source's text, the options, the compiler and the card; so
texts are put together before (`gem_plugin.ops.cuda_source`), and no kernel includes a file.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from gem_plugin.errors import GpuMemoryError, ResourceError
from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import Argument

COMPILER_OPTIONS = ("-std=c++17",)
OLDEST_CARD = (7, 0)  # compute capability
OLDEST_CARD_OF_NVRTC_13 = (7, 5)
_ALWAYS_SHARED_BYTES = 48 * 1024  # of dynamic shared memory; for more, a kernel has to be told before
_NO_ROOM = ("CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")

_LOCK = threading.RLock()  # torch runs gradients in threads of its own
_CHECKED: set[int] = set()  # devices that can be used
_FUNCTIONS: dict[tuple[KernelSource, str, int], Any] = {}


class CupyLauncher:
    """Starts kernels on one GPU: see `gem_plugin.ops.launch.Launcher`.

    Raises
    ------
    ResourceError
        If the GPU cannot be used; the message says what to install or to set.
    """

    def __init__(self, device: torch.device) -> None:
        self._index = device.index if str(device) != device.type else torch.cuda.current_device()
        check_gpu(self._index)

    def launch(
        self,
        source: KernelSource,
        kernel: str,
        grid: tuple[int, int, int],
        n_threads: int,
        arguments: tuple[Argument, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel on torch's current stream: see `gem_plugin.ops.launch.Launcher`.

        Raises
        ------
        GpuMemoryError, ResourceError
            If there is no room on the GPU, or the kernel cannot be compiled or started there.
        ValueError
            If a tensor lies on another device.
        """
        if 0 in grid:
            return
        values = tuple(self._address(a) if isinstance(a, torch.Tensor) else a for a in arguments)
        cupy = _import_cupy()
        with memory_explained(self._index), cupy.cuda.Device(self._index), _stream(cupy, self._index):
            function = self._function(cupy, source, kernel, shared_bytes)
            function(grid, (n_threads, 1, 1), values, shared_mem=shared_bytes)

    def _address(self, tensor: torch.Tensor) -> int:
        if tensor.device.type != "cuda" or tensor.device.index != self._index:
            raise ValueError(f"a kernel for GPU {self._index} is given a tensor on {tensor.device}")
        return tensor.data_ptr()

    def _function(self, cupy: Any, source: KernelSource, kernel: str, shared_bytes: int) -> Any:
        """The kernel on this GPU, compiled and allowed so much dynamic shared memory."""
        key = source, kernel, self._index
        with _LOCK:
            function = _FUNCTIONS.get(key)
            if function is None:
                function = _FUNCTIONS[key] = _compile(cupy, source, kernel, self._index)
            if shared_bytes > _ALWAYS_SHARED_BYTES and function.max_dynamic_shared_size_bytes < shared_bytes:
                function.max_dynamic_shared_size_bytes = shared_bytes
        return function


def _compile(cupy: Any, source: KernelSource, kernel: str, index: int) -> Any:
    try:
        return cupy.RawModule(code=source.text, options=COMPILER_OPTIONS).get_function(kernel)
    except OSError as error:
        raise ResourceError(
            f"The GPU's kernels cannot be kept on disk ({error}): set CUPY_CACHE_DIR to a folder that you may write to."
        ) from error
    except cupy.cuda.compiler.CompileException as error:
        major, minor = torch.cuda.get_device_capability(index)
        raise ResourceError(
            f"NVRTC {_version(cupy.cuda.nvrtc.getVersion())} cannot compile the GPU's kernels for GPU {index} "
            f"(compute capability {major}.{minor}): {_first_line(error)}. Bring CuPy and NVRTC up to date, or use "
            "--engine cpu."
        ) from error


def _stream(cupy: Any, index: int) -> Any:
    """What CuPy needs to work on torch's stream of this moment; it is never kept, because the next may be another."""
    address = torch.cuda.current_stream(index).cuda_stream
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_ForeignStream(address))
    return cupy.cuda.ExternalStream(address, index)  # CuPy before 14


class _ForeignStream:
    """A stream by the protocol that CUDA's Python libraries share; older versions of torch do not speak it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


@contextlib.contextmanager
def memory_explained(index: int) -> Iterator[None]:
    """Turn what torch and CuPy say when a GPU is full into a GpuMemoryError that says how full it is."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise GpuMemoryError(_no_room(index)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in _NO_ROOM):
            raise
        raise GpuMemoryError(_no_room(index)) from error


def _no_room(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    return (
        f"GPU {index} ({torch.cuda.get_device_name(index)}) is out of memory: {free / 1e9:.1f} of {total / 1e9:.1f} GB "
        "are free. Stop other programs that use it, or choose another GPU with --gpu."
    )


def check_gpu(index: int) -> None:
    """Find out, once, whether a GPU can be used.

    Parameters
    ----------
    index : among those that CUDA_VISIBLE_DEVICES leaves

    Raises
    ------
    ResourceError
        If not; the message says what to install or to set.
    """
    if index in _CHECKED:
        return
    _check_torch(index)
    cupy = _import_cupy()
    built_for = cupy.cuda.runtime.runtimeGetVersion() // 1000
    needed = _cuda_major()
    if built_for != needed:
        raise ResourceError(
            f"CuPy is built for CUDA {built_for}, torch for CUDA {needed}: pip uninstall cupy-cuda{built_for}x, "
            f"then pip install cupy-cuda{needed}x (./install.sh --cuda chooses the right one)."
        )
    try:
        nvrtc = cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # CuPy's versions differ in how they say it
        package = "nvidia-cuda-nvrtc-cu12" if needed == 12 else "nvidia-cuda-nvrtc"
        raise ResourceError(f"CuPy cannot load NVRTC ({_first_line(error)}): pip install {package}.") from error
    _check_card(index, nvrtc)
    _CHECKED.add(index)


def _check_torch(index: int) -> None:
    if torch.version.cuda is None:
        raise ResourceError(
            "The installed torch is a CPU build: install one for CUDA (./install.sh --cuda, in a fresh environment)."
        )
    if not torch.cuda.is_available():
        raise ResourceError(
            "torch finds no GPU: nvidia-smi shows whether there is a card and a driver that is new enough for CUDA "
            f"{torch.version.cuda}; CUDA_VISIBLE_DEVICES may hide the card, or the queue gave none to this job."
        )
    if not 0 <= index < torch.cuda.device_count():
        raise ResourceError(
            f"There is no GPU {index}: {torch.cuda.device_count()} can be seen, counted from 0 among those that "
            "CUDA_VISIBLE_DEVICES leaves."
        )


def _check_card(index: int, nvrtc: tuple[int, int]) -> None:
    capability = torch.cuda.get_device_capability(index)
    card = f"GPU {index} ({torch.cuda.get_device_name(index)}, compute capability {_version(capability)})"
    if capability < OLDEST_CARD:
        raise ResourceError(f"{card} is too old: {_version(OLDEST_CARD)} is needed. Use --engine cpu.")
    if capability < OLDEST_CARD_OF_NVRTC_13 and nvrtc >= (13, 0):
        raise ResourceError(
            f"{card} needs NVRTC 12, but CuPy loads {_version(nvrtc)}: install torch for CUDA 12.6 and cupy-cuda12x, "
            "and pip uninstall nvidia-cuda-nvrtc (of the two NVRTC packages only nvidia-cuda-nvrtc-cu12 may stay)."
        )


def _import_cupy() -> Any:
    try:
        import cupy
    except Exception as error:  # CuPy raises more than ImportError where a library is missing
        raise ResourceError(
            f"CuPy cannot be imported ({_first_line(error)}): pip install cupy-cuda{_cuda_major()}x, "
            "or ./install.sh --cuda."
        ) from error
    return cupy


def _cuda_major() -> int:
    return int((torch.version.cuda or "0").split(".")[0])


def _version(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"


def _first_line(error: Exception) -> str:
    """What an error says, in one line; CuPy's messages fill a page."""
    lines = [line.strip(" =*") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__).rstrip(".")
