"""The stand-in for a GPU: does it do what CUDA does, and does it notice what it is there to notice?"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.cuda_shim.emulator import EmulatedLauncher, KernelError

pytestmark = pytest.mark.usefixtures("emulated_gpu")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Text:
    text: str
    files: tuple[str, ...] = ("a test",)


KERNELS = Text(
    r"""
#define BLOCK 64
extern "C" __global__ void __launch_bounds__(BLOCK) sum_of_block(
    const float *numbers,  // [64]
    float *sums,           // [64]: each thread writes the sum
    int with_barrier)
{
    __shared__ float partial[BLOCK];
    partial[threadIdx.x] = numbers[threadIdx.x];
    if (with_barrier) __syncthreads();
    float sum = 0;
    for (int i = 0; i < BLOCK; ++i) sum += partial[i];
    sums[threadIdx.x] = sum;
}

extern "C" __global__ void shuffles(int *down, int *up, int *crossed, int *chosen, int *groups, int *ballots)
{
    int i = threadIdx.x, value = 100 + i;
    for (int round = 0; round < 3; ++round) value = __shfl_xor_sync(0xffffffffu, value, 1);
    down[i] = __shfl_down_sync(0xffffffffu, i, 2);
    up[i] = __shfl_up_sync(0xffffffffu, i, 1);
    crossed[i] = value;
    chosen[i] = __shfl_sync(0xffffffffu, i, 3, 8);
    unsigned mask = i % 32 < 8 ? 0xffu : 0xffffff00u;
    int sum = i;
    if (i % 32 < 8) for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(mask, sum, step);
    __syncwarp();
    groups[i] = sum;
    ballots[i] = (int)__ballot_sync(0xffffffffu, i % 2);
}

