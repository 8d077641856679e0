"""What a run takes of a GPU's memory, before it starts."""

from collections.abc import Sequence

import numpy as np
import torch

from gem_plugin.conventions import HalfPlane, half_plane
from gem_plugin.device_stream import batch_size_for
from gem_plugin.device_sums import device_bytes
from gem_plugin.errors import ResourceError
from gem_plugin.map_operators import SLAB_BYTES
from gem_plugin.normal_equations import data_band, kernel_box
from gem_plugin.ops import engines
from gem_plugin.render import choose_render_box

CONTEXT_BYTES = 0.8e9  # CUDA, cuFFT's plans, kernels
LEAST_SHARE = 0.4  # of the images' frequencies: a map of fewer is not what was asked for
USABLE = 0.9  # of what is free: others may take some, too
LEAST_PARTICLE_BYTES = 0.5e9  # for the images and points of a batch that is still worth a pass over the grids


def gpu_bytes(plane: HalfPlane, render_box_px: int) -> float:
    """The most that a run holds on a GPU at a time.

    Parameters
    ----------
    plane : the Fourier points of the map's images
    render_box_px : voxels on an axis of the grid on which Gaussians are drawn
    """
    band = data_band(plane, render_box_px)
    modes = render_box_px, 2 * kernel_box(band, render_box_px), band
    adding, transforming = device_bytes(float(plane.radius.max()) + 1, *modes)
    return CONTEXT_BYTES + max(adding + LEAST_PARTICLE_BYTES, transforming, fit_bytes(render_box_px, band))


def fit_bytes(box: int, band: int) -> float:
    """Of a step of the fit: T's spectrum, the transforms of the doubled box, and maps, [box]^3 each."""
    spectrum = 4.0 * (2 * band + 1) ** 2 * (band + 1)
    lines = 8.0 * box * (2 * band + 1) * (band + 1)
    maps = 4.0 * box**3 * 4 + 8.0 * box**3  # map, T v, gradient, b; the whole numbers that are summed
    return spectrum + lines + maps + 4 * SLAB_BYTES


def plane_with_room(engine: str, plane: HalfPlane, pixel_size_in_angstroms: float) -> tuple[HalfPlane, str]:
    """The frequencies of a half plane for which a GPU has room, and a sentence if those are not all.

    Parameters
    ----------
    plane : of the map's images
    pixel_size_in_angstroms : of the map

    Raises
    ------
    ResourceError
        If it has not even room for `LEAST_SHARE` of them.
    """
    device = engines.device_of(engine)
    if not engines.uses_cuda_kernels(engine) or device.type != "cuda":
        return plane, ""
    free, total = torch.cuda.mem_get_info(device)
    reach = float(plane.radius.max())
    for share in np.arange(1.0, LEAST_SHARE - 0.01, -0.05):
        fewer = plane if share == 1 else half_plane(plane.box_size_px, share * reach)
        needed = gpu_bytes(fewer, choose_render_box(fewer))
        if needed < USABLE * free:
            finest = plane.box_size_px * pixel_size_in_angstroms / (share * reach)
            sentence = (
                f"{engine} has {free / 1e9:.1f} GB of memory free, which is room for frequencies up to {finest:.2f}"
                " Angstrom: finer ones are left out. Another GPU (--gpu) or --engine cpu uses all of them"
            )
            return fewer, "" if share == 1 else sentence
    raise ResourceError(
        f"the run takes about {needed / 1e9:.1f} GB of {engine}'s memory even with {LEAST_SHARE:.0%} of the images'"
        f" frequencies, and {free / 1e9:.1f} of {total / 1e9:.1f} GB are free: stop other programs that use it, choose"
        " another GPU (--gpu) or the CPU (--engine cpu)"
    )


def gpu_sentence(engine: str, plane: HalfPlane, planes: Sequence[HalfPlane], render_box_px: int) -> str:
    """What the run does with a GPU's memory, for its plan.

    Parameters
    ----------
    plane, planes : of the map's images, and of those of each optics group
    """
    needed = gpu_bytes(plane, render_box_px)
    at_once = batch_size_for(planes, engines.device_of(engine))
    return f"GPU memory: about {needed / 1e9:.1f} GB, and what {at_once} particles at a time take"
