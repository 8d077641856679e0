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
    n_gaussians: NDArray[np.int64]  # of one asymmetric unit


@dataclass(frozen=True)
class ParticleList:
    """What single particles are called and from where they are seen, in table order."""

    names: tuple[str, ...]  # [n] rlnImageName
    view_angles_deg: Curve  # [n, 2] rlnAngleRot and rlnAngleTilt
    optics_group_names: tuple[str, ...]  # of the groups in use
    optics_group: NDArray[np.int64]  # [n] index among the names


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
    quarter_maps: tuple[Map, Map]  # model-free, of two disjoint halves of this half's particles
    noise_power: Curve  # [n // 2 + 1] variance of a Fourier coefficient of an n x n image, per shell
    history: FitHistory
    particles: ParticleResults
    image_digests: tuple[NDArray[np.int64], NDArray[np.uint64]]  # rows of the table, and of their images' pixels
    unseen_share: float  # of the directions in Fourier space, by the particles' views


@dataclass(frozen=True)
class PostProcessCurves:
    """Half-map FSCs of the model-free maps, each exactly as RELION's PostProcess computes it; [shells] each."""

    unmasked: Curve
    masked: Curve  # both maps multiplied by the mask as they are
    randomised: Curve  # the same after the phases were randomised from a shell on: the mask's own correlation
    corrected: Curve  # (masked - randomised) / (1 - randomised), two shells beyond that shell and further
    from_shell: int | None  # first shell with random phases: the unmasked curve is below 0.8; None: nowhere


@dataclass(frozen=True)
class ResolutionCurve:
    """The cross-validated Fourier shell correlation (docs/method.md, section 6), in bands and shells.

    Band arrays have one entry a band; shell arrays one entry a Fourier shell 0 ... n // 2. `c_full_randomised` is nan
    in bands that reach below the shell from which phases were randomised.
    """

    first_shell: NDArray[np.int64]  # [bands] first Fourier shell of the band
    last_shell: NDArray[np.int64]  # [bands] last Fourier shell of the band, inclusive
    band_resolution_in_angstroms: Curve  # [bands] at the band's centre
    c_full: Curve  # [bands] correlation of the combined map with the truth; nan where not measurable
    c_full_standard_error: Curve  # [bands] from theory
    c_full_resampled_error: Curve  # [bands] the same error from the quarter sets' differences; nan without them
    c_full_randomised: Curve  # [bands] what c_full would be by the mask alone: 0 within its error
    c_full_randomised_error: Curve  # [bands] standard error that c_full_randomised has by chance
    band_model_free_fsc: Curve  # [bands]
    band_model_free_correlation: Curve  # [bands] of the combined model-free map with the truth: beside c_full
    n_independent: Curve  # [bands] independent Fourier coefficients
    is_measurable: NDArray[np.bool_]  # [bands]
    shell_resolution_in_angstroms: Curve  # [shells], inf at shell 0
    plain_half_map_fsc: Curve  # [shells] of the Gaussian half maps: biased, never a resolution
    model_free_fsc: Curve  # [shells] of the model-free half maps under the same mask, their means outside subtracted
    postprocess: PostProcessCurves  # of the model-free half maps
    filter_weight: Curve  # [shells] by which the combined map is filtered
    resolution_in_angstroms: float | None  # None when none is claimed, or when the curve does not cross
    is_claimed: bool  # True, too, where the curve does not cross before the data end
    crosses_before_nyquist: bool
    statement: str  # the one sentence about resolution that is printed anywhere


@dataclass(frozen=True)
class GuinierPlot:
    """Logarithms of a map's mean amplitudes and the line that its B-factor was read from; nan where there is none."""

    inverse_square_in_per_angstrom2: Curve  # [shells] 1 / d^2
    log_amplitude: Curve  # [shells] natural logarithm of the shell's mean amplitude, filtered map under the mask
    is_fitted: NDArray[np.bool_]  # [shells] shells that the line was fitted to
    slope: float  # in square Angstrom: a quarter of the B-factor
    intercept: float
    correlation: float  # of the points with the line


@dataclass(frozen=True)
class Sharpening:
    """How the sharpened map was made."""

    b_factor_in_angstroms2: float | None  # negative sharpens, as in RELION; None: not sharpened
    plot: GuinierPlot
    statement: str


@dataclass(frozen=True)
class LocalResolution:
    """The cross-validated curve in sliding windows."""

    in_angstroms: Map  # [z, y, x] 0 where nothing is stated
    window_radius_in_angstroms: float  # of the sliding window at half height
    statement: str


@dataclass(frozen=True)
class ViewingMaps:
    """The maps that are looked at, beside the combined one."""

    unfiltered: Map  # mean of both halves' Gaussian maps
    sharpened: Map
    sharpening: Sharpening
    locally_filtered: Map
    local_resolution: LocalResolution


@dataclass(frozen=True)
class NoiseControl:
    """Curves of the same fit to images whose phases are random beyond a resolution, under the same mask.

    Bands and shells are those of the `ResolutionCurve`. Up to the resolution all curves should be like the data's.
    Beyond it `c_full` should be 0 within its error, while `plain_half_map_fsc` shows how two fits agree on nothing.
    """

    beyond_in_angstroms: float  # phases are random beyond
    from_shell: int  # first Fourier shell of the maps that holds random phases only
    first_shell: NDArray[np.int64]  # [bands]
    last_shell: NDArray[np.int64]  # [bands] inclusive
    band_resolution_in_angstroms: Curve  # [bands] at the band's centre
    c_full: Curve  # [bands] with the signal's power of the data; nan where that is not measurable
    c_full_error: Curve  # [bands] standard error that it has by chance where there is no signal
    is_beyond: NDArray[np.bool_]  # [bands] measurable in the data and wholly beyond: where c_full should be 0
    shell_resolution_in_angstroms: Curve  # [shells], inf at shell 0
    plain_half_map_fsc: Curve  # [shells] of the control's Gaussian half maps: FSC_n of Chen et al. (2013)
    model_free_fsc: Curve  # [shells] of the control's model-free half maps
    true_half_map_fsc: Curve  # [shells] FSC_true = (FSC_t - FSC_n) / (1 - FSC_n), FSC_t of the data's Gaussians
    is_alarming: bool  # c_full is above 0 beyond chance in a band that is beyond
    statement: str


@dataclass(frozen=True)
class Reconstruction:
    """The result of a run."""

    box_size_px: int
    pixel_size_in_angstroms: float
    halves: tuple[HalfResult, HalfResult]
    combined_map: Map  # filtered, unsharpened
    calibrated_half_maps: tuple[Map, Map]  # made for RELION's tools, not independent half maps
    viewing: ViewingMaps
    mask: Map  # soft, 0 to 1
    mask_origin: str  # where the mask came from, in words
    curve: ResolutionCurve
    particle_list: ParticleList
    symmetry: str  # point group that was imposed
    settings: dict[str, str]  # the choices that were made, in words, for log and report
    warnings: tuple[str, ...]
    noise_control: NoiseControl | None = None  # of --noise_control
