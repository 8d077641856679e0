"""Every kernel, in every variant that is used, compiles for every GPU that is supported, and stays within its means."""

import os
import re

import pytest

from gem_plugin.ops import cupy_cuda
from gem_plugin.ops.cuda_source import KernelSource, source_folder
from tests.cuda_shim import nvrtc
from tests.cuda_shim.sources import all_sources, variant_name

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
STATIC_SHARED_BYTES = 48 * 1024  # more is refused by the driver
# The most registers of a thread on any of the architectures, in float and in double: with more, a GPU runs fewer
# threads at a time. A change that needs more says so here.
MOST_REGISTERS = {
    "project.cu add_parts": (48, 64),
    "project.cu draw_gaussians": (64, 168),
    "project.cu gather_gradients": (80, 168),
    "project.cu pixels_of_sums": (32, 32),
    "spread.cu add_parts": (56, 64),
    "spread.cu spread_bricks": (136, 184),
    "transfer.cu centre_images": (40, 64),
    "transfer.cu compare_by_shell": (56, 64),
    "transfer.cu compare_spectra": (32, 40),
    "transfer.cu ctf_of_points": (40, 48),
    "transfer.cu digest_images": (32, 32),
    "voxelize.cu draw_gaussians": (56, 80),
    "voxelize.cu finish_map": (40, 40),
    "voxelize.cu gather_moments": (80, 128),
}


def uses_of(source: KernelSource, architecture: str) -> dict[str, nvrtc.Use]:
    if nvrtc.library() is None:
        message = "NVRTC is not there: pip install nvidia-cuda-nvrtc"
        if os.environ.get("GEM_REQUIRE_NVRTC") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return nvrtc.uses_on_gpu(source.text, architecture, (*cupy_cuda.COMPILER_OPTIONS, "-ftz=true"))  # as CuPy adds


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", all_sources(), ids=variant_name)
def test_kernels_compile_and_spill_nothing(source: KernelSource, architecture: str) -> None:
    in_double = dict(source.defines).get("REAL") == "double"
    uses = uses_of(source, architecture)
    assert uses, "no kernel in it"
    for kernel, use in uses.items():
        assert use.spilled_bytes == 0, f"{kernel} spills {use.spilled_bytes} bytes"
        assert use.stack_bytes == 0, f"{kernel} keeps {use.stack_bytes} bytes on a stack, which lies in slow memory"
        assert use.shared_bytes <= STATIC_SHARED_BYTES
        name = f"{source.files[-1]} {kernel}"
        assert name in MOST_REGISTERS, f"{name} uses {use.registers} registers: enter the most that it may use"
        most = MOST_REGISTERS[name][in_double]
        assert use.registers <= most, f"{kernel} uses {use.registers} registers, more than {most}"


def test_a_kernel_that_does_not_compile_or_spills_is_noticed() -> None:
    if nvrtc.library() is None:
        pytest.skip("NVRTC is not there")
    with pytest.raises(nvrtc.CompileError, match="undefined"):
        nvrtc.compile_for_gpu('extern "C" __global__ void f(float *x) { *x = no_such_number; }', "sm_90")
    hungry = """extern "C" __global__ void __launch_bounds__(1024, 2) f(const float *x, float *y) {
        float kept[64];
        for (int i = 0; i < 64; ++i) kept[i] = x[i * 1024 + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < 64; ++i) for (int j = 0; j < 64; ++j) y[i * 64 + j] += kept[i] * kept[j]; }"""
    _, uses = nvrtc.compile_for_gpu(hungry, "sm_90")
    assert uses["f"].spilled_bytes + uses["f"].stack_bytes > 0


def test_every_file_of_the_folder_is_in_use() -> None:
    used = {name for source in all_sources() for name in source.files}
    assert used == {path.name for path in source_folder().glob("*.cu")}


def test_every_array_that_a_kernel_takes_has_a_shape() -> None:
    """One argument a line, each array with its shape in brackets."""
    for name in {name for source in all_sources() for name in source.files}:
        text = (source_folder() / name).read_text(encoding="utf-8")
        for kernel in re.findall(r'extern "C" __global__[^{]*\{', text):
            for line in re.findall(r"^.*\*.*$", kernel, flags=re.MULTILINE):
                assert re.search(r"//.*\[.*\]", line), f"{name}: {line.strip()} has no shape"
