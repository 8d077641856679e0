"""What a run takes of a GPU's memory, before it starts."""

import torch

from gem_plugin.conventions import HalfPlane
from gem_plugin.device_sums import device_bytes
from gem_plugin.errors import ResourceError
from gem_plugin.map_operators import SLAB_BYTES
from gem_plugin.normal_equations import data_band, kernel_box
from gem_plugin.ops import engines

CONTEXT_BYTES = 0.8e9  # CUDA, cuFFT's plans, kernels
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


def require_gpu_memory(engine: str, plane: HalfPlane, render_box_px: int) -> str:
    """Make sure that the run fits on its GPU; return a line for the plan.

    Raises
    ------
    ResourceError
        If it does not.
    """
    needed = gpu_bytes(plane, render_box_px)
    device = engines.device_of(engine)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if needed > free:
            raise ResourceError(
                f"the run takes about {needed / 1e9:.1f} GB of {engine}'s memory and {free / 1e9:.1f} of"
                f" {total / 1e9:.1f} GB are free: choose another GPU (--gpu), use fewer frequencies (--maxres) or the"
                " CPU (--engine cpu)"
            )
    return f"GPU memory: about {needed / 1e9:.1f} GB, and more for more particles at a time where it is free"
