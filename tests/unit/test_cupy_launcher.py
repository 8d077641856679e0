"""How kernels are handed to CuPy, and what is said when a GPU cannot be used: with a CuPy that only writes down."""

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gem_plugin.errors import GpuMemoryError, OptionError, ResourceError
from gem_plugin.ops import cuda_voxelize, cupy_cuda, engines
from gem_plugin.ops.launch import launcher_for
from tests.cuda_shim.emulator import EmulatedGpu

SOURCE = cuda_voxelize.SOURCES[0]


class CompileError(Exception):
    pass


class FakeFunction:
    def __init__(self, cupy: "FakeCupy", name: str) -> None:
        self.cupy, self.name, self.max_dynamic_shared_size_bytes = cupy, name, 48 * 1024

    def __call__(self, grid: Any, block: Any, values: Any, *, shared_mem: int) -> None:
        if self.cupy.launch_error is not None:
            raise self.cupy.launch_error
        where = {"device": self.cupy.device, "stream": self.cupy.stream}
        shared = {"shared": shared_mem, "most_shared": self.max_dynamic_shared_size_bytes}
        self.cupy.launches.append(
            {"kernel": self.name, "grid": grid, "block": block, "values": values} | where | shared
        )


class FakeCupy(types.ModuleType):
    """What `cupy_cuda` uses of CuPy, and a record of it."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.launches: list[dict[str, Any]] = []
        self.compiled: list[tuple[str, tuple[str, ...], int | None]] = []
        self.device: int | None = None
        self.stream: int | None = None
        self.runtime_version, self.nvrtc_version = 13000, (13, 0)
        self.launch_error: Exception | None = None
        self.compile_error: Exception | None = None
        self.nvrtc_error: Exception | None = None
        stream = types.SimpleNamespace(from_external=lambda other: self._entered("stream", other.__cuda_stream__()[1]))
        self.cuda = types.SimpleNamespace(
            Device=lambda index: self._entered("device", index),
            Stream=stream,
            ExternalStream=lambda address, device: self._entered("stream", (address, device)),
            runtime=types.SimpleNamespace(runtimeGetVersion=lambda: self.runtime_version),
            nvrtc=types.SimpleNamespace(getVersion=self._nvrtc),
            compiler=types.SimpleNamespace(CompileException=CompileError),
        )

    @contextlib.contextmanager
    def _entered(self, what: str, value: Any) -> Iterator[None]:
        assert getattr(self, what) is None, "entered twice"
        assert what != "stream" or self.device is not None, "a stream is entered on its own device"
        setattr(self, what, value)
        try:
            yield
        finally:
            setattr(self, what, None)

    def _nvrtc(self) -> tuple[int, int]:
        if self.nvrtc_error is not None:
            raise self.nvrtc_error
        return self.nvrtc_version

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:
        if self.compile_error is not None:
            raise self.compile_error
        self.compiled.append((code, options, self.device))
        return types.SimpleNamespace(get_function=lambda name: FakeFunction(self, name))


class TensorOnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 1)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    """A machine with two GPUs for which everything is right."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, value in (
        ("is_available", lambda: True),
        ("device_count", lambda: 2),
        ("current_device", lambda: 1),
        ("get_device_capability", lambda index: (9, 0)),
        ("get_device_name", lambda index: "A card"),
        ("mem_get_info", lambda index: (1.5e9, 24e9)),
        ("current_stream", lambda index: types.SimpleNamespace(cuda_stream=1000 + index)),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(cupy_cuda, "_CHECKED", set())
    monkeypatch.setattr(cupy_cuda, "_FUNCTIONS", {})
    return fake


def tensor_on_gpu() -> torch.Tensor:
    return torch.zeros(4).as_subclass(TensorOnGpu)


def test_a_kernel_gets_addresses_numbers_device_and_stream(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = launcher_for(torch.device("cuda", 1))
    tensor = tensor_on_gpu()
    launcher.launch(SOURCE, "draw_gaussians", (3, 2, 1), 128, (tensor, np.float32(4), np.int32(7)))
    (found,) = cupy.launches
    assert found["values"] == (tensor.data_ptr(), 4, 7)
    assert [type(value) for value in found["values"]] == [int, np.float32, np.int32]
    assert (found["kernel"], found["grid"], found["block"], found["shared"]) == (
        "draw_gaussians",
        (3, 2, 1),
        (128, 1, 1),
        0,
    )
    assert (found["device"], found["stream"]) == (1, 1001)
    assert cupy.compiled == [(SOURCE.text, cupy_cuda.COMPILER_OPTIONS, 1)]
    assert (cupy.device, cupy.stream) == (None, None)  # left again
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=55))
    launcher.launch(SOURCE, "draw_gaussians", (3, 2, 1), 128, ())
    assert cupy.launches[-1]["stream"] == 55  # never the stream of before
    assert len(cupy.compiled) == 1
    cupy_cuda.CupyLauncher(torch.device("cuda", 0)).launch(SOURCE, "draw_gaussians", (1, 1, 1), 128, ())
    assert [device for _, _, device in cupy.compiled] == [1, 0]  # once for each device


