"""What Gaussians predict of particle images: project(), transform, and the likelihood of a few particles."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.conventions import HalfPlane
from gem_plugin.dataset import FourierBatch
from gem_plugin.device_batches import DeviceBatch
from gem_plugin.ops import DEFAULT_CUTOFF_SIGMAS, project
from gem_plugin.ops.replicate import Tensors


@dataclass(frozen=True)
class Imaging:
    """How one half's images are compared with its Gaussians; a value for each optics group."""

    plane: HalfPlane  # of an image with the map's box and pixels
    planes: tuple[HalfPlane, ...]
    noise_power: tuple[NDArray[np.float32], ...]  # [points] each
    greyscale: NDArray[np.float64]  # [groups] of the images: times the map's
    render_boxes_px: tuple[int, ...]  # pixels on an axis on which projections are drawn, for the images' extent

    def views(self, batch: FourierBatch | DeviceBatch) -> NDArray[np.float64]:
        """From Gaussians in pixels of the map to the pixels on which a batch's projections are drawn, [m, 3, 3].

        An image's position x, in its n pixels, is S r n / n_map, since its frequencies k lie at S^T k in the map's.
        """
        return batch.slices * (self.render_boxes_px[batch.group] / self.plane.box_size_px)


def predicted_transforms(
    whole: Tensors,
    rotations: NDArray[np.float64],
    plane: HalfPlane,
    render_box_px: int,
    *,
    engine: str,
    cutoff_sigmas: float = DEFAULT_CUTOFF_SIGMAS,
) -> torch.Tensor:
    """Transforms of the projections of Gaussians, before the CTF, at the points of `plane`; differentiable.

    Parameters
    ----------
    whole : all Gaussians of the particle
    rotations : [m, 3, 3] which may scale: they take the Gaussians' lengths to pixels of the projections
    render_box_px : pixels on an axis on which the projections are drawn, for the extent of the images' box
    cutoff_sigmas : radius of a Gaussian's footprint

    Returns
    -------
    [m, points] complex
    """
    images = project(*whole, rotations, render_box_px, engine=engine, cutoff_sigmas=cutoff_sigmas)
    spectrum = torch.fft.rfft2(images)
    rows, columns, signs = (torch.from_numpy(part) for part in spectrum_places(plane, render_box_px))
    transforms: torch.Tensor = spectrum[:, rows, columns] * signs.to(images.dtype)
    return transforms


def spectrum_places(
    plane: HalfPlane, render_box_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where the points of `plane` lie in the ``rfft2`` of a projection: rows, columns and signs, each [points].

    The signs move the origin to the centre pixel.
    """
    return plane.ky % render_box_px, plane.kx, (1 - 2 * ((plane.kx + plane.ky) % 2)).astype(np.float32)


def projection_spectra(
    whole: Tensors, rotations: NDArray[np.float64], render_box_px: int, *, engine: str, n_threads: int
) -> NDArray[np.complexfloating[Any, Any]]:
    """``rfft2`` of the projections of Gaussians, where no gradient is wanted, [m, n, n // 2 + 1].

    Parameters
    ----------
    whole : all Gaussians of the particle
    rotations : [m, 3, 3] which may scale: they take the Gaussians' lengths to pixels of the projections
    render_box_px : n, pixels on an axis on which the projections are drawn
    n_threads : of the transforms
    """
    with torch.no_grad():
        images = project(*whole, rotations, render_box_px, engine=engine)
    return np.asarray(fft.rfft2(images.numpy(), axes=(1, 2), workers=n_threads))


def negative_log_likelihood(
    predicted: torch.Tensor, batch: FourierBatch, inverse_noise: NDArray[np.float32]
) -> torch.Tensor:
    """1/2 sum |CTF X - Y|^2 / sigma^2 less the constant 1/2 sum |Y|^2 / sigma^2 (docs/method.md, section 1).

    Parameters
    ----------
    predicted : [m, points] X
    inverse_noise : [points] the weight of each point over sigma^2, see `weights`
    """
    observed, ctf = (torch.from_numpy(part) for part in batch.plain())
    modelled = predicted * ctf
    cross = modelled.real * observed.real + modelled.imag * observed.imag
    squares = modelled.real**2 + modelled.imag**2
    return ((squares - 2 * cross) * torch.from_numpy(inverse_noise)).sum()


def weights(plane: HalfPlane, noise_power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight of each point of a half plane in the likelihood, [points]: each stands for its Friedel mate too."""
    return (plane.weight / noise_power).astype(np.float32)
