"""Fits the Gaussians of ONE half to a data term. Knows no files and no other half."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.errors import GemError
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.normal_equations import NormalEquations, Operator
from gem_plugin.ops import voxelize
from gem_plugin.ops.replicate import replicate
from gem_plugin.symmetry import point_group

Map = NDArray[np.floating[Any]]
OnStep = Callable[["FitState"], None]


@dataclass(frozen=True)
class FitSettings:
    """How a fit steps. Rates are a step's size at the start; they fall along a cosine to `final_rate` of it."""

    n_steps: int
    schedule_steps: int  # the length of the cosine; a fit may be stopped before its end
    centre_rate_px: float = 0.10
    log_scale_rate: float = 0.02
    quaternion_rate: float = 0.02
    amplitude_rate: float = 0.04  # of the softplus argument
    betas: tuple[float, float] = (0.85, 0.98)
    final_rate: float = 0.03
    smallest_scale_px: float = 0.6
    largest_scale_px: float = 4.0
    coarse_box_size_px: int = 0  # box of the first steps, 0 = the full one
    coarse_share: float = 0.1  # of the schedule, done in the coarse box


@dataclass(frozen=True)
class FitState:
    """What a fit tells after a step."""

    step: int  # steps done
    loss: float  # before this step
    box_size_px: int
    gaussians: Callable[[], Gaussians]


class DivergedError(GemError):
    """The fit's loss is no longer a number."""


EDGE_PX = 3.0  # centres stay that far inside the box: what lies beyond it, no data would see


class GaussianFit:
    """Adam on the 11 numbers of each Gaussian against the collapsed likelihood, coarse box first.

    The amplitude is softplus(u) times a unit, so it stays positive; widths are clamped.
    """

    def __init__(
        self, equations: NormalEquations, start: Gaussians, settings: FitSettings, *, engine: str, n_threads: int
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._group = point_group(start.symmetry)
        self._full_box = equations.box_size_px
        self._reach_px = max(equations.box_size_px // 2 - EDGE_PX, 1.0)
        coarse = settings.coarse_box_size_px or equations.box_size_px
        self._full_operator = Operator(equations, n_threads)
        self._coarse_operator = Operator(equations.crop(coarse), n_threads)
        kind = torch.float64 if engine == "reference" else torch.float32

        def parameter(values: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(values, dtype=kind, requires_grad=True)

        self._centres = parameter(start.centres_px)
        self._log_scales = parameter(start.log_scales)
        self._quaternions = parameter(start.quaternions)
        self._unit = float(np.mean(start.amplitudes))
        relative = np.maximum(start.amplitudes / self._unit, 1e-6)
        self._softplus_argument = parameter(np.log(np.expm1(relative)))
        self._rates = [
            settings.centre_rate_px,
            settings.log_scale_rate,
            settings.quaternion_rate,
            settings.amplitude_rate,
        ]
        parameters = [self._centres, self._log_scales, self._quaternions, self._softplus_argument]
        groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, self._rates, strict=True)]
        self._optimiser = torch.optim.Adam(groups, betas=settings.betas)
        self._match_greyscale()

    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now."""
        with torch.no_grad():
            return Gaussians(
                self._centres.float().numpy().copy(),
                self._log_scales.float().numpy().copy(),
                torch.nn.functional.normalize(self._quaternions, dim=1).float().numpy().copy(),
                self._amplitudes().float().numpy().copy(),
                self._group.name,
            )

    def run(self, on_step: OnStep) -> Gaussians:
        """Take the settings' steps; `on_step` is called after each and may raise to stop."""
        coarse_steps = int(self.settings.coarse_share * self.settings.schedule_steps)
        for step in range(self.settings.n_steps):
            operator = self._coarse_operator if step < coarse_steps else self._full_operator
            loss = self._step(operator, step)
            on_step(FitState(step + 1, loss, operator.box_size_px, self.gaussians))
        return self.gaussians()

    def _amplitudes(self) -> torch.Tensor:
        return self._unit * torch.nn.functional.softplus(self._softplus_argument)

    def _volume(self, box_size_px: int) -> torch.Tensor:
        ratio = box_size_px / self._full_box
        whole = replicate(
            self._centres * ratio,
            self._log_scales + math.log(ratio),
            self._quaternions,
            self._amplitudes(),
            self._group.operators,
        )
        return voxelize(*whole, box_size_px, engine=self._engine)

    def _match_greyscale(self) -> None:
        """Scale all amplitudes to the data: the one linear least-squares step that is free."""
        operator = self._coarse_operator
        with torch.no_grad():
            volume = self._volume(operator.box_size_px).float().numpy()
        scale = float(np.vdot(volume, operator.right_side) / np.vdot(volume, operator.apply(volume)))
        if math.isfinite(scale) and scale > 0:
            self._unit *= scale

    def _step(self, operator: Operator, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.settings.schedule_steps, 1)))
        factor = self.settings.final_rate + (1 - self.settings.final_rate) * cosine
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimiser.zero_grad(set_to_none=True)
        volume = self._volume(operator.box_size_px)
        loss, gradient = operator.loss_and_gradient(volume.detach().float().numpy())
        if not math.isfinite(loss):
            raise DivergedError(
                f"the fit diverged at step {step + 1}: its loss is {loss}; look for extreme pixel values in the"
                " particle images, or give fewer --n_gaussians"
            )
        volume.backward(torch.from_numpy(np.ascontiguousarray(gradient)).to(volume.dtype))  # type: ignore[no-untyped-call]
        self._optimiser.step()
        with torch.no_grad():
            self._centres.clamp_(-self._reach_px, self._reach_px)
            self._log_scales.clamp_(math.log(self.settings.smallest_scale_px), math.log(self.settings.largest_scale_px))
        return loss


def gaussian_map(gaussians: Gaussians, box_size_px: int, *, engine: str) -> Map:
    """The map that Gaussians and their symmetry mates make, [n, n, n]."""
    with torch.no_grad():
        whole = replicate(
            torch.from_numpy(gaussians.centres_px),
            torch.from_numpy(gaussians.log_scales),
            torch.from_numpy(gaussians.quaternions),
            torch.from_numpy(gaussians.amplitudes),
            point_group(gaussians.symmetry).operators,
        )
        volume = voxelize(*whole, box_size_px, engine=engine)
    return np.asarray(volume.numpy(), dtype=np.float32)
