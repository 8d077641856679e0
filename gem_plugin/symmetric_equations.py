"""The normal equations of all symmetric poses, from those of the poses as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.normal_equations import NormalEquations, kernel_spectrum
from gem_plugin.symmetry import PointGroup, symmetrise

Map = NDArray[np.floating[Any]]


def symmetric_equations(
    equations: NormalEquations,
    group: PointGroup,
    radius_px: float,
    n_threads: int,
    between: Callable[[], None] = lambda: None,
) -> NormalEquations:
    """As `symmetric_pair`, for one set of particles."""
    return symmetric_pair((equations, equations), group, radius_px, n_threads, between)[0]


def symmetric_pair(
    equations: tuple[NormalEquations, NormalEquations],
    group: PointGroup,
    radius_px: float,
    n_threads: int,
    between: Callable[[], None] = lambda: None,
) -> tuple[NormalEquations, NormalEquations]:
    """Average b and T over a group: what adding each particle in all its symmetric poses gives, over the order.

    Turning all poses by an operator R turns b and the kernel t; so the sums over the group are those of b and t, and
    no particle is touched again. For a map that has the symmetry, the likelihood is unchanged. Two sets are turned
    together, one as the real and one as the imaginary part, at the price of one.

    Parameters
    ----------
    radius_px : of the sphere that holds every map to which the result is applied
    between : called between parts of the work; may raise to end it
    """
    first, second = equations
    if group.order == 1:
        return equations
    right_side = symmetrise(_joined(first.right_side, second.right_side), group, n_threads, between=between)
    kernel: NDArray[Any] = np.fft.fftshift(_joined(first.kernel(), second.kernel()))
    reach = 2 * radius_px + 2  # no two voxels of the sphere are further apart
    kernel = symmetrise(kernel, group, n_threads, radius_px=reach, is_even=True, between=between)

    def part(b: Map, t: Map, of: NormalEquations) -> NormalEquations:
        return NormalEquations(np.ascontiguousarray(b), kernel_spectrum(t.copy(), of.band), of.n_particles)

    return part(right_side.real, kernel.real, first), part(right_side.imag, kernel.imag, second)


def _joined(first: Map, second: Map) -> NDArray[np.complex64]:
    joined = np.empty(first.shape, dtype=np.complex64)
    joined.real, joined.imag = first, second
    return joined
