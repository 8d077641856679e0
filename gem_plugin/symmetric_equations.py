"""The normal equations of all symmetric poses, from those of the poses as they are."""

from collections.abc import Callable

import numpy as np

from gem_plugin.normal_equations import NormalEquations, kernel_spectrum
from gem_plugin.symmetry import PointGroup, symmetrise


def symmetric_equations(
    equations: NormalEquations,
    group: PointGroup,
    radius_px: float,
    n_threads: int,
    between: Callable[[], None] = lambda: None,
) -> NormalEquations:
    """Average b and T over a group: what adding each particle in all its symmetric poses gives, over the order.

    Turning all poses by an operator R turns b and the kernel t; so the sums over the group are those of b and t, and
    no particle is touched again. For a map that has the symmetry, the likelihood is unchanged.

    Parameters
    ----------
    radius_px : of the sphere that holds every map to which the result is applied
    between : called between parts of the work; may raise to end it
    """
    if group.order == 1:
        return equations
    right_side = symmetrise(equations.right_side, group, n_threads, between=between)
    kernel = np.fft.fftshift(equations.kernel())
    reach = 2 * radius_px + 2  # no two voxels of the sphere are further apart
    kernel = symmetrise(kernel, group, n_threads, radius_px=reach, is_even=True, between=between)
    return NormalEquations(right_side, kernel_spectrum(kernel, equations.band), equations.n_particles)
