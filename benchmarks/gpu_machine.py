"""Sections of benchmarks/gpu.py: the machine, the kernels' compilation, and what the card can do at best."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_clock import timed
from gpu_session import Session

from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import launcher_for
from tests.cuda_shim.sources import all_sources, variant_name

PACKAGES = ("numpy", "scipy", "torch", "numba", "pandas", "finufft", "starfile", "mrcfile", "pydantic", "hypothesis")
ASKED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "power.limit",
    "pcie.link.gen.max",
)
MAXIMAL_CLOCK_GHZ = 1.98  # of the H200, where nvidia-smi does not say
_KERNEL = re.compile(
    r'extern "C" __global__\s+(?:__launch_bounds__\([^()]*\)\s*)?void\s+(?:__launch_bounds__\([^()]*\)\s*)?(\w+)'
)


@dataclass(frozen=True)
class Text:
    """A kernel of this script's own, as `KernelSource` holds those of the cuda folder."""

    text: str
    files: tuple[str, ...] = ("of the benchmark",)


ADDING = Text("""
extern "C" __global__ void __launch_bounds__(256) nothing() {}

extern "C" __global__ void __launch_bounds__(256) add_to_memory(
    long long *sums,  // [mask + 1]
    int mask, int rounds)
{
    unsigned at = (blockIdx.x * blockDim.x + threadIdx.x) * 2654435761u;
    for (int i = 0; i < rounds; ++i, at = at * 1664525u + 1013904223u)
        atomicAdd((unsigned long long *)sums + ((at >> 8) & mask), 1ull);
}

extern "C" __global__ void __launch_bounds__(256) add_to_rows(
    long long *sums,  // [mask + 1]
    int mask, int rounds)
{
    unsigned at = ((blockIdx.x * blockDim.x + threadIdx.x) >> 5) * 2654435761u;
    for (int i = 0; i < rounds; ++i, at = at * 1664525u + 1013904223u)
        atomicAdd((unsigned long long *)sums + (((at >> 8) + threadIdx.x % 32) & mask), 1ull);
}

extern "C" __global__ void __launch_bounds__(256) add_to_shared(
    int *result,  // [blocks]
    int rounds)
{
    __shared__ int sums[4096];
    for (int i = threadIdx.x; i < 4096; i += blockDim.x) sums[i] = 0;
    __syncthreads();
    unsigned at = threadIdx.x * 2654435761u;
    for (int i = 0; i < rounds; ++i, at = at * 1664525u + 1013904223u) atomicAdd(sums + ((at >> 8) & 4095), 1);
    __syncthreads();
    if (threadIdx.x == 0) result[blockIdx.x] = sums[blockIdx.x & 4095];
}
""")


def environment(session: Session) -> dict[str, Any]:
    """Versions, the card, its clocks and its memory."""
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda_of_torch": torch.version.cuda,
        "cores_of_this_process": len(os.sched_getaffinity(0)),
    }
    if session.is_dry:
        return figures
    import cupy

    card = torch.cuda.get_device_properties(session.device)
    free, total = torch.cuda.mem_get_info(session.device)
    figures["cupy"], figures["nvrtc"] = cupy.__version__, ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    figures["card"] = {
        "name": card.name,
        "compute_capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "l2_mb": round(getattr(card, "L2_cache_size", 0) / 1e6, 1),
        "memory_gb": total / 1e9,
        "free_memory_gb": free / 1e9,
    }
    figures["nvidia_smi"] = _nvidia_smi()
    return figures


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _nvidia_smi() -> dict[str, str]:
    if shutil.which("nvidia-smi") is None:
        return {"note": "nvidia-smi is not on the PATH"}
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    return dict(zip(ASKED, (word.strip() for word in answer.split(",")), strict=False))


def clock_ghz(nvidia_smi: dict[str, str]) -> float:
    """The highest clock of the multiprocessors."""
    found = re.match(r"(\d+) MHz", nvidia_smi.get("clocks.max.sm", ""))
    return int(found[1]) / 1000 if found else MAXIMAL_CLOCK_GHZ


def compile_all(session: Session) -> dict[str, Any]:
    """Seconds that NVRTC takes for each variant of each source, those of loading it again, and what kernels use."""
    sources = all_sources()
    if session.is_dry:
        from tests.cuda_shim.emulator import compile_for_cpu

        return {
            "variants": [{"name": variant_name(one), **_timed_compile(compile_for_cpu, one)} for one in sources[-1:]]
        }
    import cupy

    from gem_plugin.ops.cupy_cuda import COMPILER_OPTIONS

    def build(text: str) -> Any:
        module = cupy.RawModule(code=text, options=COMPILER_OPTIONS)
        module.compile()
        return module

    build('extern "C" __global__ void first() {}')  # loads NVRTC
    rows = []
    for source in sources:
        row = {"name": variant_name(source), **_timed_compile(build, source)}
        module, row["seconds_from_disk"] = _seconds(build, source.text)
        row["kernels"] = {name: _use(module.get_function(name)) for name in _KERNEL.findall(source.text)}
        rows.append(row)
    return {"variants": rows, "seconds": sum(row["seconds"] for row in rows)}