extern "C" __global__ void block_sums(const double *numbers, double *sums, long long n, int wrong)
{
    extern __shared__ double partial[];
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    partial[threadIdx.x + (wrong ? 1 : 0)] = i < n ? numbers[i] : 0.0;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

extern "C" __global__ void adds(int *i, unsigned long long *u, float *f, double *d, int *order)
{
    order[atomicAdd(i, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(u, (unsigned long long)(long long)-2);
    atomicAdd(f, 0.5f);
    atomicAdd(d, 0.25);
}

extern "C" __global__ void mischief(float *numbers, int what)
{
    __shared__ float few[4];
    int i = threadIdx.x, big = 1 << 20;
    if (what == 0) numbers[(int)blockDim.x] = 1;
    if (what == 1) numbers[-1] = 1;
    if (what == 2) few[i] = 1;
    if (what == 3) numbers[i] = (float)(big * (big + i));
    if (what == 4 && i == 3) return;
    if (what == 4) __syncthreads();
    if (what == 5) { if (i < 3) __syncthreads(); else
        __syncthreads(); }
    if (what == 6 && i < 3) __syncwarp();
    if (what == 7) numbers[i] = (float)(int)(numbers[i] * 1e30f);
    if (what == 8) numbers[i] = few[i];
    if (what == 10) numbers[(int)blockDim.x] += 1;
    if (what == 9) __shfl_xor_sync(i == 1 ? 0x7u : 0xfu, i, 1);
}
"""
)


def launch(kernel: str, grid: int, n_threads: int, *arguments, shared_bytes: int = 0, reverse: bool = False) -> None:  # type: ignore[no-untyped-def]
    EmulatedLauncher(CPU, reverse).launch(KERNELS, kernel, (grid, 1, 1), n_threads, arguments, shared_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_missing_barrier_is_noticed(reverse: bool) -> None:
    numbers, sums = torch.arange(64.0), torch.zeros(64)
    launch("sum_of_block", 1, 64, numbers, sums, np.int32(1), reverse=reverse)
    assert (sums == 64 * 63 / 2).all()
    launch("sum_of_block", 1, 64, numbers, sums, np.int32(0), reverse=reverse)
    assert sums.isnan().sum() == 63  # all but the thread that came last read what nobody had written


@pytest.mark.parametrize("reverse", [False, True])
def test_warps_exchange_numbers_as_cuda_says(reverse: bool) -> None:
    down, up, crossed, chosen, groups, ballots = (torch.zeros(64, dtype=torch.int32) for _ in range(6))
    launch("shuffles", 1, 64, down, up, crossed, chosen, groups, ballots, reverse=reverse)
    i = np.arange(64)
    lane = i % 32
    assert down.tolist() == np.where(lane < 30, i + 2, i).tolist()
    assert up.tolist() == np.where(lane > 0, i - 1, i).tolist()
    assert crossed.tolist() == (100 + (i ^ 1)).tolist()
    assert chosen.tolist() == (i // 8 * 8 + 3).tolist()
    assert groups.tolist() == np.where(lane < 8, 28 + i // 32 * 32 * 8, i).tolist()
    assert (ballots == -0x55555556).all()  # the odd lanes: 0xaaaaaaaa


def test_dynamic_shared_memory_and_doubles() -> None:
    numbers, sums = torch.arange(100, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    arguments = (numbers, sums, np.int64(100))
    launch("block_sums", 4, 32, *arguments, np.int32(0), shared_bytes=256)
    assert torch.equal(sums, torch.nn.functional.pad(numbers, (0, 28)).reshape(4, 32).sum(1))
    with pytest.raises(KernelError, match=r"block \(0, 0, 0\) wrote outside its 256 bytes"):
        launch("block_sums", 4, 32, *arguments, np.int32(1), shared_bytes=256)


def test_atomic_sums_and_the_order_of_threads() -> None:
    def run(reverse: bool) -> tuple[torch.Tensor, ...]:
        kinds = (torch.int32, torch.int64, torch.float32, torch.float64)
        sums = [torch.zeros(1, dtype=kind) for kind in kinds]
        order = torch.zeros(96, dtype=torch.int32)
        launch("adds", 3, 32, *sums, order, reverse=reverse)
        return *sums, order

    *sums, order = run(False)
    assert [float(s) for s in sums] == [96, -192, 48, 24]
    assert order.tolist() == list(range(96))
    *same, reversed_order = run(True)
    assert same == sums
    assert reversed_order.tolist() == list(range(96))[::-1]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (0, "something was written behind it"),
        (1, "something was written before it"),
        (2, "kernels:59: an index outside its array"),
        (3, "a product overflows its integer"),
        (4, "waits at a barrier|returned while others wait"),
        (5, "wait at different barriers"),
        (6, "which has returned|the block hangs"),
        (7, "a number that its integer cannot hold"),
        (9, "different masks"),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_what_a_kernel_must_not_do_is_noticed(what: int, message: str, reverse: bool) -> None:
    n_threads = 4 if what == 9 else 32
    with pytest.raises(KernelError, match=message):
        launch("mischief", 1, n_threads, torch.ones(n_threads), np.int32(what), reverse=reverse)


def test_adding_to_what_lies_behind_is_noticed_in_reversed_order() -> None:
    with pytest.raises(KernelError, match="something was written behind it"):
        launch("mischief", 1, 32, torch.ones(32), np.int32(10), reverse=True)


def test_shared_memory_that_nobody_wrote_is_not_a_number() -> None:
    numbers = torch.ones(4)
    launch("mischief", 1, 4, numbers, np.int32(8))
    assert numbers.isnan().all()


def test_what_a_gpu_would_refuse_or_misread_is_refused() -> None:
    numbers, sums = torch.arange(64.0), torch.zeros(64)
    for kernel, n_threads, arguments, message in (
        ("sum_of_block", 65, (numbers, sums, np.int32(1)), "__launch_bounds__ promises at most 64"),
        ("mischief", 1025, (sums, np.int32(1)), "a block of 1025 threads"),
        ("sum_of_block", 64, (numbers, sums), "takes 3 arguments, 2 are given"),
        ("sum_of_block", 64, (numbers.double(), sums, np.int32(1)), r"argument 0 is double\*, the kernel takes const"),
        ("sum_of_block", 64, (numbers, sums, np.int64(1)), "argument 2 is int64, the kernel takes int32"),
        ("sum_of_block", 64, (numbers, sums, 1), "argument 2 is a Python int"),
        ("sum_of_block", 64, (torch.zeros(128)[::2], sums, np.int32(1)), "not a contiguous tensor"),
        ("another", 64, (), "there is no kernel 'another'"),
    ):
        with pytest.raises(KernelError, match=message):
            launch(kernel, 1, n_threads, *arguments)
    with pytest.raises(KernelError, match="grid"):
        EmulatedLauncher(CPU).launch(KERNELS, "mischief", (1, 65536, 1), 4, (sums, np.int32(8)))  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="65537 bytes of shared memory"):
        launch("mischief", 1, 4, sums, np.int32(8), shared_bytes=65537)
    before = sums.clone()
    launch("mischief", 0, 4, sums, np.int32(8))
    assert torch.equal(sums, before)
