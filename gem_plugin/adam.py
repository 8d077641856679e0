"""Adam (Kingma and Ba 2015, arXiv:1412.6980) on torch tensors.

The steps are those of ``torch.optim.Adam`` without its options. Making one of torch's own optimisers imports torch's
compiler, which takes seconds, and nothing here is compiled by it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

EPSILON = 1e-8  # against division by zero, where a gradient was always 0


class Adam:
    """Steps of parameters along running means of their gradients, over the root of those of the squares.

    Parameters
    ----------
    param_groups : each with ``params``, a list of tensors, and ``lr``, the size of a step, which may be changed
    betas : how much of either running mean a step keeps
    """

    def __init__(self, param_groups: Sequence[dict[str, Any]], betas: tuple[float, float]) -> None:
        self.param_groups = param_groups
        self._betas = betas
        self._steps = 0
        self._means = [[(torch.zeros_like(p), torch.zeros_like(p)) for p in g["params"]] for g in param_groups]

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Forget the gradients, or fill them with 0."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient; every one must have one."""
        self._steps += 1
        first, second = self._betas
        first_correction, second_correction = 1 - first**self._steps, math.sqrt(1 - second**self._steps)
        for group, means in zip(self.param_groups, self._means, strict=True):
            for parameter, (mean, mean_square) in zip(group["params"], means, strict=True):
                mean.lerp_(parameter.grad, 1 - first)
                mean_square.mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
                scale = (mean_square.sqrt() / second_correction).add_(EPSILON)
                parameter.addcdiv_(mean, scale, value=-group["lr"] / first_correction)

    def state(self) -> list[torch.Tensor]:
        """Copies of all that a step remembers, for `restore`: the number of steps, then the means."""
        kept = [torch.tensor(self._steps)]
        for means in self._means:
            kept += [tensor.clone() for pair in means for tensor in pair]
        return kept

    @torch.no_grad()
    def restore(self, kept: Sequence[torch.Tensor]) -> None:
        """Go back to a `state` of an optimiser of the same parameters."""
        self._steps = int(kept[0])
        own = [tensor for means in self._means for pair in means for tensor in pair]
        for tensor, before in zip(own, kept[1:], strict=True):
            tensor.copy_(before)
