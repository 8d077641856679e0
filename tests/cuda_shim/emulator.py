"""A Launcher that runs CUDA kernels on CPU tensors: their own source behind `shim.h`, compiled by g++."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import Argument

COMPILER = "g++"
CHECKS = "bounds,signed-integer-overflow,shift-exponent,float-cast-overflow,integer-divide-by-zero"
OPTIONS = (
    *("-std=c++17", "-O2", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-ipa-reference"),
    f"-fsanitize={CHECKS}",
)
MOST_THREADS = 1024
MOST_SHARED_BYTES = 64 * 1024  # of a block on sm_75, the oldest that everything must run on
GUARD_BYTES = 64 * 1024  # on each side of every tensor
# NaN in every floating-point type, so that what is read there shows; in reversed order a number in every type, so that
# something added there shows, which would leave a NaN as it is
CANARIES = {False: 0xFF, True: 0x42}
MESSAGE_BYTES = 512

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\(([^()]*)\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\(([^()]*)\)\s*)?(\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
_TYPES = {
    torch.float32: "float",
    torch.complex64: "float",
    torch.float64: "double",
    torch.complex128: "double",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.float16: "int16",
    torch.uint8: "int8",
    torch.int8: "int8",
    torch.bool: "int8",
}
_NUMBERS = {np.int32: "int32", np.int64: "int64", np.float32: "float", np.float64: "double"}
_LOCK = threading.Lock()


class KernelError(AssertionError):
    """A kernel did what it must not do, or was started as it must not be."""


class EmulatedLauncher:
    """Starts kernels on CPU tensors, thread after thread.

    Parameters
    ----------
    device : must be the CPU
    reversed_order : run blocks and threads from the last to the first: no result may depend on it
    """

    def __init__(self, device: torch.device, reversed_order: bool = False) -> None:
        self.device = device
        self.reversed_order = reversed_order

    def launch(
        self,
        source: KernelSource,
        kernel: str,
        grid: tuple[int, int, int],
        n_threads: int,
        arguments: tuple[Argument, ...],
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel and wait for it: see `gem_plugin.ops.launch.Launcher`."""
        compiled = compile_for_cpu(source.text)
        if kernel not in compiled.bounds:
            raise KernelError(f"there is no kernel '{kernel}' in {source.files}: {', '.join(compiled.bounds)}")
        _check_size(kernel, grid, n_threads, shared_bytes, compiled.bounds[kernel])
        constant = _check_types(kernel, compiled.parameters(kernel), arguments)
        if 0 in grid:
            return
        tensors = _Guarded(CANARIES[self.reversed_order])
        values = [tensors.address(a) if isinstance(a, torch.Tensor) else _number(a) for a in arguments]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(v) for v in values))
        told = ctypes.create_string_buffer(MESSAGE_BYTES)
        with _LOCK:
            failed = getattr(compiled.library, f"gem_launch_{kernel}")(
                pointers, (ctypes.c_uint * 3)(*grid), n_threads, ctypes.c_long(shared_bytes), self.reversed_order, told
            )
        if failed:
            raise KernelError(f"{kernel}: {told.value.decode()}")
        for index, is_constant in enumerate(constant):
            argument = arguments[index]
            if isinstance(argument, torch.Tensor):
                tensors.check(argument, f"{kernel}: argument {index}")
                if not is_constant:
                    tensors.copy_back(argument)


class EmulatedGpu:
    """What a test sets of the GPU that it is lent."""

    def __init__(self) -> None:
        self.reversed_order = False

    def launcher(self, device: torch.device) -> EmulatedLauncher:
        return EmulatedLauncher(device, self.reversed_order)


def _check_size(kernel: str, grid: tuple[int, int, int], n_threads: int, shared_bytes: int, bound: int | None) -> None:
    if not 1 <= n_threads <= MOST_THREADS:
        raise KernelError(f"{kernel}: a block of {n_threads} threads; 1 to {MOST_THREADS} are possible")
    if bound is not None and n_threads > bound:
        raise KernelError(f"{kernel}: a block of {n_threads} threads; __launch_bounds__ promises at most {bound}")
    if not 0 <= shared_bytes <= MOST_SHARED_BYTES:
        raise KernelError(f"{kernel}: {shared_bytes} bytes of shared memory; {MOST_SHARED_BYTES} are everywhere")
    if len(grid) != 3 or min(grid) < 0 or grid[0] > 2**31 - 1 or max(grid[1:]) > 65535:
        raise KernelError(f"{kernel}: a grid of {grid} blocks; at most 2^31 - 1, 65535, 65535 are possible")


