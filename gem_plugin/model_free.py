"""The map without Gaussians: the normal equations solved as they stand, linear in the images.

It starts the fit, it is the comparison in the report, and the honest resolution rests on it: there is no positivity
and no support made from the data, only the sphere that the user named.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.normal_equations import NormalEquations, Operator

Map = NDArray[np.floating[Any]]
Apply = Callable[[Map], Map]

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
) -> Map:
    """Solve (T + ridge) v = (1 + RIDGE) b within the support sphere.

    The factor keeps the greyscale: where a shell is evenly sampled, the ridge is RIDGE times its weight.

    With the equations of `gem_plugin.symmetric_equations` the map has the group's symmetry, as RELION's has, which adds
    every particle in all its symmetric poses.

    Parameters
    ----------
    radius_px : radius of the sphere outside which the map is zero
    n_threads : threads of the FFTs
    last_shell : last shell that holds data, by default the last below Nyquist; beyond it the map is next to nothing

    Returns
    -------
    [n, n, n], RELION's greyscale: a projection's pixel is the sum of the voxels
    """
    n = equations.box_size_px
    operator = Operator(equations, n_threads)
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
    sphere = support_sphere(n, radius_px)

    def filtered(volume: Map, response: Map) -> Map:
        transform = fft.rfftn(fft.ifftshift(volume), workers=n_threads) * response
        return np.asarray(fft.fftshift(fft.irfftn(transform, s=volume.shape, workers=n_threads)), dtype=np.float32)

    def project(volume: Map) -> Map:
        return sphere * volume

    def apply(volume: Map) -> Map:
        inside = sphere * volume
        return project(operator.apply(inside) + filtered(inside, ridge))

    inverse = 1 / np.maximum(weight + ridge, 1e-6 * float(shell_mean.max()))

    def precondition(volume: Map) -> Map:
        return sphere * filtered(sphere * volume, inverse)

    scale = np.float32(1 + RIDGE)
    return sphere * _conjugate_gradients(apply, precondition, scale * project(equations.right_side))


def _conjugate_gradients(apply: Apply, precondition: Apply, right_side: Map) -> Map:
    """Solve apply(x) = right_side for a positive operator, from x = 0."""
    solution = np.zeros_like(right_side)
    residual = right_side.copy()
    direction = precondition(residual)
    alignment = np.vdot(residual, direction)
    for _ in range(ITERATIONS):
        if not alignment > 0:  # solved, or nothing to solve
            break
        applied = apply(direction)
        step = alignment / np.vdot(direction, applied)
        solution += step * direction
        residual -= step * applied
        preconditioned = precondition(residual)
        previous, alignment = alignment, np.vdot(residual, preconditioned)
        direction = preconditioned + (alignment / previous) * direction
    return solution
