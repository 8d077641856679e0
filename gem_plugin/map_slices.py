"""Fourier slices of a map that Gaussians make: their projections' transforms without drawing any projection.

Under a point group every Gaussian has as many copies as the group has operators, and drawing all of them in each image
takes longer than a fit. The map is drawn once, and what project() and a transform would give is read from its own
transform, by non-uniform FFTs.
"""

from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray

from gem_plugin.dataset import FourierBatch
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.prediction import Imaging
from gem_plugin.render import gaussian_map

TOLERANCE = 1e-4  # of the transform, relative to its norm; images know far less


class MapSlices:
    """The transforms of projections of Gaussians and all their symmetry mates, before the CTF.

    Parameters
    ----------
    gaussians : of one asymmetric unit, lengths in pixels of the map
    imaging : of the images that will be asked for
    """

    def __init__(self, gaussians: Gaussians, imaging: Imaging, *, engine: str, n_threads: int) -> None:
        box, fine_box = imaging.plane.box_size_px, max(imaging.render_boxes_px)
        self._volume = gaussian_map(gaussians, box, fine_box, engine=engine, n_threads=n_threads).astype(np.complex64)
        self._n_threads = n_threads

    def transforms(self, batch: FourierBatch) -> NDArray[np.complexfloating[Any, Any]]:
        """At the Fourier points of some particles' images, [m, points].

        A point k of an image lies at S^T (kx, ky, 0) in the map's transform (docs/method.md, section 1).
        """
        plane = batch.plane
        points = np.stack([plane.kx, plane.ky]).astype(np.float64)
        zyx = np.einsum("mik,ip->kmp", batch.slices[:, :2], points)[::-1] * (2 * np.pi / len(self._volume))
        z, y, x = (axis.ravel().astype(np.float32) for axis in zyx)
        values = finufft.nufft3d2(
            z, y, x, self._volume, eps=TOLERANCE, isign=-1, nthreads=self._n_threads, upsampfac=1.25, showwarn=0
        )
        return np.asarray(values).reshape(len(batch.indices), -1)
