"""The model: N anisotropic 3D Gaussians of 11 numbers each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gaussians:
    """A map as a sum of Gaussians; lengths in pixels from the box centre (voxel n // 2), vectors x, y, z.

    Density at point r: sum_j a_j / ((2 pi)^1.5 s1 s2 s3) exp(-1/2 (r - mu_j)^T S_j^-1 (r - mu_j)),
    with S_j = Q diag(s1^2, s2^2, s3^2) Q^T and Q the rotation of the unit quaternion (w, x, y, z)
    (arXiv 2509.25075, section 3; the amplitude here is the integral, not the peak).
    """

    centres_px: NDArray[np.float32]  # [N, 3] x, y, z
    log_scales: NDArray[np.float32]  # [N, 3] natural logarithm of s in pixels
    quaternions: NDArray[np.float32]  # [N, 4] w, x, y, z, normalised
    amplitudes: NDArray[np.float32]  # [N] integral of the Gaussian, greyscale x voxels
    symmetry: str = "C1"  # the N Gaussians are those of one asymmetric unit of this point group

    def __len__(self) -> int:
        return len(self.amplitudes)


def averaged(fits: "list[Gaussians]") -> Gaussians:
    """The Gaussians of the mean of some maps: all of them together, with amplitudes divided by the number of maps.

    Parameters
    ----------
    fits : at least one, of one point group
    """
    return Gaussians(
        np.concatenate([fit.centres_px for fit in fits]),
        np.concatenate([fit.log_scales for fit in fits]),
        np.concatenate([fit.quaternions for fit in fits]),
        (np.concatenate([fit.amplitudes for fit in fits]) / len(fits)).astype(np.float32),
        fits[0].symmetry,
    )
