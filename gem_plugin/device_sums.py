"""The sums of `gem_plugin.spreading` on a GPU: grids, transforms and matrices, none of which leaves the device.

Memory, for data up to Nyquist, as `device_bytes` counts it: the sums take 1.0 GB at box 256 and 7.1 GB at box 512, and
the most that is held while they are transformed is 1.4 and 10.3 GB. The transforms go axis by axis and slab by slab, so
that no complete grid is ever made.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.ops.cuda_spread import CudaGrid, PointTable, grid_bytes
from gem_plugin.ops.numba_spread import MARGIN
from gem_plugin.spreading import SLAB, UPSAMPLING, FineGrid, largest_frequency, slice_grids

Array = NDArray[Any] | torch.Tensor
Floats = NDArray[np.float32]

CALL_OVERHEAD_BYTES = 64 * 2**20  # slabs of the transforms, lists of bricks and the like, at box 512


class DeviceSliceSums:
    """`gem_plugin.spreading.SliceSums` with its sums on a device.

    Parameters
    ----------
    reach : highest frequency of any point, in cycles a box edge of the map
    right_modes : voxels of b on each axis, for the extent of the images' box
    kernel_modes : voxels of t on each axis, for the extent of the doubled box
    upsampling : fine cells a mode, > 1
    device : where the CUDA kernels run
    """

    def __init__(
        self,
        reach: float,
        right_modes: int,
        kernel_modes: int,
        upsampling: float = UPSAMPLING,
        device: torch.device | str = "cuda",
    ) -> None:
        self.device = torch.device(device)
        self.right, self.kernel = right, kernel = slice_grids(reach, right_modes, kernel_modes, upsampling)
        self._reach = reach
        self._right_sums, self._kernel_sums = (
            CudaGrid(grid.shape, cells, _reach_in_cells(reach, cells), grid.coefficients(), dtype, self.device)
            for grid, cells, dtype in _grids(right, kernel)
        )
        self._plane: HalfPlane | None = None
        self._points: PointTable

    def add(
        self,
        plane: HalfPlane,
        slices: NDArray[np.float64],
        observed: Array,
        factors: tuple[Array, Array],
        weight: Array,
    ) -> None:
        """Add weight * adjoint * observed to b's sums and weight * adjoint * transfer to t's, at some slices' points.

        A call costs a pass over the grids, so it should bring many particles
        (`gem_plugin.ops.cuda_spread.particles_per_call`).

        Parameters
        ----------
        plane : the Fourier points of the images
        slices : [m, 3, 3] S, from the map to the image: a point lies at S^T (kx, ky, 0)
        observed : [m, points], an array or a tensor
        factors : transfer and adjoint, [m, points] each
        weight : [points]

        Raises
        ------
        ValueError
            If a point can lie beyond the sums' reach.
        """
        if len(slices) == 0:
            return
        largest = largest_frequency(plane, slices)
        if largest > _reach_in_cells(self._reach, 1.0):
            raise ValueError(f"points up to {largest:.2f} cycles a box edge, but sums for {self._reach:.2f}")
        if self._plane is not plane:
            self._plane, self._points = plane, PointTable.of(plane, self.device)
        adjoint = self._here(factors[1], torch.float32)
        transfer = adjoint if factors[0] is factors[1] else self._here(factors[0], torch.float32)
        weights = self._here(weight, torch.float32)
        self._right_sums.add(self._points, slices, self._here(observed, torch.complex64), adjoint, weights)
        self._kernel_sums.add(self._points, slices, transfer, adjoint, weights)

    def _here(self, array: Array, dtype: torch.dtype) -> torch.Tensor:
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.device, dtype).contiguous()

    def right_side_on_device(self) -> torch.Tensor:
        """Re sum weight ctf observed exp(2 pi i k . r / n), [n, n, n] on the device. The sums are spent."""
        values = self._right_sums.sums
        del self._right_sums
        return modes(self.right, values)

    def right_side(self, n_threads: int) -> Floats:
        """`right_side_on_device` as an array; the number of threads means nothing here."""
        return np.asarray(self.right_side_on_device().cpu().numpy())

    def kernel_spectrum_on_device(self, frequencies: NDArray[np.int64], band: int) -> torch.Tensor:
        """Transform of t on the doubled box without its offsets of half that box. The sums are spent.

        Parameters
        ----------
        frequencies : [f] of the doubled box, in its cycles, in the order of an FFT
        band : the highest of them

        Returns
        -------
        [f, f, band + 1] z, y, x on the device; a sum over t's own voxels
        """
        grid, n = self.kernel, self.kernel.n_modes
        values = self._kernel_sums.sums
        del self._kernel_sums
        offset = torch.arange(1 - n // 2, n // 2, dtype=torch.float64, device=self.device)
        weight = 1 / torch.from_numpy(grid.profile(np.arange(1 - n // 2, n // 2))).to(self.device)

        def matrix(to: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
            there = 2 * np.pi / n * torch.outer(to.double(), offset)
            back = 2 * np.pi / grid.full_size * torch.outer(offset, cells.double())
            return (torch.cos(there) * weight) @ torch.cos(back) + (torch.sin(there) * weight) @ torch.sin(back)

        last, given = (torch.arange(end, device=self.device) for end in (band + 1, grid.size_x))
        kept = torch.from_numpy(np.asarray(frequencies)).to(self.device)
        across = matrix(kept, torch.arange(grid.size, device=self.device) - grid.size // 2).float()
        along, along_mates = (matrix(sign * last, given - MARGIN).float() / 2 for sign in (1, -1))
        with _full_float32():
            lines = (across @ values.reshape(grid.size, -1)).reshape(-1, grid.size, grid.size_x)
            del values
            planes = lines.new_empty((len(across), len(across), grid.size_x))
            for z, line in enumerate(lines):  # one product for all would copy `across` for each
                torch.mm(across, line, out=planes[z])
            del lines, line
            return _with_mates(planes @ along.T, planes @ along_mates.T)

    def kernel_spectrum(self, frequencies: NDArray[np.int64], band: int) -> Floats:
        """`kernel_spectrum_on_device` as an array."""
        return np.asarray(self.kernel_spectrum_on_device(frequencies, band).cpu().numpy())


def _grids(right: FineGrid, kernel: FineGrid) -> tuple[tuple[FineGrid, float, torch.dtype], ...]:
    """B's and T's grid, the cells of a cycle of the images' box, and what is summed. T's box is twice as wide."""
    return (right, right.cells_per_cycle, torch.complex64), (kernel, 2 * kernel.cells_per_cycle, torch.float32)


def _reach_in_cells(reach: float, cells_per_cycle: float) -> float:
    return (reach * (1 + 1e-6) + 0.5) * cells_per_cycle


def device_bytes(
    reach: float, right_modes: int, kernel_modes: int, band: int, upsampling: float = UPSAMPLING
) -> tuple[int, int]:
    """Bytes of the sums while particles are added, and the most while they are transformed, both without the particles.

    Parameters
    ----------
    reach, right_modes, kernel_modes, upsampling : as for `DeviceSliceSums`
    band : highest frequency of the doubled box at which T is kept
    """
    right, kernel = slice_grids(reach, right_modes, kernel_modes, upsampling)
    b, t = (
        grid_bytes(grid.shape, cells, _reach_in_cells(reach, cells), dtype)
        for grid, cells, dtype in _grids(right, kernel)
    )
    n, kept = right_modes, 2 * band + 1
    line = 4 * kept * kernel.size_x
    at_the_right_side = t + b + 8 * n * right.size_x * (right.size + n) + 4 * n**3
    result = 4 * kept**2 * (band + 1)
    at_the_kernel = 4 * n**3 + max(t + line * kernel.size, line * (kernel.size + kept), line * kept + 2 * result)
    return b + t + CALL_OVERHEAD_BYTES, max(at_the_right_side, at_the_kernel) + CALL_OVERHEAD_BYTES


def modes(grid: FineGrid, values: torch.Tensor) -> torch.Tensor:
    """`FineGrid.modes` where the sums are: values [z, y, x] complex -> [n, n, n] real."""
    wanted = np.arange(grid.n_modes) - grid.n_modes // 2
    factor = torch.from_numpy(1 / grid.profile(wanted)).to(values.device, values.real.dtype)
    for axis in (0, 1):
        values = _transformed(grid, values, axis, factor)
    result = torch.empty((grid.n_modes,) * 3, dtype=values.real.dtype, device=values.device)
    place = torch.from_numpy(wanted % grid.full_size).to(values.device)
    for start in range(0, grid.n_modes, SLAB):
        whole = _folded(grid, values[start : start + SLAB])
        sums = torch.fft.irfft(whole, n=grid.full_size, dim=2, norm="forward")
        result[start : start + SLAB] = sums.index_select(2, place) * factor
    return result


def _folded(grid: FineGrid, values: torch.Tensor) -> torch.Tensor:
    """`FineGrid._folded`: the cells 0 ... full_size / 2 on x, halved where the transform adds their conjugates."""
    last = grid.full_size // 2
    given = values[:, :, MARGIN : MARGIN + last + 1]
    whole = torch.zeros((*values.shape[:2], last + 1), dtype=values.dtype, device=values.device)
    whole[:, :, : given.shape[2]] = given
    for cell in (*range(-MARGIN, 0), *range(last + 1, values.shape[2] - MARGIN)):
        whole[:, :, -cell if cell < 0 else grid.full_size - cell] += values[:, :, MARGIN + cell].conj()
    whole[:, :, 1:last] *= 0.5
    return whole


def _transformed(grid: FineGrid, values: torch.Tensor, axis: int, factor: torch.Tensor) -> torch.Tensor:
    """Complete, transform and crop z or y, a slab of the other at a time: the complete grid is never held."""
    half, low, full = grid.n_modes // 2, grid.size // 2, grid.full_size
    reached = min(low, full // 2)
    shape = list(values.shape)
    shape[axis] = grid.n_modes
    result = torch.empty(shape, dtype=values.dtype, device=values.device)
    for start in range(0, values.shape[1 - axis], SLAB):
        # the axis first
        piece = values.narrow(1 - axis, start, min(SLAB, values.shape[1 - axis] - start)).movedim(axis, 0)
        complete = torch.zeros((full, *piece.shape[1:]), dtype=values.dtype, device=values.device)
        complete[:reached] = piece[low : low + reached]
        complete[full - reached :] = piece[low - reached : low]
        for cell in (*range(-low, -reached), *range(reached, low)):  # beyond an end, a point comes in at the other
            complete[cell % full] += piece[low + cell]
        sums = torch.fft.ifft(complete, dim=0, norm="forward")
        whole = result.narrow(1 - axis, start, piece.shape[1]).movedim(axis, 0)
        whole[:half] = sums[full - half :]
        whole[half:] = sums[: grid.n_modes - half]
        whole *= factor[:, None, None]
    return result


def _with_mates(result: torch.Tensor, mates: torch.Tensor) -> torch.Tensor:
    """Add to each frequency what its mate at -z, -y holds, both [f, f, g], in the order of an FFT."""
    mirrored = -np.arange(len(result)) % len(result)
    place = torch.from_numpy(mirrored).to(result.device)
    for z, mate in enumerate(mirrored):
        result[z] += mates[int(mate)].index_select(0, place)
    return result


@contextmanager
def _full_float32() -> Iterator[None]:
    """Matrix products with all bits of float32, whatever was set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
