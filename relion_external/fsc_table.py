"""``gem_fsc.star``: the curves of a run as tables. docs/outputs.md describes every column."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gem_plugin.reconstruction import NoiseControl, Reconstruction, ResolutionCurve
from relion_external.star import Cell, loop_block, simple_block

_GENERAL = "The one resolution of this run, from the cross-validated curve in data_fsc_bands."
_BANDS = """Cross-validated Fourier shell correlation of run_class001.mrc, in bands of Fourier shells.
gemCrossValidatedFsc estimates the correlation with the true map: read it against 0.5."""
_SHELLS = """Curves in single Fourier shells.
gemGaussianHalfMapFsc is biased, because both halves share the model's assumptions: never read a resolution from it.
The four with RELION's own labels are of the model-free half maps, as relion_postprocess computes them."""

_CONTROL = """The same fit on images whose phases are random beyond {:g} Angstrom.
Where gemControlIsBeyond is 1, gemControlCrossValidatedFsc should be 0 within its error."""


def fsc_table(reconstruction: Reconstruction) -> str:
    """Return the text of ``gem_fsc.star``."""
    curve = reconstruction.curve
    resolution, from_shell = curve.resolution_in_angstroms, curve.postprocess.from_shell
    general: dict[str, Cell] = {
        "rlnPixelSize": reconstruction.pixel_size_in_angstroms,
        "rlnImageSize": reconstruction.box_size_px,
        "gemIsResolutionClaimed": bool(curve.is_claimed),
        "gemResolutionInAngstroms": float("nan") if resolution is None else resolution,
        "gemCrossesBeforeNyquist": bool(curve.crosses_before_nyquist),
        "gemPhasesRandomisedFromShell": -1 if from_shell is None else from_shell,
        "gemStatement": curve.statement,
    }
    return (
        simple_block("general", general, _GENERAL)
        + loop_block("fsc_bands", _band_columns(curve), _BANDS)
        + loop_block("fsc_shells", _shell_columns(curve), _SHELLS)
        + ("" if reconstruction.noise_control is None else _control_blocks(reconstruction.noise_control))
    )


def _control_blocks(control: NoiseControl) -> str:
    """The curves of the control, in the bands and shells of the data's."""
    bands: dict[str, Sequence[Cell]] = {
        "gemFirstShell": _integers(control.first_shell),
        "gemLastShell": _integers(control.last_shell),
        "gemBandResolutionInAngstroms": _numbers(control.band_resolution_in_angstroms),
        "gemControlCrossValidatedFsc": _numbers(control.c_full),
        "gemControlCrossValidatedFscError": _numbers(control.c_full_error),
        "gemControlIsBeyond": [bool(value) for value in control.is_beyond],
    }
    shells: dict[str, Sequence[Cell]] = {
        "rlnSpectralIndex": list(range(len(control.shell_resolution_in_angstroms))),
        "rlnAngstromResolution": _numbers(control.shell_resolution_in_angstroms),
        "gemControlGaussianHalfMapFsc": _numbers(control.plain_half_map_fsc),
        "gemControlModelFreeHalfMapFsc": _numbers(control.model_free_fsc),
        "gemTrueGaussianHalfMapFsc": _numbers(control.true_half_map_fsc),
    }
    comment = _CONTROL.format(control.beyond_in_angstroms)
    return loop_block("fsc_control", bands, comment) + loop_block("fsc_control_shells", shells, comment)


def _band_columns(curve: ResolutionCurve) -> dict[str, Sequence[Cell]]:
    return {
        "gemFirstShell": _integers(curve.first_shell),
        "gemLastShell": _integers(curve.last_shell),
        "gemBandResolutionInAngstroms": _numbers(curve.band_resolution_in_angstroms),
        "gemCrossValidatedFsc": _numbers(curve.c_full),
        "gemCrossValidatedFscStandardError": _numbers(curve.c_full_standard_error),
        "gemCrossValidatedFscResampledError": _numbers(curve.c_full_resampled_error),
        "gemCrossValidatedFscRandomisedPhases": _numbers(curve.c_full_randomised),
        "gemCrossValidatedFscRandomisedPhasesError": _numbers(curve.c_full_randomised_error),
        "gemModelFreeHalfMapFsc": _numbers(curve.band_model_free_fsc),
        "gemModelFreeCorrelation": _numbers(curve.band_model_free_correlation),
        "gemIndependentCoefficients": _numbers(curve.n_independent),
        "gemIsMeasurable": [bool(value) for value in curve.is_measurable],
    }


def _shell_columns(curve: ResolutionCurve) -> dict[str, Sequence[Cell]]:
    return {
        "rlnSpectralIndex": list(range(len(curve.shell_resolution_in_angstroms))),
        "rlnAngstromResolution": _numbers(curve.shell_resolution_in_angstroms),
        "gemGaussianHalfMapFsc": _numbers(curve.plain_half_map_fsc),
        "gemModelFreeHalfMapFsc": _numbers(curve.model_free_fsc),
        "rlnFourierShellCorrelationUnmaskedMaps": _numbers(curve.postprocess.unmasked),
        "rlnFourierShellCorrelationMaskedMaps": _numbers(curve.postprocess.masked),
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": _numbers(curve.postprocess.randomised),
        "rlnFourierShellCorrelationCorrected": _numbers(curve.postprocess.corrected),
        "gemFilterWeight": _numbers(curve.filter_weight),
    }


def _numbers(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values]


def _integers(values: NDArray[np.int64]) -> list[int]:
    return [int(value) for value in values]
