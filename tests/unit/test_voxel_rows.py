"""What the CPU engine of voxelize() relies on, since its kernels check no index, and what its order must not change."""

import numba
import numpy as np
import pytest
import torch

from gem_plugin.ops import numba_cpu, numba_rows, voxelize
from gem_plugin.ops.moments import footprint_shape

Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def some_gaussians(n: int, box_size_px: int, scale: float, seed: int = 0) -> Parameters:
    """Random Gaussians, some of them outside the box."""
    g = torch.Generator().manual_seed(seed)
    centres = (torch.rand(n, 3, generator=g) - 0.5) * 1.6 * box_size_px
    log_scales = np.log(scale) + 0.8 * torch.randn(n, 3, generator=g)
    return centres, log_scales, torch.randn(n, 4, generator=g), 0.5 + torch.rand(n, generator=g)


def values_and_gradients(parameters: Parameters, n: int, engine: str = "cpu") -> list[torch.Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in parameters]
    volume = voxelize(*leaves, n, engine=engine)
    weight = torch.randn(n, n, n, generator=torch.Generator().manual_seed(1))
    return [volume.detach(), *torch.autograd.grad(volume, leaves, weight.to(volume.dtype))]


def test_no_row_reaches_outside_a_planes_numbers() -> None:
    n, cutoff = 24, np.float32(5)
    centres, log_scales, quaternions, amplitudes = some_gaussians(300, n, 3.0)
    factors = footprint_shape(log_scales, quaternions, amplitudes).factors.float().numpy()
    ends = []
    for centre, f in zip(centres.numpy(), factors, strict=True):
        for z in range(*numba_cpu._planes(centre[2], cutoff * f[6], n)):
            assert 0 <= z < n
            start, rows, v, _, walk = numba_cpu._ellipse(centre, f, np.float32(z - n // 2) - centre[2], cutoff**2, n)
            for row in range(rows):
                first = start + row * n + numba_rows.row_of(walk, np.float32(v + row))[0]
                assert 0 <= first < n * n
                ends.append(first + walk.groups * numba_rows.LANES)
    assert n * n + numba_rows.LANES < max(ends) <= numba_rows.padded_pixels(n)  # some need more than one group


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_boxes_smaller_than_a_group_are_right(n: int) -> None:
    parameters = some_gaussians(20, n, 1.0, seed=n)
    doubles = [tensor.double() for tensor in parameters]
    expected = values_and_gradients((doubles[0], doubles[1], doubles[2], doubles[3]), n, "reference")
    for found, right in zip(values_and_gradients(parameters, n), expected, strict=True):
        assert float((found - right).norm()) < 2e-5 * float(right.norm())


def test_a_broken_gaussian_has_no_footprint() -> None:
    """What is not finite is not drawn, and the others are as if it were not there."""
    n = 16
    parameters = some_gaussians(6, n, 1.5)
    expected = voxelize(*(tensor[1:] for tensor in parameters), n)  # type: ignore[misc]
    for which, columns, value in (
        (0, 0, np.nan), (0, 1, np.inf), (0, 2, -np.inf), (0, slice(None), np.nan), (0, 0, 1e9), (0, 1, -1e9),
        (1, 0, np.nan), (2, 1, np.nan),
    ):  # fmt: skip
        broken = [tensor.clone() for tensor in parameters]
        broken[which][0, columns] = value
        assert torch.equal(voxelize(*broken, n), expected), (which, columns, value)


def test_gradients_depend_on_neither_threads_nor_the_order_of_the_gaussians() -> None:
    parameters = some_gaussians(200, 32, 1.2)
    turned = values_and_gradients(tuple(tensor.flip(0) for tensor in parameters), 32)  # type: ignore[arg-type]
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = values_and_gradients(parameters, 32)
    finally:
        numba.set_num_threads(before)
    many = values_and_gradients(parameters, 32)
    for a, b, c in zip(one[1:], many[1:], turned[1:], strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c.flip(0))
