"""Modulation transfer functions of detectors: STAR files that data_optics names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.star import read_tables

LEAST_VALUE = 1e-10  # images are divided by it


@dataclass(frozen=True)
class DetectorResponse:
    """A detector's MTF at some frequencies, in ascending order, for the micrographs' original pixels."""

    frequencies_in_inverse_angstroms: NDArray[np.float64]  # [m]
    values: NDArray[np.float64]  # [m] positive

    def at(self, frequencies_in_inverse_angstroms: NDArray[np.float64]) -> NDArray[np.float64]:
        """The MTF between its points, the first and last value beyond them."""
        return np.asarray(
            np.interp(frequencies_in_inverse_angstroms, self.frequencies_in_inverse_angstroms, self.values)
        )


def read_detector_responses(groups: Sequence[OpticsGroup], project_directory: Path) -> tuple[DetectorResponse, ...]:
    """The MTF of each optics group, if groups name different ones; else none, for then no image is changed.

    Raises
    ------
    InputError
        If only some groups name one, or a file or pixel size that is needed is missing or wrong.
    """
    paths = [group.mtf_path for group in groups]
    if len(set(paths)) < 2:
        return ()
    responses = []
    for group in groups:
        if group.mtf_path is None:
            raise InputError(
                f"optics group {group.name} names no MTF (rlnMtfFileName) and others do, so the images cannot be"
                " brought to one: name one for each group, or for none"
            )
        if not group.original_pixel_size_in_angstroms > 0:
            raise InputError(
                f"optics group {group.name} names the MTF {group.mtf_path} without the micrographs' pixel size"
                " (rlnMicrographOriginalPixelSize), which it belongs to: add that column to data_optics"
            )
        frequencies, values = _read_mtf(project_directory / group.mtf_path)
        responses.append(DetectorResponse(frequencies / group.original_pixel_size_in_angstroms, values))
    return tuple(responses)


def _read_mtf(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in 1/px and values."""
    tables = [table for table in read_tables(path).values() if "rlnMtfValue" in table]
    if len(tables) != 1:
        raise InputError(
            f"{path} is not an MTF: expected one table with rlnResolutionInversePixel and rlnMtfValue, found"
            f" {len(tables)}"
        )
    frequencies, values = tables[0].numbers("rlnResolutionInversePixel"), tables[0].numbers("rlnMtfValue")
    if len(values) < 2 or np.any(np.diff(frequencies) <= 0) or frequencies[0] < 0:
        raise InputError(f"{path}: rlnResolutionInversePixel does not ascend from 0; expected 0 to 0.5 or beyond")
    if np.any(values < LEAST_VALUE):
        raise InputError(f"{path}: rlnMtfValue falls to {values.min():g}; expected positive values to divide by")
    return frequencies, values