def _check_types(kernel: str, parameters: list[str], arguments: tuple[Argument, ...]) -> list[bool]:
    """Refuse arguments that are not what the kernel takes; say which it only reads."""
    if len(parameters) != len(arguments):
        raise KernelError(f"{kernel} takes {len(parameters)} arguments, {len(arguments)} are given")
    for index, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True)):
        if isinstance(argument, torch.Tensor):
            given = _TYPES[argument.dtype] + "*"
            if argument.device.type != "cpu" or not argument.is_contiguous():
                raise KernelError(f"{kernel}: argument {index} is not a contiguous tensor on the CPU")
        else:
            given = _NUMBERS.get(type(argument), f"a Python {type(argument).__name__}")
        if parameter.removeprefix("const ") != given:
            raise KernelError(f"{kernel}: argument {index} is {given}, the kernel takes {parameter}")
    return [parameter.startswith("const ") for parameter in parameters]


def _number(value: Argument) -> ctypes.Array[ctypes.c_char]:
    data = np.asarray(value).tobytes()
    return ctypes.create_string_buffer(data, len(data))


class _Guarded:
    """Copies of tensors with canaries on both sides; one copy for tensors that are one and the same."""

    def __init__(self, canary: int) -> None:
        self._canary = canary
        self._buffers: dict[tuple[int, int], NDArray[np.uint8]] = {}

    @staticmethod
    def _bytes_of(tensor: torch.Tensor) -> NDArray[np.uint8]:
        size = tensor.numel() * tensor.element_size()
        if size == 0:
            return np.zeros(0, dtype=np.uint8)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(tensor.data_ptr()))

    def _buffer(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        data = self._bytes_of(tensor)
        key = (tensor.data_ptr(), data.size)
        if key not in self._buffers:
            whole = np.empty(data.size + 2 * GUARD_BYTES + 256, dtype=np.uint8)
            start = -whole.ctypes.data % 256  # as torch aligns what it allocates on a GPU
            buffer = whole[start : start + data.size + 2 * GUARD_BYTES]
            buffer[:] = self._canary
            buffer[GUARD_BYTES : GUARD_BYTES + data.size] = data
            self._buffers[key] = buffer
        return self._buffers[key]

    def address(self, tensor: torch.Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._buffer(tensor).ctypes.data + GUARD_BYTES)

    def check(self, tensor: torch.Tensor, what: str) -> None:
        buffer = self._buffer(tensor)
        for side, guard in (("before", buffer[:GUARD_BYTES]), ("behind", buffer[-GUARD_BYTES:])):
            if (guard != self._canary).any():
                raise KernelError(f"{what}, {tuple(tensor.shape)} {tensor.dtype}: something was written {side} it")

    def copy_back(self, tensor: torch.Tensor) -> None:
        data = self._bytes_of(tensor)
        data[:] = self._buffer(tensor)[GUARD_BYTES : GUARD_BYTES + data.size]


class CompiledSource:
    """A shared object with an entry for each kernel."""

    def __init__(self, path: Path, kernels: list[str]) -> None:
        self.library = ctypes.CDLL(str(path))
        bounds = {name: ctypes.c_int.in_dll(self.library, f"gem_bound_{name}").value for name in kernels}
        self.bounds = {name: bound or None for name, bound in bounds.items()}

    def parameters(self, kernel: str) -> list[str]:
        """Types of a kernel's parameters, such as "const float*"."""
        text = ctypes.create_string_buffer(8192)
        getattr(self.library, f"gem_describe_{kernel}")(text)
        return text.value.decode().split(";")[:-1]


@functools.cache
def compile_for_cpu(text: str) -> CompiledSource:
    """Compile a kernel source, or take what was compiled from the same text before."""
    found = [(match[3], match[1] or match[2] or "0") for match in _KERNEL.finditer(text)]
    names = "shim.h", "functions.h"
    shim = "".join(f'#line 1 "{name}"\n{Path(__file__).with_name(name).read_text()}\n' for name in names)
    kernels = _DYNAMIC.sub(r"\1 *\2 = (\1 *)(gem::dynamic_shared + gem::GUARD);", text)
    entries = "".join(
        f'GEM_ENTRY({name})\nextern "C" const int gem_bound_{name} = (int[]){{{bound}}}[0];\n' for name, bound in found
    )
    program = f'{shim}#line 1 "kernels"\n{kernels}\n#line 1 "entries"\n{entries}'
    digest = hashlib.sha256(repr((program, OPTIONS)).encode()).hexdigest()[:24]
    path = cache_folder() / f"{digest}.so"
    if not path.exists():
        _compile(program, path)
    return CompiledSource(path, [name for name, _ in found])


@functools.cache
def cache_folder() -> Path:
    """A folder that is ours, kept between runs."""
    folder = Path(tempfile.gettempdir()) / f"gem_cuda_shim_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp())
    return folder


def _compile(program: str, path: Path) -> None:
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise KernelError(f"{COMPILER} is not on the PATH")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, compiled, linked = (Path(folder) / name for name in ("kernels.cpp", "kernels.o", "kernels.so"))
        source.write_text(program, encoding="utf-8")
        # The sanitizer's library is not linked: the shim has the functions that it would bring.
        for command in (
            [compiler, *OPTIONS, "-c", "-o", str(compiled), str(source)],
            [compiler, "-shared", "-o", str(linked), str(compiled)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise KernelError(f"{COMPILER} refuses the kernels:\n{done.stderr}")
        linked.replace(path)
