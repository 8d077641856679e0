"""The CUDA engine of project(): what its kernels (cuda/project.cu) are given, and how they are started.

A block takes CHUNK Gaussians that lie together through a group of images. Images are sums of integers and gradients
are sums in a fixed order, so both repeat bit for bit. They depend, in their last digits, on the order of the Gaussians
(`gem_plugin.ops.spatial_order`), because the integers' unit is chosen for each chunk.

Errors in float: a Gaussian's contribution to a pixel is off by 2^-22 of the largest peak in its chunk and by a few
2^-24 of itself; an image, by less than 2e-6 of its norm, and gradients by 5e-6, for widths that differ by a factor
of ten or less (tests/unit/test_cuda_project.py). A Gaussian narrower than LEAST_WIDTH_PX is not drawn. An amplitude
that is not finite makes every image NaN.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import checked, launcher_for
from gem_plugin.ops.moments import Axes
from gem_plugin.ops.spatial_order import spatial_order

CHUNK = 128  # Gaussians of a block
N_THREADS = 256
LANES = 2  # threads that share a Gaussian's rows
MOST_IMAGES_PER_BLOCK = 16  # a Gaussian's numbers are read once for so many images, and its gradients written once
ENOUGH_BLOCKS = 2048  # to keep a large card busy: with fewer, blocks take fewer images
LEAST_WIDTH_PX = 1e-4
_MOST_BLOCKS_Y = 65535
_SUM_BITS = 62  # of an image's integers: two more than a sum of peaks needs, for rounding and the sign
_LARGEST_EXPONENT = 120  # 2^120 is a float


def project_source(real: str, *, patch_px: int, lanes: int = LANES, chunk: int = CHUNK) -> KernelSource:
    """The kernels for "float" or "double", with `patch_px` numbers of shared memory for an image's part."""
    defines = {
        "REAL": real,
        "REAL_IS_DOUBLE": int(real == "double"),
        "THREADS": N_THREADS,
        "CHUNK": chunk,
        "LANES": lanes,
        "PATCH_PX": patch_px,
        "BLOCKS_DRAWING": 1 if real == "double" else 4,
        "BLOCKS_GATHERING": 1 if real == "double" else 3,
    }
    return KernelSource(
        ("common.cu", "ellipses.cu", "project.cu"), tuple((name, str(value)) for name, value in defines.items())
    )


FLOAT = project_source("float", patch_px=6144)
DOUBLE = project_source("double", patch_px=2048)  # shared memory allows no more
SOURCES = (FLOAT, DOUBLE)


def source_for(parameters: torch.Tensor) -> KernelSource:
    """float64 kernels for float64 parameters, float32 for all others."""
    return DOUBLE if parameters.dtype == torch.float64 else FLOAT


@dataclass(frozen=True)
class Scene:
    """Gaussians and views as the kernels take them, Gaussians in their spatial order."""

    source: KernelSource
    order: torch.Tensor  # [N] int64: which Gaussian of the caller's stands where
    rotations: torch.Tensor  # [B, 3, 3] float64
    view_areas: torch.Tensor  # [B] area in the image of a unit square in its plane
    centres: torch.Tensor  # [N, 3] float64
    axes: torch.Tensor  # [N, 3, 3] axes in the columns, as long as the widths
    least_areas: torch.Tensor  # [N] product of the two smaller widths; 0 for what is not drawn
    amplitudes: torch.Tensor  # [N]
    box_size_px: int
    cutoff_sigmas: float
    images_per_block: int

    @property
    def real(self) -> torch.dtype:
        """The kernels' floating point type."""
        return torch.float64 if _define(self.source, "REAL") == "double" else torch.float32

    @property
    def device(self) -> torch.device:
        """Where everything lives."""
        return self.centres.device

    @property
    def n_groups(self) -> int:
        """Of images, each of which a block goes through."""
        return math.ceil(len(self.rotations) / self.images_per_block)


