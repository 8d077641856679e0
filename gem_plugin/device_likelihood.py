"""Gaussians beside particle images on a GPU: the likelihood of a few particles, and what is left of their images."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.device_batches import DeviceBatch
from gem_plugin.ops import engines, project
from gem_plugin.ops.cuda_compare import ShellMembers, compare_by_shell, likelihood_of_spectra
from gem_plugin.ops.cuda_project import order_of
from gem_plugin.ops.cuda_transfer import PointPlaces
from gem_plugin.ops.replicate import Tensors
from gem_plugin.prediction import Imaging, spectrum_places, weights

PROJECTIONS_PER_ORDER = 50  # calls, before the Gaussians are put in order again: they move by less than a chunk's edge


@dataclass(frozen=True)
class _GroupOnDevice:
    """What the comparison of all images of one optics group needs."""

    points: PointPlaces  # in the transforms of projections
    factors: torch.Tensor  # [points] float32 sign that moves the origin to the centre, and greyscale
    strengths: torch.Tensor  # [points] float64 weight over noise power


class DeviceLikelihood:
    """Compares projections of Gaussians with images, as `gem_plugin.prediction` does on the host.

    Parameters
    ----------
    imaging : of this half
    engine : with the kernels of the `cuda` folder
    """

    def __init__(self, imaging: Imaging, engine: str) -> None:
        self.device = engines.device_of(engine)
        self._imaging = imaging
        self._engine = engine
        self._groups: dict[int, _GroupOnDevice] = {}
        self._members: dict[tuple[int, int], ShellMembers] = {}
        self._order = torch.zeros(0, dtype=torch.int64)
        self._calls = 0

    def loss(self, whole: Tensors, batch: DeviceBatch) -> torch.Tensor:
        """`gem_plugin.prediction.negative_log_likelihood` of a batch, float64; differentiable.

        Parameters
        ----------
        whole : all Gaussians of the particle
        """
        group = self._shared(batch.group)
        observed, ctf = batch.plain()
        strengths = group.strengths.float()
        return likelihood_of_spectra(self._spectra(whole, batch), group.points, group.factors, strengths, ctf, observed)

    def compare(
        self, whole: Tensors, batch: DeviceBatch, n_shells: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Each particle's scale, [m], and what is left of its image over the noise, summed in the map's shells.

        Returns
        -------
        [m] and [m, n_shells]
        """
        group = self._shared(batch.group)
        key = (batch.group, n_shells)
        if key not in self._members:
            shell = torch.from_numpy(np.minimum(batch.plane.map_shell, n_shells - 1))
            self._members[key] = ShellMembers.of(shell, n_shells, self.device)
        observed, ctf = batch.plain()
        with torch.no_grad():
            spectra = self._spectra(whole, batch)
            fitted, left = compare_by_shell(
                spectra, group.points, group.factors, group.strengths, ctf, observed, self._members[key]
            )
        return fitted.cpu().numpy(), left.cpu().numpy()

    def _spectra(self, whole: Tensors, batch: DeviceBatch) -> torch.Tensor:
        """``rfft2`` of a batch's projections, [m, n, n // 2 + 1] complex64."""
        if len(self._order) != len(whole[0]) or self._calls % PROJECTIONS_PER_ORDER == 0:
            self._order = order_of(whole[0].to(self.device), whole[1].to(self.device))
        self._calls += 1
        views, box = self._imaging.views(batch), self._imaging.render_boxes_px[batch.group]
        images = project(*whole, views, box, engine=self._engine, order=self._order)
        spectra: torch.Tensor = torch.fft.rfft2(images.float())
        return spectra

    def _shared(self, group: int) -> _GroupOnDevice:
        if group not in self._groups:
            plane, box = self._imaging.planes[group], self._imaging.render_boxes_px[group]
            points = PointPlaces.of(torch.from_numpy(plane.kx), torch.from_numpy(plane.ky), box, self.device)
            _, _, signs = spectrum_places(plane, box)
            factors = signs * np.float32(self._imaging.greyscale[group])
            strengths = weights(plane, self._imaging.noise_power[group]).astype(np.float64)
            self._groups[group] = _GroupOnDevice(
                points, torch.from_numpy(factors).to(self.device), torch.from_numpy(strengths).to(self.device)
            )
        return self._groups[group]
