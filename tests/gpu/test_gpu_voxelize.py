"""The kernels of cuda/voxelize.cu on a GPU, against the oracle and the CPU engine, through CuPy."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from gem_plugin.errors import GpuMemoryError
from gem_plugin.ops import cupy_cuda, engines, voxelize
from gem_plugin.ops.launch import launcher_for
from tests.cuda_shim.gaussians import assert_alike, some_gaussians, thin_oblique_gaussians, values_and_gradients
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, FLOAT64_EXACT, relative_error

pytestmark = pytest.mark.gpu
BOUNDS = [(torch.float64, FLOAT64_EXACT, FLOAT64_EXACT), (torch.float32, FLOAT32_FORWARD, FLOAT32_GRADIENT)]
MANY = 5e-5  # relative L2 error between two float engines, with voxels on the cutoff; on the emulator 1.1e-5


def on_gpu(*tensors: torch.Tensor, precision: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [tensor.to("cuda:0", precision) for tensor in tensors]


def test_this_gpu_works() -> None:
    assert "GPU 0" in engines.try_gpu(0)
    assert engines.resolve_engine("cuda")[0] == "cuda:0"


@pytest.mark.parametrize(("precision", "forward", "gradient"), BOUNDS)
@pytest.mark.parametrize("cutoff", [3.5, 6.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 20, 21, 33])
def test_kernels_agree_with_the_oracle(
    n: int, cutoff: float, precision: torch.dtype, forward: float, gradient: float
) -> None:
    parameters = some_gaussians(60, n, seed=1)
    expected = values_and_gradients(parameters, n, "reference", cutoff)
    assert_alike(values_and_gradients(parameters, n, "cuda", cutoff, precision), expected, forward, gradient)


@pytest.mark.parametrize(("precision", "forward", "gradient"), BOUNDS)
def test_thin_oblique_gaussians_are_right(precision: torch.dtype, forward: float, gradient: float) -> None:
    parameters = thin_oblique_gaussians(30)
    expected = values_and_gradients(parameters, 32, "reference", 6.0)
    assert_alike(values_and_gradients(parameters, 32, "cuda", 6.0, precision), expected, forward, 4 * gradient)


def test_many_gaussians_agree_with_the_cpu_engine_and_repeat_bit_for_bit() -> None:
    parameters = some_gaussians(20000, 96, seed=4)
    found, again = (values_and_gradients(parameters, 96, "cuda", 4.0, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    on_cpu = values_and_gradients(parameters, 96, "cpu", 4.0, torch.float32)
    for a, b in zip(found, on_cpu, strict=True):  # as wholes: a few voxels lie on the cutoff to within rounding
        assert relative_error(a.double().numpy(), b.double().numpy()) < MANY


def test_nothing_to_draw() -> None:
    empty = on_gpu(*(torch.zeros(0, columns) for columns in (3, 3, 4)), torch.zeros(0))
    volume = voxelize(*empty, 8, engine="cuda")
    assert volume.device.type == "cuda"
    assert not volume.any()


def test_what_is_not_finite_has_no_footprint() -> None:
    parameters = some_gaussians(6, 16, scale=1.5)
    expected = voxelize(*on_gpu(*(t[1:] for t in parameters)), 16, engine="cuda")
    for which, columns, value in ((0, 0, np.nan), (0, 1, np.inf), (0, 2, -1e9), (1, 0, np.nan), (1, 2, 500.0)):
        broken = [tensor.clone() for tensor in parameters]
        broken[which][0, columns] = value
        assert torch.equal(voxelize(*on_gpu(*broken), 16, engine="cuda"), expected)
    centres, log_scales, quaternions, amplitudes = parameters
    amplitudes[2] = np.nan
    assert voxelize(*on_gpu(centres, log_scales, quaternions, amplitudes), 16, engine="cuda").isnan().all()


def test_kernels_run_on_the_current_stream() -> None:
    """What they read is written on that stream long after they are asked for."""
    parameters = on_gpu(*some_gaussians(200, 32))
    expected = voxelize(*parameters, 32, engine="cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = [torch.zeros_like(tensor) for tensor in parameters]
        torch.cuda._sleep(200_000_000)
        for tensor, values in zip(late, parameters, strict=True):
            tensor.copy_(values)
        leaves = [tensor.requires_grad_() for tensor in late]
        found = voxelize(*leaves, 32, engine="cuda")
        gradients = torch.autograd.grad(found, leaves, torch.ones_like(found))
    stream.synchronize()
    assert torch.equal(found.detach(), expected)
    again = [tensor.requires_grad_() for tensor in parameters]
    right = torch.autograd.grad(voxelize(*again, 32, engine="cuda"), again, torch.ones_like(found))
    assert all(torch.equal(a, b) for a, b in zip(gradients, right, strict=True))


def test_another_gpu_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    parameters = some_gaussians(50, 20)
    one, other = (voxelize(*(t.float() for t in parameters), 20, engine=name) for name in ("cuda:0", "cuda:1"))
    assert other.device == torch.device("cuda", 1)
    assert relative_error(one.double().cpu().numpy(), other.double().cpu().numpy()) < 1e-6


@dataclass(frozen=True)
class Text:
    text: str


def test_more_dynamic_shared_memory_than_a_kernel_gets_unasked() -> None:
    source = Text(
        """extern "C" __global__ void turn_round(int *numbers, int n) {
        extern __shared__ int kept[];
        for (int i = threadIdx.x; i < n; i += blockDim.x) kept[i] = numbers[i];
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) numbers[i] = kept[n - 1 - i]; }"""
    )
    n = 15000  # 60,000 bytes
    numbers = torch.arange(n, dtype=torch.int32, device="cuda:0")
    launcher = launcher_for(torch.device("cuda", 0))
    launcher.launch(source, "turn_round", (1, 1, 1), 256, (numbers, np.int32(n)), 4 * n)  # type: ignore[arg-type]
    assert numbers.tolist() == list(range(n))[::-1]


def test_a_full_gpu_is_said_to_be_full() -> None:
    with pytest.raises(GpuMemoryError, match="out of memory"), cupy_cuda.memory_explained(0):
        torch.empty(10**13, dtype=torch.uint8, device="cuda:0")
