"""From the map's Fourier points to those of each optics group's images, which may have another box and pixel size.

Box edges differ between groups, so an image's frequency k, in cycles of its own box, lies at k times the ratio of the
edges in cycles of the map's (RELION, src/jaz/single_particle/obs_model.cpp). The map's box and pixels are those of the
group of the most particles.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane, half_plane
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles

STRETCH_MARGIN = 0.9  # cycles by which a magnification may carry points beyond the map's last frequency


def image_planes(particles: Particles, plane: HalfPlane) -> tuple[HalfPlane, ...]:
    """The Fourier points of each optics group's images up to the map's last frequency and their own Nyquist.

    Where an anisotropic magnification stretches frequencies, the points are those that it leaves within the map's.

    Parameters
    ----------
    plane : of an image with the map's box and pixels
    """
    return tuple(
        _plane_of(group, particles.optics.edge_in_angstroms / group.edge_in_angstroms, plane)
        for group in particles.optics_groups
    )


def _plane_of(group: OpticsGroup, map_cycles: float, plane: HalfPlane) -> HalfPlane:
    box, last = group.box_size_px, float(plane.radius.max())
    matrix = np.reshape(group.magnification, (2, 2))
    most, least = np.linalg.svd(matrix, compute_uv=False)
    if most * last > last + STRETCH_MARGIN:
        whole = half_plane(box, min(last / (map_cycles * least), box / 2 - 0.5), map_cycles)
        reached = map_cycles * np.hypot(*(matrix @ np.stack([whole.kx, whole.ky])))
        inside = reached <= last
        return replace(whole, kx=whole.kx[inside], ky=whole.ky[inside], weight=whole.weight[inside])
    if box == plane.box_size_px and abs(map_cycles - 1) < 1e-9:
        return plane
    return half_plane(box, min(last / map_cycles + 1e-6, box / 2 - 0.5), map_cycles)


def image_kinds(particles: Particles) -> NDArray[np.int64]:
    """Which optics groups have the same box, pixel size and CTF treatment: a number for each group, [groups].

    Images of one kind are normalised alike; between kinds the greyscale differs.
    """
    kinds = [
        (group.box_size_px, round(group.pixel_size_in_angstroms, 6), group.ctf_state)
        for group in particles.optics_groups
    ]
    distinct = list(dict.fromkeys(kinds))
    return np.array([distinct.index(kind) for kind in kinds], dtype=np.int64)


def slice_matrices(
    rotations: NDArray[np.float64], magnification: tuple[float, float, float, float], map_cycles: float
) -> NDArray[np.float64]:
    """Take an image's frequency (kx, ky, 0) to the map's: k3 = S^T k, S = (M, 1)^T A times the ratio of the edges.

    An image's frequency k shows the undistorted particle's at M k (rlnMagMat00, 01, 10, 11 row by row; RELION,
    src/jaz/single_particle/obs_model.cpp).

    Parameters
    ----------
    rotations : [m, 3, 3] map to view
    map_cycles : cycles of the map's box in one of the image's

    Returns
    -------
    [m, 3, 3]
    """
    matrix = np.eye(3)
    matrix[:2, :2] = np.reshape(magnification, (2, 2))
    return np.asarray(map_cycles * (matrix.T @ rotations))
