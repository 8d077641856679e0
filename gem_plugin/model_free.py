"""The map without Gaussians: the normal equations solved as they stand, linear in the images.

It starts the fit, it is the comparison in the report, and the honest resolution rests on it: there is no positivity
and no support made from the data, only the sphere that the user named.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.map_operators import MapOperator, map_operator
from gem_plugin.normal_equations import NormalEquations

Map = NDArray[np.floating[Any]]
Apply = Callable[[torch.Tensor], torch.Tensor]

ITERATIONS = 5  # conjugate gradients, preconditioned: with this ridge more change nothing
RIDGE = 0.1  # of the mean weight of a shell, against directions and frequencies that few particles saw
SPHERE_EDGE_PX = 3.0


def support_sphere(box_size_px: int, radius_px: float) -> Map:
    """1 within `radius_px` of the centre, a cosine edge outside it, [n, n, n]."""
    distance = conventions.radius_from_centre_px(box_size_px)
    ramp = np.clip((distance - radius_px) / SPHERE_EDGE_PX, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * ramp), dtype=np.float32)


def solve_model_free(
    equations: NormalEquations,
    radius_px: float,
    n_threads: int,
    last_shell: int | None = None,
    *,
    engine: str = "cpu",
) -> Map:
    """Solve (T + ridge) v = (1 + RIDGE) b within the support sphere.

    The factor keeps the greyscale: where a shell is evenly sampled, the ridge is RIDGE times its weight.

    With the equations of `gem_plugin.symmetric_equations` the map has the group's symmetry, as RELION's has, which adds
    every particle in all its symmetric poses.

    Parameters
    ----------
    radius_px : radius of the sphere outside which the map is zero
    n_threads : threads of the FFTs on the CPU
    last_shell : last shell that holds data, by default the last below Nyquist; beyond it the map is next to nothing

    Returns
    -------
    [n, n, n], RELION's greyscale: a projection's pixel is the sum of the voxels
    """
    n = equations.box_size_px
    weight = equations.sampling_weight()
    shell = conventions.shell_indices(n)
    counts = np.bincount(shell.ravel())
    shell_mean = np.bincount(shell.ravel(), weights=weight.ravel()) / counts
    last = min(last_shell or n, n // 2 - 1)
    shell_mean[last + 1 :] = shell_mean[last]  # corners of the box beyond the data: nothing may grow there
    if not shell_mean.any():  # no data
        return np.zeros((n, n, n), dtype=np.float32)
    ridge = np.float32(RIDGE) * shell_mean[shell].astype(np.float32)
    outside = shell > last
    ridge[outside] = shell_mean[last]
    inverse = 1 / np.maximum(weight + ridge, 1e-6 * float(shell_mean.max()))
    operator = map_operator(equations, engine, n_threads)
    sphere, ridge_there, inverse_there = (
        operator.given(array) for array in (support_sphere(n, radius_px), ridge, inverse)
    )

    def apply(volume: torch.Tensor) -> torch.Tensor:
        inside = sphere * volume
        return sphere * (operator.apply(inside) + operator.filtered(inside, ridge_there))

    def precondition(volume: torch.Tensor) -> torch.Tensor:
        return sphere * operator.filtered(sphere * volume, inverse_there)

    right_side = (1 + RIDGE) * (sphere * operator.right_side)
    solution = sphere * _conjugate_gradients(operator, apply, precondition, right_side)
    return np.asarray(solution.cpu().numpy())


def _conjugate_gradients(
    operator: MapOperator, apply: Apply, precondition: Apply, right_side: torch.Tensor
) -> torch.Tensor:
    """Solve apply(x) = right_side for a positive operator, from x = 0."""
    solution = torch.zeros_like(right_side)
    residual = right_side.clone()
    direction = precondition(residual)
    alignment = operator.inner(residual, direction)
    for _ in range(ITERATIONS):
        if not alignment > 0:  # solved, or nothing to solve
            break
        applied = apply(direction)
        step = alignment / operator.inner(direction, applied)
        solution += step * direction
        residual -= step * applied
        preconditioned = precondition(residual)
        previous, alignment = alignment, operator.inner(residual, preconditioned)
        direction = preconditioned + (alignment / previous) * direction
    return solution
