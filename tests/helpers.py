"""The one table of tolerances, and comparisons that notice what a loose norm lets pass."""

import numpy as np
import torch
from numpy.typing import NDArray

FLOAT32_FORWARD = 2e-6  # relative L2 error against the float64 oracle; worst measured 6e-7
FLOAT32_GRADIENT = 5e-6  # the same for a gradient; worst measured 1.5e-6
FLOAT64_EXACT = 1e-10
NUFFT = 1e-3  # relative L2 error of an accumulated array against the direct sum; worst measured 3e-4


def relative_error(found: NDArray, expected: NDArray) -> float:  # type: ignore[type-arg]
    """||found - expected|| / ||expected||."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_gradients_match(found: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str) -> None:
    """Gradients [N, ...] agree as a whole, for each Gaussian, and in each column (parameter) without bias.

    A whole-array norm alone would let one Gaussian's or one parameter's gradient be dropped, flipped or scaled.
    """
    a = found.detach().double().reshape(len(found), -1)
    b = expected.detach().double().reshape(len(expected), -1)
    whole = float((a - b).norm() / b.norm())
    assert whole <= tolerance, f"{name}: relative error {whole:.1e} over {tolerance:.1e}"
    typical = b.norm(dim=1).median()
    per_gaussian = (a - b).norm(dim=1) / torch.maximum(b.norm(dim=1), typical)
    assert float(per_gaussian.max()) <= 10 * tolerance, f"{name}: Gaussian {int(per_gaussian.argmax())} differs"
    for column in range(b.shape[1]):
        slope = float((a[:, column] @ b[:, column]) / (b[:, column] @ b[:, column]))
        assert abs(slope - 1) <= tolerance, f"{name}: parameter {column} is scaled by {slope:.6f}"
