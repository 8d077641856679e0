"""The likelihood of a half set in its collapsed form, as a data term of the fit: b and T instead of images."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.map_operators import MapOperator, map_operator
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.ops import voxelize
from gem_plugin.ops.replicate import Tensors, replicate
from gem_plugin.render import in_voxels
from gem_plugin.spreading import fast_even_size
from gem_plugin.symmetry import NO_SYMMETRY, PointGroup, cosets

# of the schedule: the steps that are done in the coarse box, and then on voxels as large as the images' pixels, while
# the Gaussians are still wide
COARSE_SHARE, MIDDLE_SHARE = 0.1, 0.4


class CollapsedTerm:
    """The negative log-likelihood L(v) of `gem_plugin.normal_equations`, for v drawn from Gaussians.

    Parameters
    ----------
    equations : b and T, windowed to the central box in which the Gaussians live
    voxels_per_px : voxels of their grid on a pixel of the particle images
    coarse_box : voxels on an axis in the first steps, for the same extent; 0 = all of them
    group : of which the Gaussians are those of one asymmetric unit. Copies by operators that carry voxels onto voxels
        are not drawn: the map is moved.
    """

    position = 0  # all particles are in every step

    def __init__(
        self,
        equations: NormalEquations,
        *,
        engine: str,
        n_threads: int,
        voxels_per_px: float = 1.0,
        coarse_box: int = 0,
        group: PointGroup = NO_SYMMETRY,
    ) -> None:
        self.voxels_per_px = voxels_per_px
        self.n_particles = equations.n_particles
        self._engine = engine
        self._moving, self._drawn = cosets(group.operators)
        self._full = map_operator(equations, engine, n_threads)
        self.device = self._full.device
        full = equations.box_size_px
        middle = min(fast_even_size(full / voxels_per_px), full)

        def operator(box_size_px: int) -> MapOperator:
            return self._full if box_size_px == full else map_operator(equations.crop(box_size_px), engine, n_threads)

        self._middle = operator(middle)
        self._coarse = operator(min(coarse_box, middle) or full)

    def go_to(self, position: int) -> None:
        """Every step is like every other."""

    @property
    def radius_px(self) -> float:
        """Half the edge of the box in which the data term is defined."""
        return self._full.box_size_px // 2 / self.voxels_per_px

    def box_size_at(self, step: int, schedule_steps: int) -> int:
        """Voxels on an axis in which a step is done."""
        return self._operator(step, schedule_steps).box_size_px

    def backward(self, unit: Tensors, step: int, schedule_steps: int) -> float:
        """Add the gradients of L to the parameters behind `unit` (lengths in px); return L less a constant."""
        operator = self._operator(step, schedule_steps)
        volume = self._draw(unit, operator)
        loss, gradient = operator.loss_and_gradient(self._moved(volume.detach(), operator))
        gradient = self._moved(gradient, operator)  # the sum over a group of moves is its own adjoint
        volume.backward(gradient.to(volume.dtype))  # type: ignore[no-untyped-call]
        return loss

    def residual(self, unit: Tensors) -> NDArray[Any]:
        """T v - b, negative where the data want more density, on the grid on which the Gaussians are drawn."""
        with torch.no_grad():
            volume = self._moved(self._draw(unit, self._full), self._full)
        return np.asarray(self._full.loss_and_gradient(volume)[1].cpu().numpy())

    def best_scale(self, unit: Tensors) -> float:
        """The factor on all amplitudes that minimises L; not in the coarse box, whose voxels miss narrow Gaussians.

        Where noise wants it to be negative, it is one that changes L by no more than 2.
        """
        middle = self._middle
        with torch.no_grad():
            volume = self._moved(self._draw(unit, middle), middle)
        wanted, curvature = middle.inner(volume, middle.right_side), middle.inner(volume, middle.apply(volume))
        return wanted / curvature if wanted > 0 else min(math.sqrt(2 / curvature), 1 / max(-wanted, 1e-30))

    def _operator(self, step: int, schedule_steps: int) -> MapOperator:
        if step < int(COARSE_SHARE * schedule_steps):
            return self._coarse
        return self._middle if step < int(MIDDLE_SHARE * schedule_steps) else self._full

    def _draw(self, unit: Tensors, operator: MapOperator) -> torch.Tensor:
        """The map of the Gaussians and those of their copies that cannot be had by moving it."""
        ratio = self.voxels_per_px * operator.box_size_px / self._full.box_size_px
        return voxelize(*in_voxels(replicate(*unit, self._drawn), ratio), operator.box_size_px, engine=self._engine)

    def _moved(self, volume: torch.Tensor, operator: MapOperator) -> torch.Tensor:
        return operator.moved_sum(volume.float(), self._moving)
