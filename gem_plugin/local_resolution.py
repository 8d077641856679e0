"""Local resolution: where the cross-validated curve in a sliding window crosses 0.5."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.honest import Bands
from gem_plugin.local_curve import LocalCurve
from gem_plugin.reconstruction import LocalResolution, ResolutionCurve
from gem_plugin.statement import THRESHOLD

Map = NDArray[np.floating[Any]]
Samples = NDArray[np.float64]


def local_resolution(
    local: LocalCurve, curve: ResolutionCurve, mask: Map, pixel_size_in_angstroms: float
) -> LocalResolution:
    """Where the local curve crosses 0.5, at every voxel under the mask; 0 elsewhere, as in RELION's own maps.

    It is never finer than the end of the last band of the global curve, and never coarser than the centre of its first.
    """
    edge = mask.shape[0] * pixel_size_in_angstroms
    radius = local.windows.radius_px * pixel_size_in_angstroms
    if not curve.is_claimed:
        nothing = np.zeros(mask.shape, dtype=np.float32)
        return LocalResolution(nothing, radius, "Local resolution: none, because no resolution is claimed")
    shell = local.windows.at_voxels(crossing_shells(local.lower(curve), local.bands))
    resolution = np.where(mask > 0, edge / shell, 0).astype(np.float32)
    fine, middle, coarse = np.percentile(resolution[mask > 0.5], [5, 50, 95])
    return LocalResolution(
        resolution,
        radius,
        f"Local resolution, in windows of {radius:.1f} Angstrom radius: {fine:.2f} to {coarse:.2f} Angstrom in nine"
        f" tenths of the mask, median {middle:.2f} Angstrom",
    )


def crossing_shells(correlation: Samples, bands: Bands) -> Samples:
    """Fourier shell at which each local curve [bands, ...] first falls below 0.5, linear between band centres."""
    centres = bands.centre
    shell = np.full(correlation.shape[1:], float(bands.last[-1]))
    open_ended = np.ones(shell.shape, dtype=bool)
    for band, values in enumerate(correlation):
        falls = open_ended & (values < THRESHOLD)
        open_ended &= ~falls
        if band == 0:
            shell[falls] = centres[0]
            continue
        before = correlation[band - 1][falls]
        part = (before - THRESHOLD) / (before - values[falls])
        shell[falls] = centres[band - 1] + part * (centres[band] - centres[band - 1])
    return shell
