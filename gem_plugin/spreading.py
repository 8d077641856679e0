"""The adjoint non-uniform FFT, accumulated over many batches of points and transformed once.

finufft spreads a batch onto the fine grid; the grids of all batches are added,
and one FFT and one deconvolution at the end give f(r) = sum_j c_j exp(+2 pi i k_j . r / n) for voxels r.
"""

from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Complex = NDArray[np.complex64]

TOLERANCE = 1e-4  # requested of finufft; the arrays' measured error is pinned in tests/unit/test_normal_equations.py
KERNEL_REACH_CELLS = 8  # more than half of finufft's kernel at this tolerance, and a cell for rounding
SLAB = 32  # planes that are transformed at a time
UPSAMPLING = 1.25  # fine cells a mode: a wider kernel on a quarter of the cells of upsampling 2; cheaper in all


def fast_even_size(least: float) -> int:
    """The smallest even size, not below `least`, whose FFT is fast."""
    size = int(np.ceil(least))
    while True:
        size = int(fft.next_fast_len(size, real=False))
        if size % 2 == 0:
            return size
        size += 1


def fine_grid_size(n_modes: int) -> int:
    """Fine cells on an axis."""
    return fast_even_size(UPSAMPLING * n_modes)


class SpreadingGrid:
    """Sums c_j at points k_j on a fine Fourier grid.

    Only the cells that a point can reach are kept; the grid is completed with zeros when it is transformed. So voxels
    finer than the points need cost nothing until then.

    Parameters
    ----------
    n_modes : voxels of the result on each axis, even
    n_threads : threads of the FFT; the spreading takes one, so that a run can be repeated bit by bit
    largest_frequency : of any point on any axis, in cycles over all voxels of the result; by default Nyquist
    tolerance : error asked of finufft, 1e-6 to 1e-2
    """

    def __init__(
        self, n_modes: int, n_threads: int, largest_frequency: float | None = None, tolerance: float = TOLERANCE
    ) -> None:
        self.n_modes = n_modes
        self.n_threads = n_threads
        self.full_size = fine_grid_size(n_modes)
        self.size = grid_size(n_modes, largest_frequency)
        self._plan = finufft.Plan(
            1,
            (self.size,) * 3,
            eps=tolerance,
            isign=1,
            dtype="complex64",
            spreadinterponly=1,
            upsampfac=UPSAMPLING,
            nthreads=1,  # several threads add up in whatever order they finish: results would differ run by run
        )
        self._grid = np.zeros((self.size,) * 3, dtype=np.complex64)
        self._batch = np.empty_like(self._grid)
        self._profile = self._kernel_transform()

    def _spread(self, points: NDArray[np.float32], strengths: Complex) -> Complex:
        self._plan.setpts(*points)
        self._plan.execute(strengths, self._batch)
        return self._batch

    def _kernel_transform(self) -> NDArray[np.float64]:
        """Transform of finufft's kernel along one axis, got by spreading one unit point at the origin."""
        origin = np.zeros((3, 1), dtype=np.float32)
        spread = self._spread(origin, np.ones(1, dtype=np.complex64)).real.astype(np.float64)
        centre = self.size // 2
        line = spread[centre, centre] / np.cbrt(spread[centre, centre, centre]) ** 2
        offsets = np.arange(self.size) - centre
        modes = np.arange(self.n_modes) - self.n_modes // 2
        used = np.nonzero(line)[0]
        return np.asarray(np.cos(2 * np.pi / self.full_size * np.outer(modes, offsets[used])) @ line[used])

    def add(self, points: NDArray[np.float32], strengths: Complex) -> None:
        """Add strengths [m] at points [3, m] (x, y, z, radians a voxel of the result)."""
        # finufft's first axis is the slowest of the output array: hand over z, y, x. It takes the grid's edge for pi.
        zyx = np.ascontiguousarray(points[::-1] * np.float32(self.full_size / self.size))
        self._grid += self._spread(zyx, strengths)

    def result(self) -> NDArray[np.float32]:
        """Real part of the sums at voxels -n/2 ... n/2 - 1 on each axis, [n, n, n] z, y, x. The grid is spent."""
        values = self._grid
        del self._grid, self._batch
        values = self._transform(self._transform(values, 0, np.complex64), 1, np.complex64)
        return self._transform(values, 2, np.float32)

    def _transform(self, values: Complex, axis: int, kind: type) -> NDArray[Any]:
        """Complete, transform and crop one axis, a slab of another axis at a time: the complete grid is never held."""
        half, low = self.n_modes // 2, self.size // 2
        wanted = np.arange(-half, half) % self.full_size
        across = 1 if axis == 0 else 0
        shape = list(values.shape)
        shape[axis] = self.n_modes
        result: NDArray[Any] = np.empty(shape, dtype=kind)
        factor = np.moveaxis((1 / self._profile).astype(np.float32)[:, None, None], 0, axis)
        for start in range(0, values.shape[across], SLAB):
            slab = _part(across, start, start + SLAB)
            piece = values[slab]
            shape = list(piece.shape)
            shape[axis] = self.full_size
            complete = np.zeros(shape, dtype=np.complex64)
            complete[_part(axis, 0, self.size - low)] = piece[_part(axis, low, self.size)]
            complete[_part(axis, self.full_size - low, self.full_size)] = piece[_part(axis, 0, low)]
            sums = fft.ifft(complete, axis=axis, norm="forward", workers=self.n_threads, overwrite_x=True)
            sums = np.take(sums, wanted, axis=axis)
            result[slab] = (sums if kind is np.complex64 else sums.real) * factor
        return result


def grid_size(n_modes: int, largest_frequency: float | None = None) -> int:
    """Fine cells on an axis that points up to `largest_frequency` (cycles over `n_modes` voxels) reach."""
    full = fine_grid_size(n_modes)
    if largest_frequency is None:
        return full
    return min(full, fast_even_size(2 * (largest_frequency * full / n_modes + KERNEL_REACH_CELLS)))


def _part(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)
