"""Gaussians of one asymmetric unit -> those of the whole particle, differentiably."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def replicate(
    centres_px: torch.Tensor,
    log_scales: torch.Tensor,
    quaternions: torch.Tensor,
    amplitudes: torch.Tensor,
    operators: NDArray[np.floating[Any]],
) -> Tensors:
    """Copy Gaussians by rotations about the box centre.

    Parameters
    ----------
    centres_px, log_scales, quaternions, amplitudes : [N, 3], [N, 3], [N, 4], [N]
    operators : [order, 3, 3]

    Returns
    -------
    the same for order x N Gaussians
    """
    order = len(operators)
    if order == 1:
        return centres_px, log_scales, quaternions, amplitudes
    turns = torch.tensor(operators, dtype=centres_px.dtype, device=centres_px.device)
    copies = torch.einsum("gij,nj->gni", turns, centres_px).reshape(-1, 3)
    turned = _product(_quaternions(operators, quaternions.dtype).to(quaternions.device), quaternions).reshape(-1, 4)
    return copies, log_scales.repeat(order, 1), turned, amplitudes.repeat(order)


def _quaternions(operators: NDArray[np.floating[Any]], kind: torch.dtype) -> torch.Tensor:
    xyzw = Rotation.from_matrix(operators).as_quat()
    return torch.tensor(np.ascontiguousarray(xyzw[:, [3, 0, 1, 2]]), dtype=kind)


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Hamilton products [G, N, 4] of w, x, y, z quaternions [G, 4] and [N, 4]: rotate by the second, then the first."""
    a, b, c, d = first[:, None, :].unbind(-1)
    w, x, y, z = second[None, :, :].unbind(-1)
    return torch.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        dim=-1,
    )
