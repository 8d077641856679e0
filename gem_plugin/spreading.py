"""The adjoint non-uniform FFT, accumulated over many batches of points and transformed once.

finufft spreads a batch onto the fine grid; the grids of all batches are added,
and one FFT and one deconvolution at the end give f(r) = sum_j c_j exp(+2 pi i k_j . r / n) for voxels r.
"""

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Complex = NDArray[np.complex64]

TOLERANCE = 1e-4  # requested of finufft; the arrays' measured error is pinned in tests/unit/test_normal_equations.py
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

    Parameters
    ----------
    n_modes : voxels of the result on each axis, even
    n_threads : threads of the FFT; the spreading takes one, so that a run can be repeated bit by bit
    """

    def __init__(self, n_modes: int, n_threads: int) -> None:
        self.n_modes = n_modes
        self.n_threads = n_threads
        self.size = fine_grid_size(n_modes)
        self._plan = finufft.Plan(
            1,
            (self.size,) * 3,
            eps=TOLERANCE,
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
        return np.asarray(np.cos(2 * np.pi / self.size * np.outer(modes, offsets[used])) @ line[used])

    def add(self, points: NDArray[np.float32], strengths: Complex) -> None:
        """Add strengths [m] at points [3, m] (x, y, z, radians a voxel, within [-pi, pi])."""
        # finufft's first axis is the slowest of the output array: hand over z, y, x
        zyx = np.ascontiguousarray(points[::-1])
        self._grid += self._spread(zyx, strengths)

    def result(self) -> Complex:
        """The sums at voxels -n/2 ... n/2 - 1 on each axis, [n, n, n] z, y, x. The grid is spent."""
        half = self.n_modes // 2
        values = self._grid
        del self._grid, self._batch
        # the grid's origin is its middle cell: that turns the sign of every other voxel
        factor = (1 - 2 * (np.arange(-half, half) % 2)) / self._profile
        for axis in range(3):  # crop after each axis: the later passes touch less
            values = fft.ifft(values, axis=axis, norm="forward", workers=self.n_threads, overwrite_x=True)
            wanted = np.arange(-half, half) % self.size
            shape = [1, 1, 1]
            shape[axis] = self.n_modes
            values = np.take(values, wanted, axis=axis) * factor.reshape(shape).astype(np.float32)
        return np.asarray(values, dtype=np.complex64)