def _timed_compile(build: Any, source: KernelSource) -> dict[str, Any]:
    return {"seconds": _seconds(build, source.text)[1]}


def _seconds(build: Any, text: str) -> tuple[Any, float]:
    begun = time.perf_counter()
    built = build(text)
    return built, time.perf_counter() - begun


def _use(kernel: Any) -> dict[str, int]:
    return {
        "registers": int(kernel.num_regs),
        "local_bytes": int(kernel.local_size_bytes),
        "shared_bytes": int(kernel.shared_size_bytes),
    }


def ceilings(session: Session) -> dict[str, Any]:
    """What the card, its link to the host and the launches of kernels can do at best."""
    return {**_bandwidths(session), **_transforms(session), **_atomics(session), **_launches(session)}


def _bandwidths(session: Session) -> dict[str, Any]:
    clock, device = session.clock, session.device
    n = 2**16 if session.is_dry else 2**30
    whole = torch.ones(2 * n, dtype=torch.float32, device=device)
    copy = timed(clock, lambda: whole[n:].copy_(whole[:n]), 9)
    host = session.pinned(torch.ones(n // 4, dtype=torch.float32))
    there = torch.empty(n // 4, dtype=torch.float32, device=device)
    sent = timed(clock, lambda: there.copy_(host, non_blocking=True), 7)
    fetched = timed(clock, lambda: host.copy_(there, non_blocking=True), 7)
    return {
        "copy_on_device": {"gb_per_second": 8 * n / copy["median_ms"] / 1e6, **copy},
        "pinned_to_device": {"gb_per_second": n / sent["median_ms"] / 1e6, **sent},
        "device_to_pinned": {"gb_per_second": n / fetched["median_ms"] / 1e6, **fetched},
    }


def _transforms(session: Session) -> dict[str, Any]:
    clock, device = session.clock, session.device
    n, box, count = (16, 8, 4) if session.is_dry else (512, 256, 2048)
    volume = torch.randn(n, n, n, device=device)
    cube = timed(clock, lambda: torch.fft.rfftn(volume), 9)
    images = torch.randn(count, box, box, device=device)
    forward = timed(clock, lambda: torch.fft.rfft2(images), 9)
    spectra = torch.fft.rfft2(images)
    backward = timed(clock, lambda: torch.fft.irfft2(spectra, s=(box, box)), 9)
    return {
        "rfftn": {"voxels": f"{n}^3", "gb_per_second_in_and_out": 8 * n**3 / cube["median_ms"] / 1e6, **cube},
        "rfft2": {"images": f"{count} of {box}^2", "images_per_second": 1e3 * count / forward["median_ms"], **forward},
        "irfft2": {
            "images": f"{count} of {box}^2",
            "images_per_second": 1e3 * count / backward["median_ms"],
            **backward,
        },
    }


def _atomics(session: Session) -> dict[str, Any]:
    """Integer additions a second: to random places of memory (2 MB, 134 MB), to rows of 32, and to shared memory."""
    launcher, device = launcher_for(session.device), session.device
    blocks, rounds = (2, 3) if session.is_dry else (2112, 256)
    n_added = blocks * 256 * rounds
    found = {}
    for kernel, bits in (("add_to_memory", 18), ("add_to_memory", 24), ("add_to_rows", 18), ("add_to_rows", 24)):
        bits = 6 if session.is_dry else bits
        sums = torch.zeros(2**bits, dtype=torch.int64, device=device)
        arguments = sums, np.int32(2**bits - 1), np.int32(rounds)
        times = timed(
            session.clock, lambda k=kernel, a=arguments: launcher.launch(ADDING, k, (blocks, 1, 1), 256, a), 7
        )
        found[f"{kernel}, {8 * 2**bits / 1e6:.0f} MB"] = {"per_second": 1e3 * n_added / times["median_ms"], **times}
    result = torch.zeros(blocks, dtype=torch.int32, device=device)
    shared = result, np.int32(rounds)
    times = timed(session.clock, lambda: launcher.launch(ADDING, "add_to_shared", (blocks, 1, 1), 256, shared), 7)
    found["add_to_shared"] = {"per_second": 1e3 * n_added / times["median_ms"], **times}
    return {"integer_additions": found}


def _launches(session: Session) -> dict[str, Any]:
    """Microseconds of the host for a kernel that does nothing, for a small operation of torch, and for a wait."""
    launcher, clock = launcher_for(session.device), session.clock
    count = 2 if session.is_dry else 1000
    small = torch.zeros(32, device=session.device)

    def microseconds(action: Any, calls: int) -> float:
        return timed(clock, lambda: [action() for _ in range(calls)], 5)["median_ms"] * 1e3 / calls

    return {
        "microseconds_a_call": {
            "our launcher, an empty kernel": microseconds(
                lambda: launcher.launch(ADDING, "nothing", (1, 1, 1), 32, ()), count
            ),
            "torch, add_ of 32 numbers": microseconds(lambda: small.add_(1), count),
            "torch, add_ and wait for the value": microseconds(lambda: float(small.add_(1)[0]), max(count // 10, 1)),
        }
    }
