"""Point groups in RELION's orientation: their operators, and maps averaged over them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from gem_plugin import conventions
from gem_plugin.errors import OptionError

Floats = NDArray[np.float64]

NAMES = "C1, C2, ... D1, D2, ... T, O, I, I1, I2, I3, I4"
_TOLERANCE = 1e-4  # of the interpolation by a non-uniform FFT
_POINTS_AT_ONCE = 10_000_000

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


def symmetrise(
    volume: NDArray[Any],
    group: PointGroup,
    n_threads: int,
    *,
    radius_px: float | None = None,
    is_even: bool = False,
    between: Callable[[], None] = lambda: None,
) -> NDArray[Any]:
    """The mean of a map over a group.

    Operators that carry voxels onto voxels, which form a subgroup, only move them. For one operator of each of its
    cosets the rotated copy is read from the map's Fourier series by a non-uniform FFT, which keeps all detail.

    Parameters
    ----------
    volume : [n, n, n], zero outside the sphere that the box holds; complex for two maps at the price of one
    radius_px : radius outside which the mean is not wanted and set to zero; by default that of the box's sphere
    is_even : whether v(-r) = v(r), which halves the work
    between : called between parts of the work; may raise to end it
    """
    if group.order == 1:
        return volume
    n = volume.shape[0]
    radius = min(radius_px or n / 2, n / 2)
    moving, representatives = cosets(group.operators)
    moved = moved_sum(volume, moving)
    wanted = conventions.radius_from_centre_px(n) < radius
    inside = wanted.copy()
    if is_even:
        inside[: n // 2] = False
    is_pair = np.iscomplexobj(volume)
    total = moved[inside].astype(np.complex128 if is_pair else np.float64)
    if len(representatives) > 1:
        total += _rotated_sum(moved, representatives[1:], np.argwhere(inside) - n // 2, n_threads, between)
    mean = np.zeros(volume.shape, dtype=np.complex64 if is_pair else np.float32)
    mean[inside] = total / group.order
    if is_even:
        mean[1 : n // 2, 1:, 1:] = mean[n // 2 + 1 :, 1:, 1:][::-1, ::-1, ::-1]
    return mean


def cosets(operators: Floats) -> tuple[Floats, Floats]:
    """The subgroup H of signed permutations of the axes, and one operator R of each of its cosets H R.

    Returns
    -------
    [h, 3, 3] and [order / h, 3, 3], the identity first in both
    """
    is_moving = np.abs(np.abs(operators) - np.rint(np.abs(operators))).max(axis=(1, 2)) < 1e-6
    moving = operators[is_moving]
    representatives: list[Floats] = []
    for operator in operators:
        quotients = np.einsum("ij,ckj->cik", operator, np.array(representatives).reshape(-1, 3, 3))
        if not np.any(np.abs(quotients[:, None] - moving[None]).max(axis=(2, 3)) < 1e-4):
            representatives.append(operator)
    return np.rint(moving), np.array(representatives)


def _rotated_sum(
    volume: NDArray[Any], operators: Floats, zyx: NDArray[np.int64], n_threads: int, between: Callable[[], None]
) -> Floats:
    """Sum over operators of v(R r) at voxels r, [len(zyx)]."""
    n = volume.shape[0]
    series = fft.fftshift(fft.fftn(fft.ifftshift(volume), workers=n_threads)).astype(np.complex64) / n**3
    series[0] = series[:, 0] = series[:, :, 0] = 0  # the Nyquist planes have no partner on the other side
    xyz = (zyx[:, ::-1].T * (2 * np.pi / n)).astype(np.float32)
    at_once = max(_POINTS_AT_ONCE // xyz.shape[1], 1)  # each call transforms the series anew
    total = np.zeros(xyz.shape[1], dtype=np.complex128)
    for start in range(0, len(operators), at_once):
        between()
        turned = np.einsum("gij,jp->igp", operators[start : start + at_once].astype(np.float32), xyz)
        x, y, z = turned.reshape(3, -1)
        values = finufft.nufft3d2(
            z, y, x, series, eps=_TOLERANCE, isign=1, nthreads=n_threads, upsampfac=1.25, showwarn=0
        )
        total += values.reshape(-1, xyz.shape[1]).sum(axis=0)
    return total if np.iscomplexobj(volume) else total.real


def moved_sum(volume: NDArray[Any], operators: Floats) -> NDArray[Any]:
    """Sum of v(R r) over operators that carry voxels onto voxels, [n, n, n], n even.

    The voxels at coordinate -n/2 have no partner on the other side: they are taken for zero, and so is the sum there.
    """
    if len(operators) == 1:
        return volume
    inner = volume[1:, 1:, 1:]  # coordinates -n/2 + 1 ... n/2 - 1
    total = np.zeros_like(volume)
    for operator in operators:
        total[1:, 1:, 1:] += _moved(inner, operator)
    return total


def moved_axes(operator: Floats) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How v(R r) is had from v, its centre in the middle: axes to flip, then the order of the axes."""
    turn = np.rint(operator[::-1, ::-1]).astype(int)  # on z, y, x
    source = np.abs(turn).argmax(axis=1)  # component of r that stands on each axis of v
    flips = tuple(axis for axis in range(3) if turn[axis, source[axis]] < 0)
    return flips, tuple(int(axis) for axis in np.argsort(source))


def _moved(volume: NDArray[Any], operator: Floats) -> NDArray[Any]:
    """v(R r) for an operator that carries voxels onto voxels; `volume` has the centre in its middle."""
    flips, order = moved_axes(operator)
    return np.flip(volume, flips).transpose(order)
