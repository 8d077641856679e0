"""The kernels of cuda/voxelize.cu, run on the CPU, against the oracle and against the CPU engine."""

import numpy as np
import pytest
import torch

from gem_plugin.ops import cuda_voxelize, voxelize
from gem_plugin.ops.moments import footprint_shape
from tests.cuda_shim.emulator import EmulatedGpu
from tests.cuda_shim.gaussians import assert_alike, some_gaussians, thin_oblique_gaussians, values_and_gradients
from tests.helpers import FLOAT32_FORWARD, FLOAT32_GRADIENT, FLOAT64_EXACT, relative_error

pytestmark = pytest.mark.usefixtures("emulated_gpu")


@pytest.mark.parametrize("cutoff", [3.5, 6.0])
@pytest.mark.parametrize("n", [20, 21])
def test_double_kernels_agree_with_the_oracle(n: int, cutoff: float) -> None:
    parameters = some_gaussians(40, n, seed=1)
    expected = values_and_gradients(parameters, n, "reference", cutoff)
    assert_alike(values_and_gradients(parameters, n, "cuda", cutoff), expected, FLOAT64_EXACT, FLOAT64_EXACT)


@pytest.mark.parametrize("cutoff", [3.5, 6.0])
@pytest.mark.parametrize("n", [20, 21])
def test_float_kernels_agree_with_the_oracle_and_the_cpu_engine(n: int, cutoff: float) -> None:
    parameters = some_gaussians(40, n, seed=1)
    expected = values_and_gradients(parameters, n, "reference", cutoff)
    found = values_and_gradients(parameters, n, "cuda", cutoff, torch.float32)
    assert_alike(found, expected, FLOAT32_FORWARD, FLOAT32_GRADIENT)
    on_cpu = values_and_gradients(parameters, n, "cpu", cutoff, torch.float32)
    assert_alike(found, on_cpu, 2 * FLOAT32_FORWARD, 2 * FLOAT32_GRADIENT)


@pytest.mark.parametrize(
    ("precision", "forward", "gradient"),
    [(torch.float64, FLOAT64_EXACT, FLOAT64_EXACT), (torch.float32, FLOAT32_FORWARD, 4 * FLOAT32_GRADIENT)],
)
def test_thin_oblique_gaussians_are_right(precision: torch.dtype, forward: float, gradient: float) -> None:
    parameters = thin_oblique_gaussians(30)
    expected = values_and_gradients(parameters, 32, "reference", 6.0)
    assert_alike(values_and_gradients(parameters, 32, "cuda", 6.0, precision), expected, forward, gradient)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_boxes_smaller_than_a_footprint_are_right(n: int) -> None:
    parameters = some_gaussians(20, n, seed=n, spread=1.6, scale=2.0)
    expected = values_and_gradients(parameters, n, "reference")
    for found, right in zip(values_and_gradients(parameters, n, "cuda"), expected, strict=True):
        assert float((found - right).norm()) < FLOAT64_EXACT * float(right.norm())


def test_gaussians_much_wider_than_the_box_are_right() -> None:
    centres, log_scales, quaternions, amplitudes = some_gaussians(5, 12, seed=2)
    log_scales = log_scales + torch.tensor([4.0, 8.0, -0.5], dtype=torch.float64)
    parameters = centres, log_scales, quaternions, amplitudes * log_scales.sum(1).exp()
    found, expected = (values_and_gradients(parameters, 12, engine)[0] for engine in ("cuda", "reference"))
    assert relative_error(found.numpy(), expected.numpy()) < FLOAT64_EXACT


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_order_of_threads_or_gaussians(
    precision: torch.dtype, emulated_gpu: EmulatedGpu
) -> None:
    parameters = some_gaussians(40, 16, seed=7)
    found = values_and_gradients(parameters, 16, "cuda", 4.0, precision)
    flipped = tuple(tensor.flip(0) for tensor in parameters)
    emulated_gpu.reversed_order = True
    turned = values_and_gradients(parameters, 16, "cuda", 4.0, precision)
    assert all(torch.equal(a, b) for a, b in zip(found, turned, strict=True))
    other = values_and_gradients(flipped, 16, "cuda", 4.0, precision)  # type: ignore[arg-type]
    assert torch.equal(found[0], other[0])
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(found[1:], other[1:], strict=True))


