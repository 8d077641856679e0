"""Fits the Gaussians of ONE half to a data term. Knows no files and no other half."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.adam import Adam
from gem_plugin.divergence import Divergence
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.ops.replicate import Tensors

OnStep = Callable[["FitState"], None]


class DataTerm(Protocol):
    """What a half set's particles say of Gaussians: a loss and its gradient."""

    voxels_per_px: float  # of the grid on which Gaussians are drawn, a pixel of the particle images
    device: torch.device  # where the Gaussians have to be
    n_particles: int  # of which the loss is the sum
    position: int  # in the term's own order of particles, where it has one: how many parts of it were used

    def go_to(self, position: int) -> None:
        """Go on in that order as if so many parts had been used, not fewer than there were."""

    @property
    def radius_px(self) -> float:
        """Half the edge of the box in which the term is defined."""

    def box_size_at(self, step: int, schedule_steps: int) -> int:
        """Voxels or pixels on an axis of the grid of that step, for the record."""

    def backward(self, unit: Tensors, step: int, schedule_steps: int) -> float:
        """Add the loss's gradients to the parameters behind `unit`; return the loss.

        `unit` are the Gaussians of one asymmetric unit: centres, log-scales, quaternions and amplitudes, in px.
        """

    def best_scale(self, unit: Tensors) -> float:
        """The factor on all amplitudes that minimises the loss."""


@dataclass(frozen=True)
class FitSettings:
    """How a fit steps. Rates are a step's size at the start; they fall along a cosine to `final_rate` of it.

    The defaults are for a gradient without noise: large steps and a short memory.
    """

    n_steps: int
    schedule_steps: int  # the length of the cosine; a fit may be stopped before its end
    centre_rate_px: float = 0.14
    log_scale_rate: float = 0.05
    quaternion_rate: float = 0.06
    amplitude_rate: float = 0.005  # of the softplus argument
    betas: tuple[float, float] = (0.7, 0.95)
    final_rate: float = 0.03
    smallest_scale_voxels: float = 0.55  # of the term's grid: the samples of narrower ones are no longer Gaussian
    largest_scale_px: float = 4.0


def stochastic_settings(n_steps: int, schedule_steps: int) -> FitSettings:
    """For the gradient of some particles at a time, which has noise to be averaged over steps."""
    return FitSettings(
        n_steps,
        schedule_steps,
        centre_rate_px=0.10,
        log_scale_rate=0.02,
        quaternion_rate=0.02,
        amplitude_rate=0.04,
        betas=(0.85, 0.98),
    )


@dataclass(frozen=True)
class FitState:
    """What a fit tells after a step."""

    step: int  # steps done
    loss: float  # before this step
    box_size_px: int
    gaussians: Callable[[], Gaussians]


EDGE_PX = 3.0  # centres stay that far inside the box: what lies beyond it, no data would see


