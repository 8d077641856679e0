"""The adjoint non-uniform FFTs of Fourier slices, accumulated over many particles and transformed once.

Every point of a slice is spread onto the cells around it of two fine Fourier grids, one for b and one, twice as fine,
for the kernel t (`gem_plugin.normal_equations`). At the end both are transformed, and the spreading's own transform is
divided out. The spreading function is Kaiser and Bessel's, with the shape of Beatty, Nishimura and Pauly (IEEE Trans.
Med. Imaging 24, 799, 2005, equation 5).
"""

import functools
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.conventions import HalfPlane
from gem_plugin.ops.numba_lanes import LANES
from gem_plugin.ops.numba_spread import DEGREE, MARGIN, WIDTH, spread_slices

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Complex = NDArray[np.complex64]

UPSAMPLING = (
    1.35  # fine cells a mode; with WIDTH it sets the error: 1e-4 of each axis' modes in the mean, 3e-4 at worst
)
KERNEL_REACH_CELLS = 5  # beyond the outermost point: half of WIDTH, and two for rounding
SLAB = 32  # planes that are transformed at a time


def fast_even_size(least: float) -> int:
    """The smallest even size, not below `least`, whose FFT is fast."""
    size = int(np.ceil(least))
    while True:
        size = int(fft.next_fast_len(size, real=False))
        if size % 2 == 0:
            return size
        size += 1


