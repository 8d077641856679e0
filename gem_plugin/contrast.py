"""Whether particles are white, as RELION wants them: the map without Gaussians of a half set tells.

A molecule is dense, and takes the smaller part of the sphere that holds it, so the density's distribution has its tail
to the bright side, and the sphere's rim, where solvent is, is darker than its inside. With black particles both are the
other way round. Noise moves neither: products of maps from different particles have none on average.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.errors import InputError
from gem_plugin.fsc import Shells, fourier_shell_correlation

Map = NDArray[np.floating[Any]]

USED_FSC = 0.143  # shells up to the first below it are looked at
FEWEST_SHELLS = 3
RIM_PX = 3.0
CLEAR_SKEWNESS = 0.4
CLEAR_RIM = 0.2  # standard deviations of the density


@dataclass(frozen=True)
class Contrast:
    """Two signs of a map's contrast, both positive for white particles; zero where there is no signal to judge."""

    skewness: float  # of the density in the sphere
    rim: float  # how much darker than the rest of the sphere its rim is, standard deviations of the density

    @property
    def is_inverted(self) -> bool:
        """Both say that the particles are black."""
        return self.skewness < -CLEAR_SKEWNESS and self.rim < -CLEAR_RIM

    @property
    def is_doubtful(self) -> bool:
        """The tail is on the dark side, but the rim is not bright: a sphere that cuts the particle does that, too."""
        return self.skewness < -CLEAR_SKEWNESS and not self.is_inverted


def measure_contrast(maps: tuple[Map, Map], radius_px: float, n_threads: int = 1) -> Contrast:
    """Judge two maps of one particle from different images.

    Both are filtered by their Fourier shell correlation. With x and y their densities in the sphere, less the means,
    the skewness is mean(x y (x + y) / 2) / mean(x y)^(3/2): the signal's alone, if the noise of the two is independent.

    Parameters
    ----------
    maps : [n, n, n], zero outside the sphere
    radius_px : of the sphere
    """
    n = maps[0].shape[0]
    shells = Shells(n, n_threads)
    correlation = np.nan_to_num(fourier_shell_correlation(*maps)[: shells.last + 1])
    below = np.flatnonzero(correlation[1:] < USED_FSC)
    last = int(below[0]) if len(below) else shells.last
    if last < FEWEST_SHELLS:
        return Contrast(0.0, 0.0)
    weight = np.clip(correlation, 0, 1)
    weight[0] = 1
    weight[last + 1 :] = 0
    distance = conventions.radius_from_centre_px(n)
    inside = distance <= radius_px
    x, y = (np.asarray(shells.filter(one, weight)[inside], dtype=np.float64) for one in maps)
    x, y = x - x.mean(), y - y.mean()
    variance = float(np.mean(x * y))
    if not variance > 0:
        return Contrast(0.0, 0.0)
    is_rim = distance[inside] > radius_px - RIM_PX
    mean = (x + y) / 2
    rim = float(mean[~is_rim].mean() - mean[is_rim].mean())
    return Contrast(float(np.mean(x * y * mean)) / variance**1.5, rim / variance**0.5)


def judge_contrast(contrast: Contrast, invert_contrast: bool | None) -> str:
    """What to say of the contrast; empty where nothing is wrong with it.

    Parameters
    ----------
    invert_contrast : the option: True, images were multiplied by -1; False, the user wants them as they are; None,
        nothing was said

    Raises
    ------
    InputError
        If the particles are black, unless the user wants that.
    """
    if not (contrast.is_inverted or contrast.is_doubtful):
        return ""
    figures = f"skewness {contrast.skewness:.1f}, inside over rim {contrast.rim:.1f} standard deviations"
    remedy = (
        "leave --invert_contrast out: the particles are white without it"
        if invert_contrast
        else "give --invert_contrast, or extract the particles again with inverted contrast"
    )
    if contrast.is_doubtful:
        return f"the particles may be black on white ({figures}), where RELION wants white ones: if so, {remedy}"
    found = f"the particles are darker than what surrounds them ({figures} in the map without Gaussians)"
    if invert_contrast is False:
        return f"{found}, where RELION wants white ones: they are used as they are, as --invert_contrast no asks"
    insist = "" if invert_contrast else "; if they are right as they are, give --invert_contrast no"
    raise InputError(f"{found}, where RELION wants white ones: {remedy}{insist}")