class GaussianFit:
    """Adam on the 11 numbers of each Gaussian against a data term.

    The amplitude is softplus(u) times a unit, so it stays positive; widths are clamped.

    Parameters
    ----------
    double : whether to hold the parameters in float64
    """

    def __init__(self, term: DataTerm, start: Gaussians, settings: FitSettings, *, double: bool = False) -> None:
        self.settings = settings
        self.term = term
        self._symmetry = start.symmetry
        self._smallest_scale_px = settings.smallest_scale_voxels / term.voxels_per_px
        self._reach_px = max(term.radius_px - EDGE_PX, 1.0)
        kind = torch.float64 if double else torch.float32

        def parameter(values: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(values, dtype=kind, device=term.device, requires_grad=True)

        self.centres = parameter(start.centres_px)
        self.log_scales = parameter(start.log_scales)
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
        groups = [{"params": [p], "lr": rate} for p, rate in zip(self._parameters(), self._rates, strict=True)]
        self._optimiser = Adam(groups, settings.betas)
        self._divergence = Divergence(term.n_particles)
        self._are_finite = torch.ones((), dtype=torch.bool, pin_memory=term.device.type == "cuda")
        self._match_greyscale()

    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now."""
        with torch.no_grad():
            return Gaussians(
                _copied(self.centres),
                _copied(self.log_scales),
                _copied(torch.nn.functional.normalize(self._quaternions, dim=1)),
                _copied(self._amplitudes()),
                self._symmetry,
            )

    def run(self, on_step: OnStep, first_step: int = 0, tell: Callable[[str], None] = lambda _: None) -> Gaussians:
        """Take the settings' steps, or those that are left.

        Where the fit diverges, it goes on from its last good state with smaller steps; steps are counted on.

        Parameters
        ----------
        on_step : called after each step; may raise to stop
        tell : told, once, that the fit diverged

        Raises
        ------
        DivergedError
            If smaller steps do not help.
        """
        for step in range(first_step, self.settings.n_steps):
            loss = self._step(step, tell)
            box_size_px = self.term.box_size_at(step, self.settings.schedule_steps)
            on_step(FitState(step + 1, loss, box_size_px, self.gaussians))
        if not self._finiteness():
            self._retreat(self.settings.n_steps - 1, "its Gaussians are no longer numbers", tell)
        return self.gaussians()

    def state(self) -> list[torch.Tensor]:
        """Copies of all from which the next step follows, for `restore`; where the parameters are."""
        return [*self._own_state(), *self._divergence.state()]

    def restore(self, kept: Sequence[torch.Tensor]) -> None:
        """Go back to a `state` of a fit of as many Gaussians."""
        own = len(self._own_state())
        self._restore_own(kept[:own])
        self._divergence.restore(kept[own:], self.term.device)
        self._note_finiteness()

    def _own_state(self) -> list[torch.Tensor]:
        unit = torch.tensor(self._unit, dtype=torch.float64)
        return [unit, *(parameter.detach().clone() for parameter in self._parameters()), *self._optimiser.state()]

    @torch.no_grad()
    def _restore_own(self, kept: Sequence[torch.Tensor]) -> None:
        self._unit = float(kept[0])
        for parameter, before in zip(self._parameters(), kept[1:5], strict=True):
            parameter.copy_(before)
        self._optimiser.restore(kept[5:])

    def _parameters(self) -> Tensors:
        return self.centres, self.log_scales, self._quaternions, self._softplus_argument

    def _amplitudes(self) -> torch.Tensor:
        return self._unit * torch.nn.functional.softplus(self._softplus_argument)

    def unit(self) -> Tensors:
        """Centres, log-scales, quaternions and amplitudes of one asymmetric unit, in px, as autograd sees them."""
        return self.centres, self.log_scales, self._quaternions, self._amplitudes()

    def set_amplitudes(self, amplitudes: torch.Tensor) -> None:
        """Replace the amplitudes, [N] > 0; widths, centres and the optimiser's memory stay."""
        with torch.no_grad():
            self._softplus_argument.copy_(torch.log(torch.expm1((amplitudes / self._unit).clamp(1e-6, 50))))

    def _match_greyscale(self) -> None:
        """Scale all amplitudes to the data: the one linear least-squares step that is free."""
        with torch.no_grad():
            scale = self.term.best_scale(self.unit())
        if math.isfinite(scale) and scale > 0:
            self._unit *= scale

    def _step(self, step: int, tell: Callable[[str], None]) -> float:
        while True:
            self._optimiser.zero_grad(set_to_none=True)
            loss = self.term.backward(self.unit(), step, self.settings.schedule_steps)
            # the loss was waited for, and so was what was sent to the host before it
            trouble = self._divergence.trouble(loss, bool(self._are_finite))
            if not trouble:
                break
            self._retreat(step, trouble, tell)
        if self._divergence.accept(loss, step):
            self._divergence.keep(step, self._own_state())
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.settings.schedule_steps, 1)))
        factor = self.settings.final_rate + (1 - self.settings.final_rate) * cosine
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor * self._divergence.slower
        self._optimiser.step()
        with torch.no_grad():
            self.centres.clamp_(-self._reach_px, self._reach_px)
            self.log_scales.clamp_(math.log(self._smallest_scale_px), math.log(self.settings.largest_scale_px))
        self._note_finiteness()
        return loss

    def _retreat(self, step: int, trouble: str, tell: Callable[[str], None]) -> None:
        state, sentence = self._divergence.retreat(step, trouble)
        if sentence:
            tell(sentence)
        self._restore_own(state)
        self._note_finiteness()

    def _note_finiteness(self) -> None:
        """Send word to the host, without waiting for the device: engines draw nothing for what is no number."""
        self._are_finite.copy_(self._finiteness(), non_blocking=True)

    @torch.no_grad()
    def _finiteness(self) -> torch.Tensor:
        """Whether all parameters are numbers, where they are."""
        return torch.stack([torch.isfinite(parameter).all() for parameter in self._parameters()]).all()


def _copied(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy().copy()
