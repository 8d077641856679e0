"""The GPU engine of voxelize(): what the kernels of cuda/voxelize.cu are given, and how they are started.

Both kernels give a Gaussian to a warp; a result does not depend on how the warps are scheduled, and repeats bit for bit
on the same card. Forward, voxels are summed as whole numbers of a unit; backward, each Gaussian gathers its own moments
and one lane writes them. "float" kernels agree with the float64 oracle as the CPU engine does (tests/helpers.py).
"""

from dataclasses import dataclass

import numpy as np
import torch

from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import Argument, checked, launcher_for
from gem_plugin.ops.moments import FootprintShape, footprint_shape

_FILES = ("common.cu", "voxelize.cu")
_SOURCES = {
    torch.float32: KernelSource(_FILES, (("REAL", "float"),)),
    torch.float64: KernelSource(_FILES, (("REAL", "double"),)),
}
SOURCES = tuple(_SOURCES.values())

_THREADS = 128  # THREADS of the kernels
_GAUSSIANS_PER_BLOCK = _THREADS // 32
_MOST_BLOCKS = 8192  # of `finish_map`; each takes more than one turn in large boxes
_FAR = 2.0**20  # voxels from the middle of a box; what lies farther is not drawn, as on the CPU
_HEADROOM_BITS = 62
_LARGEST_EXPONENT = 900
_LEAST_EXPONENT = {torch.float32: -64, torch.float64: -900}  # keeps the number of units in 1 below the type's largest


@dataclass(frozen=True)
class Footprints:
    """N Gaussians as the kernels read them, in the kernels' precision; on one device, as is all that follows."""

    nearest: torch.Tensor  # [N, 3] int32 x, y, z: voxel of the box that is nearest to the centre
    shapes: torch.Tensor  # [N, 11] centre from there, seven factors, peak; NaN for what cannot be drawn
    scale: torch.Tensor  # [2] how many units 1 has in the sum over the Gaussians, and what a unit is

    @property
    def source(self) -> KernelSource:
        """The kernels of this precision."""
        return _SOURCES[self.shapes.dtype]


def kernel_precision(parameters: torch.Tensor) -> torch.dtype:
    """float64 kernels for float64 parameters, float32 for all others."""
    return torch.float64 if parameters.dtype == torch.float64 else torch.float32


def footprints(centres_px: torch.Tensor, shape: FootprintShape, box_size_px: int, precision: torch.dtype) -> Footprints:
    """Gaussians for the kernels; one that is not finite or far outside the box gets no footprint.

    A voxel's sum is at most the sum of all |peaks|, so a unit of 2^-62 of the power of two above that leaves one bit
    of 63 for roundings, whatever overlaps. It is found on the device: nothing waits for it. A peak that is not finite
    leaves no unit, and the whole map is NaN.

    Parameters
    ----------
    centres_px : [N, 3] x, y, z from the box centre
    """
    centres = centres_px.double()
    from_corner = torch.floor(centres + 0.5)
    shapes = torch.cat([centres - from_corner, shape.factors, shape.peaks[:, None]], dim=1).to(precision)
    drawn = torch.isfinite(shapes[:, :10]).all(1) & (centres.abs() <= _FAR).all(1)
    nearest = torch.where(drawn[:, None], from_corner + box_size_px // 2, 0.0).int()
    peaks = torch.where(drawn, shapes[:, 10], 0.0).double()
    exponent = torch.frexp(peaks.abs().sum()).exponent.long().clamp(_LEAST_EXPONENT[precision], _LARGEST_EXPONENT)
    powers = torch.stack([_HEADROOM_BITS - exponent, exponent - _HEADROOM_BITS])
    scale = (powers + 1023 << 52).view(torch.float64)  # 2^powers: the exponent's bits of a float64
    finite = torch.where(torch.isfinite(peaks).all(), 1.0, torch.nan)
    return Footprints(
        nearest, torch.where(drawn[:, None], shapes, torch.nan).contiguous(), (scale * finite).to(precision)
    )


def draw(gaussians: Footprints, cutoff_sigmas: float, box_size_px: int) -> torch.Tensor:
    """Sum of the Gaussians, [n, n, n] in the kernels' precision."""
    device, n = gaussians.shapes.device, box_size_px
    launcher = launcher_for(device)
    sums = torch.zeros((n, n, n), dtype=torch.int64, device=device)
    nearest, shapes, scale = _checked(gaussians)
    arguments = (nearest, shapes, scale, sums, *_numbers(gaussians, cutoff_sigmas, n))
    launcher.launch(gaussians.source, "draw_gaussians", _grid(gaussians), _THREADS, arguments)
    volume = torch.empty((n, n, n), dtype=shapes.dtype, device=device)
    blocks = min(-(-(n**3) // _THREADS), _MOST_BLOCKS)
    launcher.launch(gaussians.source, "finish_map", (blocks, 1, 1), _THREADS, (sums, scale, volume, np.int64(n**3)))
    return volume


def gather(gaussians: Footprints, cutoff_sigmas: float, gradient: torch.Tensor) -> torch.Tensor:
    """Moments of `gradient` [n, n, n] under each Gaussian of unit peak, [N, 10] float64, for `parameter_gradients`."""
    device, n = gaussians.shapes.device, len(gradient)
    nearest, shapes, _ = _checked(gaussians)
    checked(gradient, (n, n, n), shapes.dtype, device)
    moments = torch.empty((len(shapes), 10), dtype=torch.float64, device=device)
    arguments = (nearest, shapes, gradient, moments, *_numbers(gaussians, cutoff_sigmas, n))
    launcher_for(device).launch(gaussians.source, "gather_moments", _grid(gaussians), _THREADS, arguments)
    return moments


def trial(device: torch.device) -> float:
    """Draw a Gaussian of amplitude 1 and width 1 and read it back: the sum of its voxels, 1 within a hundredth."""
    zeros, ones = torch.zeros((1, 3), device=device), torch.ones((1, 4), device=device)
    shape = footprint_shape(zeros, ones, ones[:, 0])
    return float(draw(footprints(zeros, shape, 16, torch.float32), 4.0, 16).sum())


def _grid(gaussians: Footprints) -> tuple[int, int, int]:
    return -(-len(gaussians.shapes) // _GAUSSIANS_PER_BLOCK), 1, 1


def _checked(gaussians: Footprints) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The arrays, whose shapes, types and places nobody else checks."""
    n, device, precision = len(gaussians.shapes), gaussians.shapes.device, gaussians.shapes.dtype
    return (
        checked(gaussians.nearest, (n, 3), torch.int32, device),
        checked(gaussians.shapes, (n, 11), precision, device),
        checked(gaussians.scale, (2,), precision, device),
    )


def _numbers(gaussians: Footprints, cutoff_sigmas: float, n: int) -> tuple[Argument, ...]:
    """Cutoff, N and n with the types of the kernels' parameters."""
    real = np.float64 if gaussians.shapes.dtype == torch.float64 else np.float32
    return real(cutoff_sigmas), np.int32(len(gaussians.shapes)), np.int32(n)
