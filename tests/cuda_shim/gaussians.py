"""Gaussians and comparisons for the kernels of cuda/voxelize.cu, wherever these run."""

import numpy as np
import torch

from gem_plugin.ops import voxelize
from tests.helpers import assert_gradients_match, relative_error

NAMES = ("centres", "log-scales", "quaternions", "amplitudes")
Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def some_gaussians(n: int, box_size_px: int, seed: int = 0, *, spread: float = 1.1, scale: float = 1.2) -> Parameters:
    """Random Gaussians, some of them over the edge of the box and some outside."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    centres = (torch.rand(n, 3, generator=g, dtype=torch.float64) - 0.5) * spread * box_size_px
    amplitudes = 0.5 + torch.rand(n, generator=g, dtype=torch.float64)
    amplitudes[::7] *= -1
    return centres, np.log(scale) + 0.35 * normal(n, 3), normal(n, 4), amplitudes


def thin_oblique_gaussians(n: int) -> Parameters:
    centres, _, quaternions, amplitudes = some_gaussians(n, 10, seed=3, spread=1.0)
    return centres, torch.log(torch.tensor([0.4, 0.5, 4.0], dtype=torch.float64)).repeat(n, 1), quaternions, amplitudes


def values_and_gradients(
    parameters: Parameters, n: int, engine: str, cutoff: float = 5.0, precision: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    """A map and the gradients of its product with a random map in the 11 numbers, on the CPU."""
    leaves = [tensor.to(precision).requires_grad_() for tensor in parameters]
    volume = voxelize(*leaves, n, cutoff_sigmas=cutoff, engine=engine)
    assert volume.dtype == precision
    weight = torch.randn(n, n, n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return [volume.detach().cpu(), *torch.autograd.grad(volume, leaves, weight.to(volume))]


def assert_alike(found: list[torch.Tensor], expected: list[torch.Tensor], forward: float, gradient: float) -> None:
    assert relative_error(found[0].double().numpy(), expected[0].double().numpy()) < forward
    for name, a, b in zip(NAMES, found[1:], expected[1:], strict=True):
        assert_gradients_match(a, b, gradient, name)
