"""The GPU engine of spreading: Fourier slices of particle images onto a fine grid, brick by brick (cuda/spread.cu).

A warp fills one brick and finds its points itself, so nothing is sorted and no list of points is held. Each cell's sum
has a fixed order, so that runs repeat bit for bit. Near the origin several warps share a brick's slices (`BrickPlan`).

Positions are integers: S^T times the cells a cycle is rounded once to 2^-32 of a cell, on the host, in float64. Sums
and the change of sign are exact from then on, so that every point belongs to just one brick. At a frequency k the error
is at most k 2^-32 of a cell, 1.2e-7 at k = 512, as much as a float32 between 0 and 1 is rounded by. In float32 the
position itself, some 700 cells, would have been rounded by 3e-5. The weights' polynomials are the CPU engine's.

Where the time goes, per point, counted in the machine code for sm_90. Each of 216 cells is read from shared memory,
added to and written back: by 27 lanes with 8 cells each in 16 accesses, and 3 or 4 more fetch the weights; with the
arithmetic that is 33 instructions of a warp for T and 50 for b. The weights cost some 325 instructions for 32 points,
and finding the points 150 for each meeting of a slice and a brick, which is 6 points of T's grid and 13 of b's in the
mean. Shared memory comes first. At a word for each of 32 banks a cycle, the accesses take 19 cycles for T and 36 for
b: the 25,700 points of a particle of box 256 take 25,700 * 55 / 132 cycles on a card of 132 multiprocessors, 5
microseconds at 2 GHz (estimated). A particle's data are 0.4 MB, but each call reads the padded bricks' cells in
device memory and writes them back, 7 GB at box 256: at 4 TB/s 2 microseconds a particle for 1000 particles a call, 18
for 100 (estimated). So calls should hold many particles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.ops.cuda_source import KernelSource
from gem_plugin.ops.launch import checked, launcher_for
from gem_plugin.ops.numba_spread import MARGIN, WIDTH

Doubles = NDArray[np.float64]

FRACTION = 2.0**32  # positions are counted in parts of a cell
SLACK = 0.01  # cells, cycles: float32 bounds of where a brick's points can lie are rounded by less
WARP = 32
JOINING_THREADS = 256
BYTES_PER_POINT = 24  # of a call's data: a transform, the transfer, the adjoint and room for their copy
MOST_PARTICLES = 4096  # of a call: more save nothing
WARPS_AT_A_TIME = 16384  # of all launches of a call on a large GPU, generously
LEAST_SHARE = 0.5  # of a slice's points, in a small box: parts of bricks must be written, too
MOST_PARTS = 64  # of a brick

# Cells of a brick's edge, and the steps on y and z of a padded brick in shared memory. With these the cells of 27 lanes
# lie in different banks; of two words each, they take 3 accesses where 2 would be the least.
_COMPLEX_BRICK, _REAL_BRICK = (6, 11, 121), (8, 14, 181)


def _source(real: str, is_complex: bool) -> KernelSource:
    brick, row, layer = _COMPLEX_BRICK if is_complex else _REAL_BRICK
    defines = {"REAL": real, "COMPLEX_SUMS": int(is_complex), "BRICK": brick, "ROW": row, "LAYER": layer}
    return KernelSource(("spread.cu",), tuple((name, str(value)) for name, value in defines.items()))


_SOURCES = {
    torch.complex64: _source("float", True),
    torch.float32: _source("float", False),
    torch.complex128: _source("double", True),
    torch.float64: _source("double", False),
}
SOURCES = tuple(_SOURCES.values())
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@dataclass(frozen=True)
class PointTable:
    """The points of a half plane, to be found by their frequencies on a device."""

    numbers: torch.Tensor  # [2 highest_y + 1, highest_x + 1] int32: of the point at (ky, kx), or -1
    highest_x: int
    highest_y: int
    n_points: int

    @staticmethod
    def of(plane: HalfPlane, device: torch.device) -> "PointTable":
        """The table of a plane; no two of its points may be equal, and kx >= 0."""
        highest_x, highest_y = int(plane.kx.max(initial=0)), int(np.abs(plane.ky).max(initial=0))
        numbers = np.full((2 * highest_y + 1, highest_x + 1), -1, dtype=np.int32)
        numbers[plane.ky + highest_y, plane.kx] = np.arange(len(plane.kx))
        return PointTable(torch.from_numpy(numbers).to(device), highest_x, highest_y, len(plane.kx))


@dataclass(frozen=True)
class SliceGeometry:
    """Where slices lie in a grid."""

    steps: torch.Tensor  # [m, 2, 3] int64: a step of kx and of ky on x, y, z in 2^-32 cells
    bounds: torch.Tensor  # [3, m, 4] float32: direction of the normal, kx, ky; half the extent of a brick along it

    @staticmethod
    def of(slices: Doubles, cells_per_cycle: float, brick: int, device: torch.device) -> "SliceGeometry":
        """The geometry of slices [m, 3, 3] S, whose points lie at S^T (kx, ky, 0)."""
        in_cells = np.asarray(slices, dtype=np.float64)[:, :2] * cells_per_cycle
        steps = np.rint(in_cells * FRACTION).astype(np.int64)
        across = np.cross(in_cells[:, 0], in_cells[:, 1])
        length2 = np.maximum((across**2).sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        normal = across / np.sqrt(length2)
        # kx and ky of a point of the plane are its products with these
        dual = np.cross(in_cells[:, 1], across) / length2, np.cross(across, in_cells[:, 0]) / length2
        directions = np.stack([normal, _shortest(dual[0], normal), _shortest(dual[1], normal)])
        reach = np.abs(directions).sum(axis=2) * brick / 2 + SLACK
        bounds = np.concatenate([directions, reach[:, :, None]], axis=2).astype(np.float32)
        return SliceGeometry(torch.from_numpy(steps).to(device), torch.from_numpy(bounds).to(device))


def _shortest(direction: Doubles, normal: Doubles) -> Doubles:
    """Add to each direction what it cannot feel in its plane, so that a brick extends as little as can be along it.

    The extent, the sum of the components' sizes, is least where one of them is zero.
    """
    best = direction.copy()
    for axis in range(3):
        usable = np.abs(normal[:, axis]) > 1e-6
        factor = np.where(usable, direction[:, axis] / np.where(usable, normal[:, axis], 1), 0)
        candidate = direction - factor[:, None] * normal
        shorter = np.abs(candidate).sum(axis=1) < np.abs(best).sum(axis=1)
        best[shorter] = candidate[shorter]
    return best


class CudaGrid:
    """Sums on a fine grid on a device.

    Parameters
    ----------
    shape : cells on z, y, x: the origin in the middle of z and y and at MARGIN on x
    cells_per_cycle : of the grid, for the cycles in which points are given
    reach_in_cells : from the origin to the outermost point; points beyond it are left out
    coefficients : [DEGREE + 1, LANES] of the weights' polynomials, the highest degree first
    dtype : of the sums, complex or real
    share : see `BrickPlan`
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        cells_per_cycle: float,
        reach_in_cells: float,
        coefficients: NDArray[np.float32],
        dtype: torch.dtype,
        device: torch.device,
        share: float | None = None,
    ) -> None:
        self.device = device
        self.sums = torch.zeros(shape, dtype=dtype, device=device)
        self._cells_per_cycle = cells_per_cycle
        self._source = _SOURCES[dtype]
        self._real = _REAL_OF.get(dtype, dtype)
        self._edge = (_COMPLEX_BRICK if dtype.is_complex else _REAL_BRICK)[0]
        self._coefficients = torch.from_numpy(np.array(coefficients)).to(device, self._real)
        plan = BrickPlan.of(shape, self._edge, reach_in_cells, cells_per_cycle, share)
        self._whole, self._joined = ([torch.from_numpy(n).to(device) for n in of] for of in (plan.whole, plan.joined))
        self._parts = torch.from_numpy(plan.parts).to(device)
        self._part_sums = torch.empty((len(plan.parts), (self._edge + WIDTH - 1) ** 3), dtype=dtype, device=device)

    def add(
        self, points: PointTable, slices: Doubles, values: torch.Tensor, adjoint: torch.Tensor, weight: torch.Tensor
    ) -> None:
        """Add weight * adjoint * values at the slices' points.

        Parameters
        ----------
        slices : [m, 3, 3] S: a point lies at S^T (kx, ky, 0)
        values : [m, points] of the sums' type
        adjoint : [m, points] real
        weight : [points] real
        """
        m = len(slices)
        if m == 0 or points.n_points == 0:
            return
        shape = (m, points.n_points)
        geometry = SliceGeometry.of(slices, self._cells_per_cycle, self._edge, self.device)
        data = (
            checked(values, shape, self.sums.dtype, self.device),
            checked(adjoint, shape, self._real, self.device),
            checked(weight, shape[1:], self._real, self.device),
        )
        shared = (
            np.int32(m),
            geometry.steps,
            geometry.bounds,
            points.numbers,
            np.int32(points.highest_x),
            np.int32(points.highest_y),
            np.int32(points.n_points),
            *data,
            self._coefficients,
            np.int32(self.sums.shape[0]),
            np.int32(self.sums.shape[2]),
            np.int32(MARGIN),
            self._part_sums,
            self.sums,
        )
        size, size_x, _, part_sums, sums = shared[-5:]
        launcher = launcher_for(self.device)
        for bricks, is_apart in ((self._parts, 1), *((bricks, 0) for bricks in self._whole)):
            grid = (len(bricks), 1, 1)
            launcher.launch(self._source, "spread_bricks", grid, WARP, (bricks, np.int32(is_apart), *shared))
        for bricks in self._joined:
            grid = (len(bricks), 1, 1)
            launcher.launch(self._source, "add_parts", grid, JOINING_THREADS, (bricks, part_sums, size, size_x, sums))


