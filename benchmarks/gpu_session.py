"""What the sections of benchmarks/gpu.py share: the device, the time that is left, and what did not fit into it."""

import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_clock import Clock
from gpu_stand_ins import NotInstalledError


@dataclass
class Session:
    """One run of the script."""

    device: torch.device
    engine: str
    is_dry: bool  # on the CPU's stand-in for a GPU, with tiny sizes: times mean nothing
    deadline: float  # of `time.monotonic`
    scratch: Path
    n_particles: int  # of the whole job
    clock: Clock = field(init=False)
    # of the section that runs: what it found so far, what did not fit, what failed
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock(self.device)

    @property
    def seconds_left(self) -> float:
        """Until the script has to end."""
        return self.deadline - time.monotonic()

    def fits(self, what: str, seconds: float) -> bool:
        """Whether there is time for something; if not, it is noted as left out."""
        if seconds <= self.seconds_left:
            return True
        self.left_out.append(f"{what}: needs about {seconds:.0f} s, {max(self.seconds_left, 0):.0f} s are left")
        return False

    def begin_section(self) -> None:
        """Forget what the section before found."""
        self.figures, self.left_out, self.failures = {}, [], []

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Let a part of a section fail without the others: its error is noted."""
        try:
            yield
        except NotInstalledError:
            raise
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}\n{traceback.format_exc()}")

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in memory from which a GPU copies by itself."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def forget_peak(self) -> None:
        """Begin to look for the most device memory anew."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """The most device memory that torch held since `forget_peak`, in 10^9 bytes; every array is torch's."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None


@contextlib.contextmanager
def stand_in_for_a_gpu() -> Iterator[None]:
    """Let "cuda" be the CPU, where g++ has compiled the kernels' own source (tests/cuda_shim)."""
    from gem_plugin.ops import engines, launch
    from tests.cuda_shim.emulator import EmulatedGpu

    real = engines.device_of
    engines.device_of = lambda engine: torch.device("cpu")
    launch.register_launcher("cpu", EmulatedGpu().launcher)
    try:
        yield
    finally:
        engines.device_of = real
        launch.forget_launcher("cpu")
