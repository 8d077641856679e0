"""What a reconstruction yields: arrays, curves and numbers; no file names."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gem_plugin.gaussians.model import Gaussians

Map = NDArray[np.float32]
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class FitHistory:
    """How one fit went, one entry a recorded step."""

    step: NDArray[np.int64]
    loss: Curve  # negative log-likelihood a particle, less a constant
    box_size_px: NDArray[np.int64]  # of the coarse-to-fine box in use
    held_out_score: Curve  # of the fit that chose the number of steps; nan where it was not evaluated


@dataclass(frozen=True)
class ParticleResults:
    """What the Gaussians of one half say of its particles; residuals are mean |residual|^2 / assumed noise power."""

    indices: NDArray[np.int64]  # [m] rows of the particle table
    scale: Curve  # [m] least-squares factor on the projection; 1 on average
    normalised_residual: Curve  # [m] 1 where projection and noise are right
    group_names: tuple[str, ...]
    group_counts: NDArray[np.int64]  # [groups] particles of this half in each
    group_residual: Curve  # [groups, bands]; nan for a group without particles
    band_first_shell: NDArray[np.int64]  # [bands]
    band_last_shell: NDArray[np.int64]  # [bands] inclusive
    shell_residual: Curve  # [n // 2 + 1] of all particles; nan where no data are used


@dataclass(frozen=True)
class HalfResult:
    """All that was made from one half set."""

    half_set: int  # 1 or 2
    n_particles: int
    gaussians: Gaussians
    gaussian_map: Map  # [z, y, x]
    model_free_map: Map  # [z, y, x]
    noise_power: Curve  # [n // 2 + 1] variance of a Fourier coefficient of an n x n image, per shell
    history: FitHistory
    particles: ParticleResults


@dataclass(frozen=True)
class ResolutionCurve:
    """The cross-validated Fourier shell correlation of design section 7, in bands and shells.

    Band arrays have one entry a band; shell arrays one entry a Fourier shell 0 ... n // 2.
    """

    first_shell: NDArray[np.int64]  # [bands] first Fourier shell of the band
    last_shell: NDArray[np.int64]  # [bands] last Fourier shell of the band, inclusive
    band_resolution_in_angstroms: Curve  # [bands] at the band's centre
    c_full: Curve  # [bands] correlation of the combined map with the truth; nan where not measurable
    c_full_standard_error: Curve  # [bands]
    band_model_free_fsc: Curve  # [bands]
    n_independent: Curve  # [bands] independent Fourier coefficients
    is_measurable: NDArray[np.bool_]  # [bands]
    shell_resolution_in_angstroms: Curve  # [shells], inf at shell 0
    plain_half_map_fsc: Curve  # [shells] of the Gaussian half maps: biased, never a resolution
    model_free_fsc: Curve  # [shells] of the model-free half maps under the same mask
    filter_weight: Curve  # [shells] by which the combined map is filtered
    resolution_in_angstroms: float | None  # None when no resolution is claimed
    crosses_before_nyquist: bool
    statement: str  # the one sentence about resolution that is printed anywhere


@dataclass(frozen=True)
class Reconstruction:
    """The result of a run."""

    box_size_px: int
    pixel_size_in_angstroms: float
    halves: tuple[HalfResult, HalfResult]
    combined_map: Map  # filtered, unsharpened
    calibrated_half_maps: tuple[Map, Map]  # made for RELION's tools, not independent half maps
    mask: Map  # soft, 0 to 1
    mask_origin: str  # where the mask came from, in words
    curve: ResolutionCurve
    settings: dict[str, str]  # the choices that were made, in words, for log and report
    warnings: tuple[str, ...]