@dataclass(frozen=True)
class BrickPlan:
    """The bricks that points can belong to, [bricks, 5]: the first cell on x, y, z, and two numbers.

    Bricks of one parity share no cell, not even with their margins; what is named for parities is a list of eight.

    Of the slices, all of which cross near the origin, a brick at distance r meets a share that goes as 1 / r. One that
    holds many points of each slice is filled in parts, and no launch waits for a few long ones. Parts hold at most
    `share` points of a slice, if slices lie in all directions; the default shares a slice evenly among as many warps as
    a large GPU runs in a call.
    """

    whole: list[NDArray[np.int32]]  # for parities: bricks that one warp fills; part 0 of 1
    joined: list[NDArray[np.int32]]  # for parities: the others; their first part, the number of their parts
    parts: NDArray[np.int32]  # of those; which part of the slices, of how many

    @staticmethod
    def of(
        shape: tuple[int, int, int], edge: int, reach: float, cells_per_cycle: float, share: float | None = None
    ) -> "BrickPlan":
        """The plan of a grid whose points lie within `reach` cells of the origin."""
        bricks, distance = _bricks_within(shape, edge, reach)
        if share is None:
            share = max(np.pi / 2 * (reach / cells_per_cycle) ** 2 / WARPS_AT_A_TIME, LEAST_SHARE)
        points = (edge / cells_per_cycle) ** 3 / (2 * np.maximum(distance, 0.42 * edge) / cells_per_cycle)
        n_parts = np.clip(np.ceil(points / share), 1, MOST_PARTS).astype(np.int32)
        parity = bricks // edge % 2 @ np.array([1, 2, 4])
        in_parts = n_parts > 1
        first = np.cumsum(np.where(in_parts, n_parts, 0)) - n_parts
        owner = np.repeat(np.flatnonzero(in_parts), n_parts[in_parts])
        number = np.arange(len(owner)) - first[owner]
        one = np.ones(len(bricks), dtype=np.int32)
        whole, joined = _table(bricks, 0 * one, one), _table(bricks, first, n_parts)
        return BrickPlan(
            [whole[(parity == colour) & ~in_parts] for colour in range(8)],
            [joined[(parity == colour) & in_parts] for colour in range(8)],
            _table(bricks[owner], number, n_parts[owner]),
        )


