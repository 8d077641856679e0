"""How many steps a half's fit takes, chosen inside that half by one extra fit to a quarter set.

The half is split in two quarter sets A and B. Gaussians are fitted to A and, as they go, correlated with B's model-free
map, shell by shell: since B's noise is unknown to A, the mean correlation rises while the fit learns the particle and
falls when it learns A's noise. The half, with twice the data, is given somewhat more steps than were best for A.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import masks
from gem_plugin.fsc import Shells
from gem_plugin.honest import SIGNIFICANCE, lay_out_bands

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

EVALUATIONS = 20  # in a whole schedule
PATIENCE = 4  # evaluations without a better one: the schedule's end would not bring it back
MORE_DATA_MORE_STEPS = 1.5  # the half's best step over the quarter's; too few cost more than too many
FEWEST_SHARE = 0.3  # of the schedule


def most_steps_of_the_quarter(schedule_steps: int, most_share: float) -> int:
    """Steps after which a better score would give the half no more steps, of a share of the schedule at most."""
    return math.ceil(most_share * schedule_steps / MORE_DATA_MORE_STEPS)


class HeldOutScore:
    """Mean correlation with the truth, over the shells, of a map fitted to quarter A.

    The signal's power comes from A and B together, but not below its own standard error: bands in which the quarters
    hardly agree count the less, yet they count, because that is where a fit gains or loses most.

    Parameters
    ----------
    fitted, held_out : model-free maps of A and B, [n, n, n]
    mask : [n, n, n], made from this half alone
    last_shell : last shell that holds data
    symmetry_order : of the group over which the maps were averaged
    """

    def __init__(self, fitted: Map, held_out: Map, mask: Map, last_shell: int, symmetry_order: int = 1) -> None:
        self._mask = mask
        self._shells = Shells(mask.shape[0])
        a, b = (self._shells.transform(volume * mask) for volume in (fitted, held_out))
        n_shell = self._shells.n_coefficients / 2 * masks.independent_fraction(mask) / symmetry_order
        self._bands = lay_out_bands(n_shell, last_shell)
        cross = self._bands.sum(self._shells.cross_power(a, b))
        power = np.sqrt(self._bands.sum(self._shells.power(a)) * self._bands.sum(self._shells.power(b)))
        significance = cross / np.maximum(power, 1e-30) * np.sqrt(self._bands.sum(n_shell))
        self.is_meaningful = bool(significance[0] > SIGNIFICANCE)  # else the quarters agree nowhere
        self._signal = np.maximum(cross, power / np.sqrt(self._bands.sum(n_shell)))
        self._held_out = b
        self._n_shells = self._bands.last - self._bands.first + 1

    def __call__(self, volume: Map) -> float:
        """Score a map [n, n, n] fitted to A."""
        transform = self._shells.transform(volume * self._mask)
        cross = self._bands.sum(self._shells.cross_power(transform, self._held_out))
        power = self._bands.sum(self._shells.power(transform))
        c = cross / np.sqrt(np.maximum(power * self._signal, 1e-30))
        return float(np.average(c, weights=self._n_shells))


@dataclass
class StepChoice:
    """Keeps the scores of a fit and says when it may end and which step was best."""

    steps: list[int]
    scores: list[float]

    def record(self, step: int, score: float) -> bool:
        """Keep a score; True when the fit may end."""
        self.steps.append(step)
        self.scores.append(score)
        return len(self.scores) - 1 - int(np.argmax(self.scores)) >= PATIENCE

    def for_the_half(self, schedule_steps: int, least_share: float = FEWEST_SHARE, most_share: float = 1.0) -> int:
        """Steps for the half's own fit, between two shares of the schedule; without any score, the fewest."""
        if not self.scores:
            return round(FEWEST_SHARE * schedule_steps)
        best = self.steps[int(np.argmax(self.scores))]
        bounds = round(least_share * schedule_steps), round(most_share * schedule_steps)
        return int(np.clip(round(MORE_DATA_MORE_STEPS * best), *bounds))