def test_a_device_without_number_is_the_current_one(cupy: FakeCupy) -> None:
    cupy_cuda.CupyLauncher(torch.device("cuda")).launch(SOURCE, "finish_map", (1, 1, 1), 128, (tensor_on_gpu(),))
    assert cupy.launches[0]["device"] == 1


def test_older_versions_of_cupy_are_given_the_streams_address(cupy: FakeCupy) -> None:
    cupy.cuda.Stream = types.SimpleNamespace()
    cupy_cuda.CupyLauncher(torch.device("cuda", 1)).launch(SOURCE, "finish_map", (1, 1, 1), 128, ())
    assert cupy.launches[0]["stream"] == (1001, 1)


def test_much_shared_memory_is_asked_for_before(cupy: FakeCupy) -> None:
    launcher = cupy_cuda.CupyLauncher(torch.device("cuda", 1))
    for shared_bytes in (48 * 1024, 60 * 1024, 50 * 1024):
        launcher.launch(SOURCE, "finish_map", (1, 1, 1), 128, (), shared_bytes)
    assert [(found["shared"], found["most_shared"]) for found in cupy.launches] == [
        (48 * 1024, 48 * 1024), (60 * 1024, 60 * 1024), (50 * 1024, 60 * 1024),
    ]  # fmt: skip


def test_nothing_is_started_without_blocks(cupy: FakeCupy) -> None:
    cupy_cuda.CupyLauncher(torch.device("cuda", 1)).launch(SOURCE, "finish_map", (0, 1, 1), 128, ())
    assert cupy.launches == cupy.compiled == []


def test_tensors_of_another_device_are_refused(cupy: FakeCupy) -> None:
    for index, tensor in ((0, tensor_on_gpu()), (1, torch.zeros(2))):
        with pytest.raises(ValueError, match="is given a tensor on"):
            cupy_cuda.CupyLauncher(torch.device("cuda", index)).launch(SOURCE, "f", (1, 1, 1), 1, (tensor,))
    assert cupy.launches == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"torch.version.cuda": None}, ["CPU build", "install.sh --cuda"]),
        ({"torch.cuda.is_available": lambda: False}, ["no GPU", "driver", "CUDA 13.0", "CUDA_VISIBLE_DEVICES"]),
        ({"torch.cuda.device_count": lambda: 1}, ["no GPU 1", "1 can be seen"]),
        ({"cupy": None}, ["CuPy cannot be imported", "pip install cupy-cuda13x"]),
        ({"runtime_version": 12090}, ["CuPy is built for CUDA 12, torch for CUDA 13", "pip install cupy-cuda13x"]),
        ({"nvrtc_error": RuntimeError("***\nno libnvrtc.so.13")}, ["libnvrtc.so.13", "pip install nvidia-cuda-nvrtc"]),
        ({"torch.cuda.get_device_capability": lambda i: (6, 1)}, ["A card", "6.1", "too old", "7.0", "--engine cpu"]),
        ({"torch.cuda.get_device_capability": lambda i: (7, 0)}, ["needs NVRTC 12", "13.0", "cupy-cuda12x"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    changes: dict[str, Any], words: list[str], cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        if name == "cupy":
            monkeypatch.setitem(sys.modules, "cupy", value)
        elif name.startswith("torch."):
            monkeypatch.setattr(name, value)
        else:
            setattr(cupy, name, value)
    for _ in range(2):  # not only the first time
        with pytest.raises(ResourceError) as caught:
            cupy_cuda.CupyLauncher(torch.device("cuda", 1))
        assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_old_card_works_with_nvrtc_12(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy.nvrtc_version, cupy.runtime_version = (12, 9), 12090
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
    cupy_cuda.check_gpu(0)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), GpuMemoryError, ["GPU 1", "1.5 of 24.0 GB", "--gpu"]),
        (MemoryError("Out of memory allocating"), GpuMemoryError, ["1.5 of 24.0 GB"]),
        (torch.OutOfMemoryError("tried to allocate"), GpuMemoryError, ["1.5 of 24.0 GB"]),
        (RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), RuntimeError, ["ILLEGAL_ADDRESS"]),
    ],
)
def test_a_full_gpu_is_said_to_be_full(error: Exception, kind: type, words: list[str], cupy: FakeCupy) -> None:
    cupy.launch_error = error
    with pytest.raises(kind) as caught:
        cupy_cuda.CupyLauncher(torch.device("cuda", 1)).launch(SOURCE, "finish_map", (1, 1, 1), 128, ())
    assert [word for word in words if word not in str(caught.value)] == []
    assert isinstance(caught.value, ResourceError) == (kind is GpuMemoryError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("no room at /home"), ["CUPY_CACHE_DIR", "no room at /home"]),
        (
            CompileError("invalid value for --gpu-architecture\nmore"),
            ["NVRTC 13.0", "9.0", "invalid value"],
        ),
    ],
)
def test_what_cannot_be_compiled_is_explained(error: Exception, words: list[str], cupy: FakeCupy) -> None:
    cupy.compile_error = error
    with pytest.raises(ResourceError) as caught:
        cupy_cuda.CupyLauncher(torch.device("cuda", 1)).launch(SOURCE, "finish_map", (1, 1, 1), 128, ())
    assert [word for word in words if word not in str(caught.value)] == []


