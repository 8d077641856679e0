"""NVIDIA's compiler as a library, without a GPU or a driver: kernel source -> machine code and what it uses."""

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.cuda_shim.emulator import cache_folder

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Use:
    """What a kernel uses, as the assembler says."""

    registers: int
    stack_bytes: int
    spilled_bytes: int
    shared_bytes: int  # static


class CompileError(AssertionError):
    """The source does not compile."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The newest NVRTC that a wheel has put beside this Python's packages, or None."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.*")]
    return ctypes.CDLL(str(max(found, key=lambda path: int(path.suffix[1:])))) if found else None


def uses_on_gpu(text: str, architecture: str, options: tuple[str, ...] = ()) -> dict[str, Use]:
    """What each kernel of a source uses; kept in a temporary folder, since compiling takes a second."""
    version = (ctypes.c_int(), ctypes.c_int())
    nvrtc = library()
    assert nvrtc is not None
    assert nvrtc.nvrtcVersion(*(ctypes.byref(number) for number in version)) == 0
    key = repr((text, architecture, options, [number.value for number in version]))
    kept = cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        code, uses = compile_for_gpu(text, architecture, options)
        if code[:4] != b"\x7fELF":
            raise CompileError(f"{architecture}: no machine code")
        written = kept.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps({name: astuple(use) for name, use in uses.items()}))
        written.replace(kept)
    return {name: Use(*numbers) for name, numbers in json.loads(kept.read_text()).items()}


def compile_for_gpu(text: str, architecture: str, options: tuple[str, ...] = ()) -> tuple[bytes, dict[str, Use]]:
    """Compile to machine code.

    Parameters
    ----------
    architecture : such as "sm_80"

    Returns
    -------
    the code (an ELF file) and what each kernel uses
    """
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        words = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options]
        array = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        failed = nvrtc.nvrtcCompileProgram(program, len(words), array)
        log = _read(nvrtc, program, "ProgramLog").decode()
        if failed:
            raise CompileError(f"{architecture}:\n{log}")
        return _read(nvrtc, program, "CUBIN"), _parse(log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw


def _parse(log: str) -> dict[str, Use]:
    """What ptxas says of each kernel."""
    parts = _ENTRY.split(log)
    uses = {}
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        stack, used, shared = _STACK.search(said), _USED.search(said), _SHARED.search(said)
        assert stack is not None, f"ptxas says nothing of the stack of {name}: {said}"
        assert used is not None, f"ptxas says nothing of the registers of {name}: {said}"
        frame, stores, loads = (int(number) for number in stack.groups())
        uses[name] = Use(int(used[1]), frame, stores + loads, int(shared[1]) if shared else 0)
    return uses
