"""Adam against torch's own, and what it must not import."""

import subprocess
import sys

import pytest
import torch

from gem_plugin.adam import Adam


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_steps_are_those_of_torch(kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    start = [torch.randn(7, 3, generator=generator, dtype=kind), torch.randn(4, generator=generator, dtype=kind)]
    found = []
    for optimiser in (Adam, torch.optim.Adam):
        parameters = [values.clone().requires_grad_() for values in start]
        groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, (0.2, 0.03), strict=True)]
        adam = optimiser(groups, betas=(0.7, 0.95))
        for step in range(12):
            for group in adam.param_groups:
                group["lr"] *= 0.9
            adam.zero_grad(set_to_none=True)
            loss = ((parameters[0] ** 4).sum() + (parameters[1] * (1 + step)).sin().sum()) * 1e-3
            loss.backward()
            adam.step()
        found.append([p.detach() for p in parameters])
    for ours, torchs, first in zip(*found, start, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=4 * torch.finfo(kind).eps, atol=4 * torch.finfo(kind).eps)
        assert (ours - first).abs().max() > 0.01


def test_a_gradient_may_be_kept_as_zero() -> None:
    parameter = torch.ones(2, requires_grad=True)
    adam = Adam([{"params": [parameter], "lr": 0.1}], betas=(0.9, 0.99))
    parameter.sum().backward()
    adam.zero_grad(set_to_none=False)
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0, 0]


def test_no_compiler_is_imported() -> None:
    program = (
        "import sys, torch; from gem_plugin.adam import Adam; p = torch.ones(2, requires_grad=True);"
        "a = Adam([{'params': [p], 'lr': 0.1}], betas=(0.9, 0.99)); p.sum().backward(); a.step();"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