# ---- which engine runs


@pytest.fixture
def working_gpu(cupy: FakeCupy, emulated_gpu: EmulatedGpu) -> None:
    """Two GPUs whose kernels the CPU runs."""


@pytest.mark.parametrize(
    ("name", "ids", "engine", "words"),
    [
        ("auto", "", "cuda:0", ["GPU 0 (A card)", "works"]),
        ("cuda", "", "cuda:0", ["GPU 0 (A card)", "as asked"]),
        ("cuda", "1", "cuda:1", ["GPU 1"]),
        ("auto", "1:0", "cuda:1", ["GPU 1", "GPU 0"]),
        ("cpu", "", "cpu", ["Numba", "as asked"]),
        ("reference", "", "reference", ["float64"]),
    ],
)
@pytest.mark.usefixtures("working_gpu")
def test_a_gpu_that_works_is_taken(name: str, ids: str, engine: str, words: list[str]) -> None:
    found, reason = engines.resolve_engine(name, ids)
    assert found == engine
    assert [word for word in words if word not in reason] == []


@pytest.mark.usefixtures("working_gpu")
def test_a_gpu_that_counts_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_voxelize, "trial", lambda device: float("nan"))
    engine, reason = engines.resolve_engine("auto")
    assert engine == "cpu"
    assert "counts wrong" in reason
    with pytest.raises(ResourceError, match="counts wrong"):
        engines.resolve_engine("cuda")


def test_auto_says_why_there_is_no_gpu_and_cuda_never_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(cupy_cuda, "_CHECKED", set())
    engine, reason = engines.resolve_engine("auto")
    assert engine == "cpu"
    assert "torch is a CPU build" in reason
    for name, ids in (("cuda", ""), ("auto", "0"), ("cuda", "0,1")):
        with pytest.raises(ResourceError, match="torch is a CPU build"):
            engines.resolve_engine(name, ids)


@pytest.mark.parametrize(
    ("text", "ids"), [("", ()), (" ", ()), ("0", (0,)), ("0,1", (0, 1)), ("0:1", (0, 1)), ("2, 0:2,1", (2, 0, 1))]
)
def test_numbers_of_gpus(text: str, ids: tuple[int, ...]) -> None:
    assert engines.parse_gpu_ids(text) == ids


@pytest.mark.parametrize("text", ["-1", "a", "0,", "0;1", "1.5", "0::1", "cuda:0", "0123"])
def test_what_is_no_number_of_a_gpu_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="expected numbers of GPUs"):
        engines.parse_gpu_ids(text)


def test_engines_that_do_not_exist_or_use_no_gpu_are_refused() -> None:
    for name, ids, message in (
        ("gpu", "", "there is no engine 'gpu'"),
        ("cpu", "0", "names GPUs, but --engine cpu uses none"),
        ("reference", "0", "uses none"),
    ):
        with pytest.raises(OptionError, match=message):
            engines.resolve_engine(name, ids)


def test_where_an_engines_tensors_live() -> None:
    expected = {"cpu": "cpu", "reference": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1"}
    assert {name: str(engines.device_of(name)) for name in expected} == expected


@pytest.mark.usefixtures("cupy")
def test_a_full_gpu_is_explained_whatever_torch_was_at() -> None:
    with pytest.raises(GpuMemoryError, match=r"GPU 1 .* is out of memory"), engines.memory_explained("cuda:1"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(torch.OutOfMemoryError), engines.memory_explained("cpu"):
        raise torch.OutOfMemoryError("not ours to explain")