def _table(*columns: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    return np.ascontiguousarray(np.column_stack(columns), dtype=np.int32)


def _bricks_within(shape: tuple[int, int, int], edge: int, reach: float) -> tuple[NDArray[np.int64], Doubles]:
    """First cells on x, y, z of the bricks that hold points, the nearest to the origin first, and their distances."""
    if edge < WIDTH - 1:
        raise ValueError(f"bricks of {edge} cells are smaller than their margins of {WIDTH - 1}")
    nearest, centre = [], []
    for size, origin in zip(shape[::-1], (MARGIN, shape[1] // 2, shape[0] // 2), strict=True):
        start = np.arange(0, size, edge) + (WIDTH // 2 - 1) - origin  # where a brick's points begin
        nearest.append(np.maximum(np.maximum(start, -(start + edge)), 0).astype(np.float64))
        centre.append(start + edge / 2)
    near2, distance2 = (x**2 + y[:, None] ** 2 + z[:, None, None] ** 2 for x, y, z in (nearest, centre))
    z, y, x = np.nonzero(near2 <= (reach + 1e-3) ** 2)
    distance = np.sqrt(distance2[z, y, x])
    order = np.argsort(distance, kind="stable")
    return edge * np.stack([x, y, z], axis=1)[order], distance[order]


def grid_bytes(shape: tuple[int, int, int], cells_per_cycle: float, reach_in_cells: float, dtype: torch.dtype) -> int:
    """Device memory that a `CudaGrid` takes: its sums, those of parts of bricks, and the bricks' table."""
    edge = (_COMPLEX_BRICK if dtype.is_complex else _REAL_BRICK)[0]
    plan = BrickPlan.of(shape, edge, reach_in_cells, cells_per_cycle)
    cells = int(np.prod(shape)) + len(plan.parts) * (edge + WIDTH - 1) ** 3
    return cells * dtype.itemsize + sum(part.nbytes for part in (*plan.whole, *plan.joined, plan.parts))


def particles_per_call(n_points: int, free_bytes: int) -> int:
    """Particles that one call should be given: as many as fit, up to where more save nothing.

    Parameters
    ----------
    n_points : of a half plane
    free_bytes : of the device's memory that the data of a call may take
    """
    return int(np.clip(free_bytes // (BYTES_PER_POINT * max(n_points, 1)), 1, MOST_PARTICLES))