def test_a_map_in_a_large_box_keeps_its_digits() -> None:
    """Far from the box's middle, where a coordinate in float has an error of 4e-6 voxels."""
    n = 150
    centres = torch.tensor([[65.3, -72.6, 64.1], [-73.2, 70.7, -68.9]], dtype=torch.float64)
    rest = (torch.zeros(2, 3).double(), torch.eye(4).double()[:2], torch.ones(2).double())
    whole = centres.round()
    found = voxelize(*(t.float() for t in (centres, *rest)), n, engine="cuda")
    for j in range(2):
        x, y, z = (int(c) + n // 2 for c in whole[j])
        near = found[max(z - 8, 0) : z + 8, max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8]
        offset = (centres[j].float().double() - whole[j])[None]
        small = voxelize(offset, *(t[j : j + 1] for t in rest), 16, engine="reference")
        begins = [max(8 - i, 0) for i in (z, y, x)]
        expected = small[tuple(slice(b, b + s) for b, s in zip(begins, near.shape, strict=True))]
        assert relative_error(near.double().numpy(), expected.numpy()) < 3e-7


def test_what_is_not_finite_or_far_away_has_no_footprint() -> None:
    n = 16
    parameters = some_gaussians(6, n, scale=1.5)
    expected = values_and_gradients(tuple(t[1:] for t in parameters), n, "cuda", 4.0, torch.float32)  # type: ignore[arg-type]
    for which, columns, value in (
        (0, 0, np.nan), (0, 1, np.inf), (0, 2, -np.inf), (0, slice(None), np.nan), (0, 0, 1e9), (0, 1, -1e9),
        (1, 0, np.nan), (1, 0, 500.0), (1, 2, -500.0), (2, 1, np.nan),
    ):  # fmt: skip
        broken = [tensor.clone() for tensor in parameters]
        broken[which][0, columns] = value
        found = values_and_gradients(tuple(broken), n, "cuda", 4.0, torch.float32)  # type: ignore[arg-type]
        assert torch.equal(found[0], expected[0]), (which, columns, value)
        assert all(torch.equal(a[1:], b) for a, b in zip(found[1:], expected[1:], strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_amplitude_that_is_not_finite_shows_everywhere(value: float) -> None:
    centres, log_scales, quaternions, amplitudes = some_gaussians(6, 8, spread=0.5)
    amplitudes[2] = value
    assert voxelize(centres, log_scales, quaternions, amplitudes, 8, engine="cuda").isnan().all()


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1e12, 1e30])
def test_amplitudes_of_any_size_keep_their_digits(factor: float) -> None:
    parameters = some_gaussians(10, 12)
    scaled = (*parameters[:3], parameters[3] * factor)
    one, other = (values_and_gradients(p, 12, "cuda", 4.0, torch.float32)[0] for p in (parameters, scaled))
    assert relative_error(other.double().numpy() / factor, one.double().numpy()) < 3e-7


def test_as_many_gaussians_as_there_are_in_one_place_do_not_overflow() -> None:
    """Every peak on one voxel: its sum is all that the unit was chosen for."""
    n = 3000
    zeros = torch.zeros(n, 3).double()
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).double().repeat(n, 1)
    for sign in (1.0, -1.0):
        volume = voxelize(zeros, zeros - 1, quaternions, torch.full((n,), sign).double(), 4, engine="cuda")
        peak = sign * n * np.exp(3) / (2 * np.pi) ** 1.5
        assert float(volume[2, 2, 2]) == pytest.approx(peak, rel=1e-13)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_no_gaussians_make_an_empty_map(precision: torch.dtype) -> None:
    empty = tuple(torch.zeros(0, columns, dtype=precision) for columns in (3, 3, 4))
    volume, *gradients = values_and_gradients((*empty, torch.zeros(0)), 8, "cuda", 4.0, precision)  # type: ignore[arg-type]
    assert not volume.any()
    assert [tuple(g.shape) for g in gradients] == [(0, 3), (0, 3), (0, 4), (0,)]


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    centres, log_scales, quaternions, amplitudes = some_gaussians(4, 8)
    shape = footprint_shape(log_scales, quaternions, amplitudes)
    gaussians = cuda_voxelize.footprints(centres, shape, 8, torch.float32)
    with pytest.raises(ValueError, match="expected contiguous"):
        cuda_voxelize.gather(gaussians, 4.0, torch.zeros(8, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected contiguous"):
        cuda_voxelize.gather(gaussians, 4.0, torch.zeros(8, 8, 9))