class FineGrid:
    """A Fourier grid for sums whose transform is real, with cells only where points can reach.

    Parameters
    ----------
    n_modes : voxels of the result on each axis, even
    largest_frequency : of any point on any axis, in cycles over all voxels of the result
    upsampling : fine cells a mode, > 1
    """

    def __init__(self, n_modes: int, largest_frequency: float, upsampling: float = UPSAMPLING) -> None:
        self.n_modes = n_modes
        self.full_size = fast_even_size(upsampling * n_modes)
        self.cells_per_cycle = self.full_size / n_modes
        reach = largest_frequency * self.cells_per_cycle + KERNEL_REACH_CELLS
        self.size = 2 * int(np.ceil(reach))  # on z and y, the origin in the middle
        self.size_x = MARGIN + int(np.ceil(reach)) + LANES  # the origin at MARGIN; room for a whole vector
        self.shape = (self.size, self.size, self.size_x)

    @functools.cached_property
    def shape_parameter(self) -> float:
        """Beatty's beta."""
        return _shape_parameter(self.cells_per_cycle)

    def coefficients(self) -> Floats:
        """Of the polynomials by which the kernels know the spreading function, [DEGREE + 1, LANES], highest first."""
        table = np.zeros((DEGREE + 1, LANES))
        for cell in range(WIDTH):
            nearest = cell - (WIDTH // 2 - 1)  # of the point at the start of its cell

            def weight(u: Doubles, nearest: int = nearest) -> Doubles:
                return _spreading_function(nearest - (u + 1) / 2, self.shape_parameter)

            series = Chebyshev.interpolate(weight, DEGREE).convert(kind=Polynomial)
            table[:, cell] = np.pad(series.coef, (0, DEGREE + 1 - len(series.coef)))[::-1]
        return table.astype(np.float32)

    def profile(self, modes: NDArray[np.int64]) -> Doubles:
        """Transform of the spreading function along an axis, at voxels of the result counted from its centre."""
        nodes, weights = np.polynomial.legendre.leggauss(200)
        values = weights * _spreading_function(nodes * WIDTH / 2, self.shape_parameter) * WIDTH / 2
        return np.asarray(np.cos(2 * np.pi / self.full_size * np.outer(modes, nodes * WIDTH / 2)) @ values)

    def modes(self, values: Complex, n_threads: int) -> Floats:
        """Real part of the sums at voxels -n/2 ... n/2 - 1 on each axis, [n, n, n] z, y, x."""
        modes = np.arange(self.n_modes) - self.n_modes // 2
        factor = (1 / self.profile(modes)).astype(np.float32)
        values = self._transform(self._transform(values, 0, factor, n_threads), 1, factor, n_threads)
        result = np.empty((self.n_modes,) * 3, dtype=np.float32)
        for start in range(0, self.n_modes, SLAB):
            whole = self._folded(values[start : start + SLAB])
            sums = fft.irfft(whole, n=self.full_size, axis=2, norm="forward", workers=n_threads)
            result[start : start + SLAB] = np.take(sums, modes % self.full_size, axis=2) * factor
        return result

    def _folded(self, values: Complex) -> Complex:
        """The cells 0 ... full_size / 2 on x, halved where the transform adds their conjugates.

        What a point left beyond either end, its conjugate left within.
        """
        last = self.full_size // 2
        given = values[:, :, MARGIN : MARGIN + last + 1]
        whole = np.zeros((*values.shape[:2], last + 1), dtype=np.complex64)
        whole[:, :, : given.shape[2]] = given
        for cell in (*range(-MARGIN, 0), *range(last + 1, values.shape[2] - MARGIN)):
            whole[:, :, -cell if cell < 0 else self.full_size - cell] += values[:, :, MARGIN + cell].conj()
        whole[:, :, 1:last] *= np.float32(0.5)
        return whole

    def _transform(self, values: Complex, axis: int, factor: Floats, n_threads: int) -> Complex:
        """Complete, transform and crop one axis, a slab of another axis at a time: the complete grid is never held."""
        half, low = self.n_modes // 2, self.size // 2
        across = 1 if axis == 0 else 0
        shape = list(values.shape)
        shape[axis] = self.n_modes
        result: NDArray[Any] = np.empty(shape, dtype=np.complex64)
        along = np.moveaxis(factor[:, None, None], 0, axis)
        for start in range(0, values.shape[across], SLAB):
            slab = _part(across, start, start + SLAB)
            piece = values[slab]
            shape = list(piece.shape)
            shape[axis] = self.full_size
            complete = np.zeros(shape, dtype=np.complex64)
            reached = min(low, self.full_size // 2)
            complete[_part(axis, 0, reached)] = piece[_part(axis, low, low + reached)]
            complete[_part(axis, self.full_size - reached, self.full_size)] = piece[_part(axis, low - reached, low)]
            for cell in (*range(-low, -reached), *range(reached, low)):  # beyond an end, a point comes in at the other
                place = cell % self.full_size
                complete[_part(axis, place, place + 1)] += piece[_part(axis, low + cell, low + cell + 1)]
            sums = fft.ifft(complete, axis=axis, norm="forward", workers=n_threads, overwrite_x=True)
            whole = result[slab]
            whole[_part(axis, 0, half)] = sums[_part(axis, self.full_size - half, self.full_size)]
            whole[_part(axis, half, self.n_modes)] = sums[_part(axis, 0, self.n_modes - half)]
            whole *= along
        return result


def even_resampled(values: Floats, across: Floats, along: tuple[Floats, Floats]) -> Floats:
    """Apply the same matrix to each axis of an even function whose x axis is given by half.

    Parameters
    ----------
    values : [c, c, h] z, y, x
    across : [f, c], for z and y; its rows in the order of an FFT's frequencies
    along : [g, h] twice: the matrix for the x >= 0 that are given, and for their mates at -x (at -z and -y, too)

    Returns
    -------
    [f, f, g]
    """
    rows, columns, half = values.shape
    there = np.matmul(across, np.matmul(across, values.reshape(rows, -1)).reshape(len(across), columns, half))
    result: Floats = there @ along[0].T
    mates = there @ along[1].T
    mirrored = -np.arange(len(across)) % len(across)
    for z in range(len(across)):
        result[z] += mates[mirrored[z]][mirrored]
    return result


class SliceSums:
    """The sums over particles from which b and the kernel t are made.

    Parameters
    ----------
    reach : highest frequency of any point, in cycles a box edge of the map
    right_modes : voxels of b on each axis, for the extent of the images' box
    kernel_modes : voxels of t on each axis, for the extent of the doubled box
    upsampling : fine cells a mode, > 1
    """

    def __init__(self, reach: float, right_modes: int, kernel_modes: int, upsampling: float = UPSAMPLING) -> None:
        self.right, self.kernel = right, kernel = slice_grids(reach, right_modes, kernel_modes, upsampling)
        self._reach = reach
        self._right_sums = np.zeros((2, *right.shape), dtype=np.float32)  # real and imaginary parts
        self._kernel_sums = np.zeros(kernel.shape, dtype=np.float32)
        # cycles of the images' box; t's box is twice as wide
        self._cells = right.cells_per_cycle, 2 * kernel.cells_per_cycle
        self._coefficients = right.coefficients(), kernel.coefficients()

    def add(
        self, plane: HalfPlane, slices: Doubles, observed: Complex, factors: tuple[Floats, Floats], weight: Floats
    ) -> None:
        """Add weight * adjoint * observed to b's sums and weight * adjoint * transfer to t's, at some slices' points.

        Parameters
        ----------
        plane : the Fourier points of the images
        slices : [m, 3, 3] S, from the map to the image: a point lies at S^T (kx, ky, 0)
        observed : [m, points]
        factors : transfer and adjoint, [m, points] each
        weight : [points]

        Raises
        ------
        ValueError
            If a point can lie beyond the sums' reach.
        """
        largest = largest_frequency(plane, slices)
        if largest > self._reach * (1 + 1e-6) + 0.5:
            raise ValueError(f"points up to {largest:.2f} cycles a box edge, but sums for {self._reach:.2f}")
        spread_slices(
            slices,
            (plane.kx.astype(np.float64), plane.ky.astype(np.float64)),
            (observed, *factors, weight),
            self._coefficients,
            self._cells,
            self._right_sums,
            self._kernel_sums,
        )

    def right_side(self, n_threads: int) -> Floats:
        """Re sum weight ctf observed exp(2 pi i k . r / n), [n, n, n]. The sums are spent."""
        values = np.empty(self.right.shape, dtype=np.complex64)
        values.real, values.imag = self._right_sums
        del self._right_sums
        return self.right.modes(values, n_threads)

    def kernel_spectrum(self, frequencies: NDArray[np.int64], band: int) -> Floats:
        """Transform of t on the doubled box without its offsets of half that box, which join no two voxels.

        Parameters
        ----------
        frequencies : [f] of the doubled box, in its cycles, in the order of an FFT
        band : the highest of them

        Returns
        -------
        [f, f, band + 1] z, y, x; a sum over t's own voxels
        """
        grid, n = self.kernel, self.kernel.n_modes
        offset = np.arange(1 - n // 2, n // 2)
        weight = 1 / grid.profile(offset)

        def matrix(to: NDArray[np.int64], cells: NDArray[np.int64]) -> Doubles:
            there, back = 2 * np.pi / n * np.outer(to, offset), 2 * np.pi / grid.full_size * np.outer(offset, cells)
            return np.asarray((np.cos(there) * weight) @ np.cos(back) + (np.sin(there) * weight) @ np.sin(back))

        across = matrix(frequencies, np.arange(grid.size) - grid.size // 2).astype(np.float32)
        given, last = np.arange(grid.size_x) - MARGIN, np.arange(band + 1)
        along = (matrix(last, given) / 2).astype(np.float32), (matrix(-last, given) / 2).astype(np.float32)
        return even_resampled(self._kernel_sums, across, along)


def largest_frequency(plane: HalfPlane, slices: Doubles) -> float:
    """How far from the origin any point of some slices lies at most, in cycles a box edge of the map.

    A bound, where the slices' magnifications differ.
    """
    gram = slices[:, :2] @ slices[:, :2].transpose(0, 2, 1)  # |S^T k|^2 = k^T gram k
    if np.ptp(gram, axis=0).max() > 1e-9 * gram.max():
        return float(plane.radius.max()) * float(np.linalg.norm(slices[:, :2], ord=2, axis=(1, 2)).max())
    points = np.stack([plane.kx, plane.ky]).astype(np.float64)
    return float(np.sqrt((points * (gram[0] @ points)).sum(axis=0).max()))


def slice_grids(
    reach: float, right_modes: int, kernel_modes: int, upsampling: float = UPSAMPLING
) -> tuple[FineGrid, FineGrid]:
    """The fine grids of b and t for slices up to a frequency, in cycles a box edge."""
    return FineGrid(right_modes, reach, upsampling), FineGrid(kernel_modes, 2 * reach, upsampling)


def _shape_parameter(cells_per_cycle: float) -> float:
    return float(np.pi * np.sqrt((WIDTH / cells_per_cycle * (cells_per_cycle - 0.5)) ** 2 - 0.8))


def _spreading_function(distance: Doubles, shape_parameter: float) -> Doubles:
    inside = np.sqrt(np.maximum(1 - (2 * np.asarray(distance) / WIDTH) ** 2, 0))
    return np.asarray(np.i0(shape_parameter * inside) / np.i0(shape_parameter))


def _part(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)