def order_of(centres: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The order in which Gaussians are drawn fastest: `spatial_order` in chunks, in a chunk from small to large.

    Parameters
    ----------
    centres : [N, 3]
    scales : [N, 3] widths, or their logarithms

    Returns
    -------
    [N] int64
    """
    return spatial_order(centres, CHUNK, scales.amax(1))


def scene(
    centres: torch.Tensor,
    axes: Axes,
    amplitudes: torch.Tensor,
    rotations: torch.Tensor,
    box_size_px: int,
    cutoff_sigmas: float,
    *,
    order: torch.Tensor | None = None,
    source: KernelSource = FLOAT,
) -> Scene:
    """Prepare Gaussians and views, on the Gaussians' device.

    Parameters
    ----------
    centres : [N, 3] pixels
    axes : of the N Gaussians
    amplitudes : [N]
    rotations : [B, 3, 3]
    order : [N] int64 an older order of the same Gaussians, by `order_of`: any is right, one that is far from now's
        costs time; None: now's

    Raises
    ------
    ValueError
        If the box is wider than a patch, or the order is not of N Gaussians.
    """
    device, n = centres.device, len(centres)
    if box_size_px | 1 > int(_define(source, "PATCH_PX")):
        raise ValueError(f"a box of {box_size_px} px is wider than the {_define(source, 'PATCH_PX')} px of a patch")
    if order is None:
        order = order_of(centres, axes.scales)
    if order.shape != (n,):
        raise ValueError(f"an order of {len(order)} Gaussians was given for {n}")
    real = torch.float64 if _define(source, "REAL") == "double" else torch.float32
    smallest, second = axes.scales.sort(dim=1).values[:, :2].unbind(1) if n else (axes.scales.sum(1),) * 2
    is_drawn = (smallest >= LEAST_WIDTH_PX) & axes.scales.isfinite().all(1) & axes.rotations.isfinite().all((1, 2))
    least_areas = torch.where(is_drawn, smallest * second, 0.0)
    lengthened = axes.rotations * axes.scales[:, None, :]
    views = rotations.to(device=device, dtype=torch.float64).contiguous()
    return Scene(
        source,
        order,
        views,
        torch.linalg.cross(views[:, 0], views[:, 1]).norm(dim=1).to(real),
        centres.detach().double()[order].contiguous(),
        lengthened.to(real)[order].contiguous(),
        least_areas.to(real)[order].contiguous(),
        amplitudes.detach().to(real)[order].contiguous(),
        box_size_px,
        cutoff_sigmas,
        _images_per_block(len(views), n),
    )


def _images_per_block(n_images: int, n_gaussians: int) -> int:
    """Depends on nothing but these numbers: sums have the same order, and the same last digits, on any card."""
    wanted = n_images * math.ceil(n_gaussians / CHUNK) // ENOUGH_BLOCKS
    return max(min(wanted, MOST_IMAGES_PER_BLOCK), 1, math.ceil(n_images / _MOST_BLOCKS_Y))


def draw(given: Scene) -> torch.Tensor:
    """Images of the Gaussians, [B, n, n] in the kernels' type."""
    n_images, n, device = len(given.rotations), given.box_size_px, given.device
    exponents, units = _integers(given)
    sums = torch.zeros((n_images, n, n), dtype=torch.int64, device=device)
    images = torch.empty((n_images, n, n), dtype=given.real, device=device)
    launcher = launcher_for(device)
    launcher.launch(
        given.source,
        "draw_gaussians",
        (math.ceil(len(given.centres) / CHUNK), given.n_groups, 1),
        N_THREADS,
        (
            *_views(given),
            checked(exponents, (n_images,), torch.int32, device),
            *_gaussians(given),
            *_sizes(given),
            sums,
        ),
    )
    for first in range(0, n_images, _MOST_BLOCKS_Y):
        part = slice(first, first + _MOST_BLOCKS_Y)
        launcher.launch(
            given.source,
            "pixels_of_sums",
            (math.ceil(n * n / N_THREADS), len(units[part]), 1),
            N_THREADS,
            (sums[part], units[part], np.int64(n * n), images[part]),
        )
    return images


def gather(given: Scene, gradients: torch.Tensor) -> torch.Tensor:
    """Gradients in centre (3), covariance (6) and amplitude of the Gaussians, in the caller's order, [N, 10] float64.

    dL/dCovariance, xx, xy, xz, yy, yz, zz, is half of what a pair of off-diagonal elements does.

    Parameters
    ----------
    gradients : [B, n, n] of the loss in the images
    """
    n_images, n, n_gaussians, device = len(given.rotations), given.box_size_px, len(given.centres), given.device
    images = checked(gradients.detach().to(given.real).contiguous(), (n_images, n, n), given.real, device)
    parts = torch.empty((given.n_groups, n_gaussians, 10), dtype=given.real, device=device)
    total = torch.zeros((n_gaussians, 10), dtype=torch.float64, device=device)
    launcher = launcher_for(device)
    launcher.launch(
        given.source,
        "gather_gradients",
        (math.ceil(n_gaussians / CHUNK), given.n_groups, 1),
        N_THREADS,
        (*_views(given), *_gaussians(given), images, *_sizes(given), parts),
    )
    launcher.launch(
        given.source,
        "add_parts",
        (math.ceil(total.numel() / N_THREADS), 1, 1),
        N_THREADS,
        (parts, np.int32(given.n_groups), np.int64(total.numel()), total),
    )
    in_callers_order = torch.empty_like(given.order)
    in_callers_order[given.order] = torch.arange(n_gaussians, device=device)
    return total[in_callers_order]


def _integers(given: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponent of two and value of the unit of each image's integers, [B] int32 and [B] float64.

    No pixel exceeds the sum of all peaks, and no peak |a| / (2 pi s1 s2 area) with the two smaller widths.
    """
    are_drawn = given.least_areas > 0
    peaks = given.amplitudes.double().abs() / (2 * math.pi * given.least_areas.double())
    total = torch.where(are_drawn, peaks, 0.0).sum()
    bounds = total / given.view_areas.double()
    of_bounds = torch.frexp(torch.where(bounds.isfinite(), bounds, 1.0)).exponent
    exponents = (_SUM_BITS - of_bounds).clamp(max=_LARGEST_EXPONENT).to(torch.int32)
    units = torch.where(total.isfinite(), torch.ldexp(torch.ones_like(bounds), -exponents), torch.nan)
    return exponents, units


def _views(given: Scene) -> tuple[torch.Tensor, ...]:
    n_images = len(given.rotations)
    return (
        checked(given.rotations, (n_images, 3, 3), torch.float64, given.device),
        checked(given.view_areas, (n_images,), given.real, given.device),
    )


def _gaussians(given: Scene) -> tuple[torch.Tensor, ...]:
    n, real, device = len(given.centres), given.real, given.device
    return (
        checked(given.centres, (n, 3), torch.float64, device),
        checked(given.axes, (n, 3, 3), real, device),
        checked(given.least_areas, (n,), real, device),
        checked(given.amplitudes, (n,), real, device),
    )


def _sizes(given: Scene) -> tuple[np.int32 | np.float32 | np.float64, ...]:
    real = np.float64 if given.real == torch.float64 else np.float32
    counts = len(given.centres), len(given.rotations), given.images_per_block, given.box_size_px
    return (*(np.int32(count) for count in counts), real(given.cutoff_sigmas))


def _define(source: KernelSource, name: str) -> str:
    return dict(source.defines)[name]
