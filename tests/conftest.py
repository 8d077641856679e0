"""What every test shares: when a test may be skipped, and how hypothesis draws."""

import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from gem_plugin.ops import engines, launch
from tests.cuda_shim.emulator import COMPILER, EmulatedGpu

hypothesis.settings.register_profile("gem", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.load_profile("gem")

RELION_PROGRAMS = ("relion_project", "relion_reconstruct", "relion_pipeliner", "relion_postprocess")


def _missing_relion() -> str:
    """Why RELION cannot judge here; empty if it can."""
    missing = [name for name in RELION_PROGRAMS if shutil.which(name) is None]
    return f"not on the PATH: {', '.join(missing)}" if missing else ""


def _missing_gpu() -> str:
    """Why the GPU engine cannot run here; empty if it can."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() > 0 else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"


REQUIREMENTS = {
    "relion": (_missing_relion, "GEM_REQUIRE_RELION"),
    "gpu": (_missing_gpu, "GEM_REQUIRE_GPU"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose judge is not there, or fail it where the environment promises that judge."""
    for marker, (find_reason, variable) in REQUIREMENTS.items():
        if item.get_closest_marker(marker) is None:
            continue
        reason = find_reason()
        if reason and os.environ.get(variable) == "1":
            pytest.fail(f"{variable}=1, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture
def emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedGpu]:
    """Run engine "cuda" on CPU tensors: the kernels' own source, compiled by g++ behind tests/cuda_shim/shim.h.

    With `emulated_gpu.reversed_order = True` blocks and threads run from the last to the first from then on.
    Tensors that torch leaves unwritten are filled with NaN, so that what a kernel forgets shows.
    """
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not on the PATH: nothing else can run CUDA code without a GPU")
    monkeypatch.setattr(engines, "device_of", lambda engine: torch.device("cpu"))
    gpu = EmulatedGpu()
    launch.register_launcher("cpu", gpu.launcher)
    torch.set_deterministic_debug_mode("error")
    yield gpu
    torch.set_deterministic_debug_mode("default")
    launch.forget_launcher("cpu")
