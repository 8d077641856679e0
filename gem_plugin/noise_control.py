"""The control of the fit: the same on images whose phases are random beyond a resolution.

There the images hold no particle any more, only noise of the same power, so all that a curve shows there is made by the
fit, the mask or the half sets (high-resolution noise substitution: Chen et al. 2013, Ultramicroscopy 135, 24).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import HalfPlane
from gem_plugin.errors import OptionError
from gem_plugin.fsc import Shells, correlation
from gem_plugin.halves import process_halves
from gem_plugin.honest import Bands, band_powers, mask_halves
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.noise_substitution import NoiseSubstitution
from gem_plugin.phase_randomisation import KEPT_SHELLS, corrected_fsc
from gem_plugin.reconstruction import HalfResult, NoiseControl, ResolutionCurve
from gem_plugin.run import Run
from gem_plugin.shell_sums import Transform

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Halves = tuple[HalfResult, HalfResult]

SIGNIFICANCE = 3.0
LEAST_SHELL = 3.0  # below it nothing would be left of the particle
LEAST_SHELLS_BEYOND = 2.0


def control_radius(config: ReconstructionConfig, plane: HalfPlane, pixel_size_in_angstroms: float) -> float | None:
    """Radius in cycles a box beyond which the control's images have random phases; None where none is asked for.

    Raises
    ------
    OptionError
        If there would be nothing left, or nothing random.
    """
    if not config.noise_control:
        return None
    edge = plane.box_size_px * pixel_size_in_angstroms
    radius = edge / config.noise_control
    finest = edge / (float(plane.radius.max()) - LEAST_SHELLS_BEYOND)
    if not finest <= config.noise_control <= edge / LEAST_SHELL:
        raise OptionError(
            f"--noise_control {config.noise_control:g} Angstrom: expected a resolution between {finest:.2f}"
            f" Angstrom, two shells from where the data end, and {edge / LEAST_SHELL:.0f} Angstrom, a third of the box;"
            " give one at which the map is still good, such as 1.5 times the resolution of the refinement"
        )
    return radius


def run_noise_control(
    particles: Particles, halves: Halves, curve: ResolutionCurve, mask: Map, run: Run
) -> NoiseControl | None:
    """Fit both halves once more to images with random phases and compare; None where no control is asked for.

    Parameters
    ----------
    halves, curve, mask : of the data as they are
    """
    radius = control_radius(run.config, run.plane, particles.optics.pixel_size_in_angstroms)
    controls = control_halves(particles, run)
    if radius is None or controls is None:
        return None
    control = compare(halves, controls, curve, mask, radius, run.config.noise_control)
    say = run.monitor.warn if control.is_alarming else run.monitor.note
    say(control.statement)
    return control


def control_halves(particles: Particles, run: Run) -> Halves | None:
    """Both halves of the same particles with random phases, at member 0 of a team; None where no control is asked for.

    All members of a team have to call it.
    """
    radius = control_radius(run.config, run.plane, particles.optics.pixel_size_in_angstroms)
    if radius is None:
        return None
    substituted = replace(particles, noise_substitution=NoiseSubstitution(radius, run.config.seed))
    checkpoints = run.checkpoints.within("control")
    return process_halves(substituted, replace(run, monitor=_ControlMonitor(run.monitor), checkpoints=checkpoints))


def compare(
    halves: Halves,
    controls: Halves,
    curve: ResolutionCurve,
    mask: Map,
    beyond_radius: float,
    beyond_in_angstroms: float,
) -> NoiseControl:
    """The curves of a control beside those of the data.

    P, the power of the signal, is the data's: the control has none to speak of beyond the resolution. The error of X is
    that of unrelated maps, see `gem_plugin.resolution`.
    """
    bands = Bands(curve.first_shell, curve.last_shell)
    masked = mask_halves(*_maps(controls), mask)
    control = band_powers(masked, bands, curve.n_independent)
    data = band_powers(mask_halves(*_maps(halves), mask), bands, curve.n_independent)
    used = curve.is_measurable & (data.signal > 0) & (control.combined > 0)
    scale = np.sqrt(np.where(used, data.signal * control.combined, np.nan))
    value = control.cross / scale
    random_power = control.signal + control.noise
    error = np.sqrt(control.half * random_power / (4 * curve.n_independent)) / scale
    from_shell = int(np.ceil(beyond_radius + 0.5))
    is_beyond = (curve.first_shell >= from_shell + KEPT_SHELLS) & used
    plain, model_free = (_half_map_fsc(masked.shells, *pair) for pair in (masked.gaussian, masked.model_free))
    is_alarming = bool((value - SIGNIFICANCE * error > 0)[is_beyond].any())
    return NoiseControl(
        beyond_in_angstroms=beyond_in_angstroms,
        from_shell=from_shell,
        first_shell=curve.first_shell,
        last_shell=curve.last_shell,
        band_resolution_in_angstroms=curve.band_resolution_in_angstroms,
        c_full=value,
        c_full_error=error,
        is_beyond=is_beyond,
        shell_resolution_in_angstroms=curve.shell_resolution_in_angstroms,
        plain_half_map_fsc=plain,
        model_free_fsc=model_free,
        true_half_map_fsc=corrected_fsc(curve.plain_half_map_fsc, plain, from_shell),
        is_alarming=is_alarming,
        statement=_statement(value, error, is_beyond, is_alarming, beyond_in_angstroms, curve),
    )


def _maps(halves: Halves) -> tuple[tuple[Map, Map], tuple[Map, Map]]:
    first, second = halves
    return (first.gaussian_map, second.gaussian_map), (first.model_free_map, second.model_free_map)


def _half_map_fsc(shells: Shells, first: Transform, second: Transform) -> Floats:
    return correlation(shells.cross_power(first, second), shells.power(first), shells.power(second))


def _statement(
    value: Floats,
    error: Floats,
    is_beyond: NDArray[np.bool_],
    is_alarming: bool,
    beyond_in_angstroms: float,
    curve: ResolutionCurve,
) -> str:
    head = f"Noise control: with the images' phases random beyond {beyond_in_angstroms:g} Angstrom"
    if not is_beyond.any():
        return f"{head}, no band beyond is measurable in the data, so there is nothing to control"
    band = int(np.argmax(np.where(is_beyond, value / np.where(error > 0, error, np.inf), -np.inf)))
    place = f"in the band of {curve.band_resolution_in_angstroms[band]:.2f} Angstrom"
    found = f"{value[band]:.3f} +- {error[band]:.3f} {place}"
    if is_alarming:
        return (
            f"{head}, the cross-validated correlation of the same fit is {found} and should be 0: the half sets share"
            " noise (the same particles or images in both?), or the mask correlates; do not trust the resolution"
        )
    return (
        f"{head}, the cross-validated correlation of the same fit is nowhere above 0 by {SIGNIFICANCE:.0f} errors"
        f" there: at most {found}"
    )


@dataclass(frozen=True)
class _ControlMonitor:
    """Says of each stage that it is the control's; warnings were given for the data already."""

    monitor: Monitor

    def stage(self, name: str, total: int, unit: str) -> None:
        self.monitor.stage(f"Noise control: {name}", total, unit)

    def advance(self, done: int, **figures: float) -> None:
        self.monitor.advance(done, **figures)

    def note(self, message: str) -> None:
        self.monitor.note(f"Noise control: {message}")

    def warn(self, message: str) -> None:
        self.monitor.note(f"Noise control: {message}")
