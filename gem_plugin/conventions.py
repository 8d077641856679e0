"""The only file that knows signs and origins: RELION's, each pinned by a test (docs/conventions.md).

Arrays are z, y, x; vectors are x, y, z. The box centre is voxel ``n // 2`` on every axis. Spatial
frequencies k are integers in cycles a box edge; the transform is F(k) = sum_r f(r) exp(-2 pi i k.r / n)
with r from the box centre.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rotation_matrices(euler_angles_deg: Floats) -> Floats:
    """Map-to-view rotations A of RELION Euler angles.

    A map point r (x, y, z from the centre) is seen at the image position (A r)_xy
    (RELION, src/euler.cpp, Euler_angles2matrix).

    Parameters
    ----------
    euler_angles_deg : [n, 3]
        rlnAngleRot, rlnAngleTilt, rlnAnglePsi in degrees.

    Returns
    -------
    [n, 3, 3]
    """
    alpha, beta, gamma = np.radians(np.asarray(euler_angles_deg, dtype=np.float64)).T
    ca, cb, cg = np.cos(alpha), np.cos(beta), np.cos(gamma)
    sa, sb, sg = np.sin(alpha), np.sin(beta), np.sin(gamma)
    rows = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


@dataclass(frozen=True)
class HalfPlane:
    """The independent Fourier points of a real image, |k| <= k_max, without k = 0 and the Nyquist row and column.

    ``weight`` counts each conjugate pair once when results are doubled: 1 for kx > 0 and 1/2 on kx = 0, where both
    members of a pair are listed.
    """

    box_size_px: int
    kx: NDArray[np.int64]  # [points]
    ky: NDArray[np.int64]  # [points]
    weight: NDArray[np.float64]  # [points]
    map_cycles: float = 1.0  # cycles a box edge of the map in one of the image: their extents' ratio

    @property
    def radius(self) -> Floats:
        """|k| of each point, [points]."""
        return np.hypot(self.kx, self.ky)

    @property
    def shell(self) -> NDArray[np.int64]:
        """The Fourier shell of each point, [points]."""
        return np.rint(self.radius).astype(np.int64)

    @property
    def map_shell(self) -> NDArray[np.int64]:
        """The Fourier shell of the map in which each point lies, [points]."""
        return np.rint(self.radius * self.map_cycles).astype(np.int64)


def half_plane(box_size_px: int, k_max: float, map_cycles: float = 1.0) -> HalfPlane:
    """List the Fourier points of a particle image that carry independent data up to radius `k_max` (cycles a box)."""
    n = box_size_px
    highest = (n - 1) // 2  # an odd box has no Nyquist row
    ky, kx = np.meshgrid(np.arange(-highest, highest + 1), np.arange(0, highest + 1), indexing="ij")
    radius = np.hypot(kx, ky)
    used = (radius > 0) & (radius <= k_max)
    kx, ky = kx[used], ky[used]
    return HalfPlane(n, kx, ky, np.where(kx == 0, 0.5, 1.0), map_cycles)


def image_transforms(images: NDArray[np.float32], plane: HalfPlane) -> NDArray[np.complex64]:
    """Transforms of images about their centre at the points of `plane`.

    Parameters
    ----------
    images : [m, n, n]

    Returns
    -------
    [m, points]
    """
    from scipy import fft

    at_points = fft.rfft2(images, axes=(1, 2))[:, plane.ky, plane.kx]
    return np.asarray(at_points * centring_factors(plane), dtype=np.complex64)


def centring_factors(plane: HalfPlane) -> NDArray[np.float32] | NDArray[np.complex64]:
    """From transforms about pixel 0 to transforms about the centre pixel n // 2, [points]; real for an even box."""
    n = plane.box_size_px
    # the transform of a delta at the centre pixel is 1 everywhere
    if n % 2 == 0:
        signs: NDArray[np.float32] = (1 - 2 * ((plane.kx + plane.ky) % 2)).astype(np.float32)
        return signs
    phases: NDArray[np.complex64] = np.exp((2j * np.pi / n) * (n // 2 * (plane.kx + plane.ky) % n)).astype(np.complex64)
    return phases


def centring_phases(shifts_px: Floats, plane: HalfPlane) -> NDArray[np.complex64]:
    """Factors that move each particle to the box centre: exp(-2 pi i k.o / n), o = rlnOrigin in pixels.

    RELION adds rlnOriginX/Y to the image to centre it, so a particle lies at (A r)_xy - o
    (RELION, src/apps/project.cpp).

    Parameters
    ----------
    shifts_px : [m, 2] x, y

    Returns
    -------
    [m, points]
    """
    n = plane.box_size_px
    frequencies = np.arange(-(n // 2), n // 2 + 1)
    # an exponential for each frequency of each axis, then one product a point
    along_x, along_y = np.exp((-2j * np.pi / n) * shifts_px.T[:, :, None] * frequencies).astype(np.complex64)
    phases: NDArray[np.complex64] = np.take(along_x, plane.kx + n // 2, axis=1)
    phases *= np.take(along_y, plane.ky + n // 2, axis=1)
    return phases


def slice_points(rotations: Floats, plane: HalfPlane) -> NDArray[np.float32]:
    """Where each image's Fourier points lie in the map's transform: k3 = A^T (kx, ky, 0) (central slice theorem).

    Parameters
    ----------
    rotations : [m, 3, 3]

    Returns
    -------
    [3, m, points] x, y, z components in cycles a box edge
    """
    in_plane = np.stack([plane.kx, plane.ky]).astype(np.float64)
    return np.asarray(np.einsum("mic,ip->cmp", rotations[:, :2, :], in_plane, optimize=True), dtype=np.float32)


def shell_indices(box_size_px: int) -> NDArray[np.int64]:
    """Fourier shell of every element of ``rfftn`` of a cubic box, [n, n, n // 2 + 1]."""
    full = np.fft.fftfreq(box_size_px, 1 / box_size_px)
    half = np.arange(box_size_px // 2 + 1)
    radius2 = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    return np.rint(np.sqrt(radius2)).astype(np.int64)


def chebyshev_from_centre_px(box_size_px: int) -> NDArray[np.int64]:
    """Largest of |x|, |y|, |z| of every voxel from the box centre, [n, n, n]: the central box that holds it."""
    axis = np.abs(np.arange(box_size_px) - box_size_px // 2)
    return np.maximum(np.maximum(axis[:, None, None], axis[None, :, None]), axis[None, None, :])


def radius_from_centre_px(box_size_px: int) -> NDArray[np.float32]:
    """Distance of every voxel from the box centre in pixels, [n, n, n]."""
    axis = (np.arange(box_size_px) - box_size_px // 2).astype(np.float32)
    return np.asarray(
        np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2), dtype=np.float32
    )
