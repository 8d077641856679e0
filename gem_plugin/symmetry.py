"""Point groups in RELION's orientation: their operators, and maps averaged over them."""

import re
from dataclasses import dataclass
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from gem_plugin import conventions
from gem_plugin.errors import OptionError

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

NAMES = "C1, C2, ... D1, D2, ... T, O, I, I1, I2, I3, I4"
_TOLERANCE = 1e-5  # of the interpolation by a non-uniform FFT

# (fold, axis) of two generators each, RELION's orientation (src/symmetries.cpp); "I" is I2 there
_CUBIC_GENERATORS: dict[str, list[tuple[int, tuple[float, float, float]]]] = {
    "T": [(3, (0.0, 0.0, 1.0)), (2, (0.0, np.sqrt(2 / 3), np.sqrt(1 / 3)))],
    "O": [(4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))],
    "I1": [(5, (0.85065080702670, 0.0, -0.5257311142635)), (3, (0.9341723640, 0.3568220765, 0.0))],
    "I2": [(5, (0.525731114, 0.0, 0.850650807)), (3, (0.0, 0.356822076, 0.934172364))],
    "I3": [(5, (0.0, 0.0, 1.0)), (3, (-0.4911234778630044, 0.3568220764705179, 0.7946544753759428))],
    "I4": [(5, (0.0, 0.0, -1.0)), (3, (0.4911234778630044, 0.3568220764705179, 0.7946544753759428))],
}


@dataclass(frozen=True)
class PointGroup:
    """A point group: a map with it satisfies v(R r) = v(r) for every operator R."""

    name: str
    operators: Floats  # [order, 3, 3] acting on x, y, z from the box centre; the identity first

    @property
    def order(self) -> int:
        """Number of operators."""
        return len(self.operators)


NO_SYMMETRY = PointGroup("C1", np.eye(3)[None])


def point_group(name: str) -> PointGroup:
    """The group of a name as RELION spells it, any case.

    Raises
    ------
    OptionError
        If there is no such point group.
    """
    key = name.strip().upper()
    axial = re.fullmatch(r"([CD])([1-9]\d{0,2})", key)
    if axial:
        generators = [(int(axial[2]), (0.0, 0.0, 1.0))]
        if axial[1] == "D":
            generators.append((2, (1.0, 0.0, 0.0)))
        return PointGroup(key, _closure(generators))
    cubic = _CUBIC_GENERATORS.get("I2" if key == "I" else key)
    if cubic is None:
        raise OptionError(f"--sym {name}: there is no such point group; expected one of {NAMES}")
    return PointGroup(key, _closure(cubic))


def _closure(generators: list[tuple[int, tuple[float, float, float]]]) -> Floats:
    """All products of the generators."""
    turns = [
        Rotation.from_rotvec(2 * np.pi / fold * np.array(axis) / np.linalg.norm(axis)).as_matrix()
        for fold, axis in generators
    ]
    found = [np.eye(3)]
    for element in found:  # grows while it is walked
        for turn in turns:
            product = turn @ element
            if not any(np.allclose(product, known, atol=1e-4) for known in found):
                found.append(product)
    # the generators carry rounded digits: bring each product back to a rotation
    return np.asarray(Rotation.from_matrix(np.array(found)).as_matrix())


def symmetrise(volume: Map, group: PointGroup, n_threads: int) -> Map:
    """The mean of a map over a group.

    The rotated copies are read from the map's Fourier series by a non-uniform FFT, which keeps all detail.

    Parameters
    ----------
    volume : [n, n, n], zero outside the sphere that the box holds
    """
    if group.order == 1:
        return volume
    n = volume.shape[0]
    series = fft.fftshift(fft.fftn(fft.ifftshift(volume), workers=n_threads)).astype(np.complex64) / n**3
    series[0] = series[:, 0] = series[:, :, 0] = 0  # the Nyquist planes have no partner on the other side
    inside = conventions.radius_from_centre_px(n) < n / 2
    zyx = np.argwhere(inside) - n // 2
    xyz = zyx[:, ::-1].T * (2 * np.pi / n)
    total = np.zeros(len(zyx))
    for operator in group.operators:
        x, y, z = np.ascontiguousarray(operator @ xyz, dtype=np.float32)
        total += finufft.nufft3d2(z, y, x, series, eps=_TOLERANCE, isign=1, nthreads=n_threads).real
    mean = np.zeros(volume.shape, dtype=np.float32)
    mean[inside] = total / group.order
    return mean
