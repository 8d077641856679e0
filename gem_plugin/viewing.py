"""The maps that a user looks at: unfiltered, sharpened, filtered locally, and local resolution for their colours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.config import ReconstructionConfig
from gem_plugin.local_curve import LocalCurve
from gem_plugin.local_filter import filter_locally
from gem_plugin.local_resolution import local_resolution
from gem_plugin.monitor import Monitor
from gem_plugin.reconstruction import ResolutionCurve, ViewingMaps
from gem_plugin.sharpening import sharpen

Map = NDArray[np.floating[Any]]


def viewing_maps(
    mean: Map,
    mask: Map,
    curve: ResolutionCurve,
    local: LocalCurve,
    pixel_size_in_angstroms: float,
    config: ReconstructionConfig,
    n_threads: int,
    monitor: Monitor,
) -> ViewingMaps:
    """Make the maps and say how.

    Parameters
    ----------
    mean : [n, n, n] of both halves' Gaussian maps
    mask : [n, n, n]
    curve, local : of these maps under this mask
    """
    sharpened, sharpening = sharpen(mean, mask, curve, pixel_size_in_angstroms, config.adhoc_bfac)
    places = local_resolution(local, curve, mask, pixel_size_in_angstroms)
    monitor.note(sharpening.statement)
    monitor.note(places.statement)
    return ViewingMaps(
        unfiltered=mean.astype(np.float32),
        sharpened=sharpened.astype(np.float32),
        sharpening=sharpening,
        locally_filtered=filter_locally(mean, local, curve, n_threads),
        local_resolution=places,
    )
