"""T of normal equations, applied to maps that live where the engine works: the CPU's memory or a GPU's.

Maps are torch tensors [n, n, n] z, y, x, float32, on the operator's device.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.normal_equations import NormalEquations, Operator
from gem_plugin.ops import engines
from gem_plugin.symmetry import moved_axes, moved_sum

Map = NDArray[np.floating[Any]]

SLAB_BYTES = 512e6  # of the doubled box's transforms that are on a GPU at a time
SLAB_SHARE = 0.06  # of the GPU's free memory at most: four of them are held


class MapOperator(Protocol):
    """The two arrays b and T, and what is done with maps beside them."""

    box_size_px: int
    device: torch.device
    right_side: torch.Tensor  # b

    def apply(self, volume: torch.Tensor) -> torch.Tensor:
        """T v."""

    def loss_and_gradient(self, volume: torch.Tensor) -> tuple[float, torch.Tensor]:
        """L(v) without its constant, and dL/dv = T v - b."""

    def inner(self, first: torch.Tensor, second: torch.Tensor) -> float:
        """The sum of two maps' products."""

    def filtered(self, volume: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        """A map whose transform, origin in the middle of the box, is multiplied by a real [n, n, n // 2 + 1]."""

    def moved_sum(self, volume: torch.Tensor, operators: NDArray[np.float64]) -> torch.Tensor:
        """`gem_plugin.symmetry.moved_sum`."""

    def given(self, array: Map) -> torch.Tensor:
        """A map, or a response, where the operator works."""


def map_operator(equations: NormalEquations, engine: str, n_threads: int) -> MapOperator:
    """The operator of an engine.

    Parameters
    ----------
    n_threads : of the FFTs on the CPU
    """
    if engines.uses_cuda_kernels(engine):
        return _OnDevice(equations, engines.device_of(engine))
    return _OnHost(equations, n_threads)


def slab_bytes(device: torch.device) -> float:
    """Bytes of transforms that a device is given at a time."""
    return min(SLAB_BYTES, SLAB_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else SLAB_BYTES


class _OnHost:
    """On the CPU, with as many threads as are given."""

    def __init__(self, equations: NormalEquations, n_threads: int) -> None:
        self.box_size_px = equations.box_size_px
        self.device = torch.device("cpu")
        self.right_side = torch.from_numpy(np.asarray(equations.right_side))
        self._operator = Operator(equations, n_threads)
        self._n_threads = n_threads

    def apply(self, volume: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._operator.apply(volume.numpy()))

    def loss_and_gradient(self, volume: torch.Tensor) -> tuple[float, torch.Tensor]:
        loss, gradient = self._operator.loss_and_gradient(volume.float().numpy())
        return loss, torch.from_numpy(gradient)

    def inner(self, first: torch.Tensor, second: torch.Tensor) -> float:
        return float(np.vdot(first.numpy(), second.numpy()))

    def filtered(self, volume: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        centred = fft.ifftshift(volume.numpy())
        transform = fft.rfftn(centred, workers=self._n_threads) * response.numpy()
        result = fft.fftshift(fft.irfftn(transform, s=centred.shape, workers=self._n_threads))
        return torch.from_numpy(np.asarray(result, dtype=np.float32))

    def moved_sum(self, volume: torch.Tensor, operators: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(moved_sum(volume.numpy(), operators)))

    def given(self, array: Map) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array, dtype=np.float32))


class _OnDevice:
    """On a GPU, by torch's FFTs.

    An axis is padded, and cropped to the band, only when its turn comes, and a slab at a time, so that the doubled
    box is never whole in memory.
    """

    def __init__(self, equations: NormalEquations, device: torch.device) -> None:
        self.box_size_px = equations.box_size_px
        self.device = device
        self.right_side = self.given(equations.right_side)
        self._spectrum = torch.from_numpy(equations.spectrum).to(device)
        self._band = equations.band
        n, h = self.box_size_px, self._band
        # frequencies of the doubled box that are kept on an axis, in the order of an FFT
        self._kept = (slice(0, h + 1), slice(2 * n - h, 2 * n)) if h < n else (slice(0, n + 1), slice(n + 1, 2 * n))
        self._planes = max(int(slab_bytes(device) / (16 * n * (h + 1))), 1)

    def given(self, array: Map) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)

    def apply(self, volume: torch.Tensor) -> torch.Tensor:
        n, h = self.box_size_px, self._band
        across = self._spectrum.shape[1]
        lines = torch.empty((n, across, h + 1), dtype=torch.complex64, device=self.device)
        for start in range(0, n, self._planes):
            planes = torch.fft.rfft(volume[start : start + self._planes], n=2 * n, dim=2)[:, :, : h + 1]
            lines[start : start + self._planes] = self._cropped(torch.fft.fft(planes, n=2 * n, dim=1), 1)
        for start in range(0, across, self._planes):
            rows = slice(start, start + self._planes)
            columns = self._cropped(torch.fft.fft(lines[:, rows], n=2 * n, dim=0), 0)
            columns *= self._spectrum[:, rows]
            lines[:, rows] = torch.fft.ifft(self._padded(columns, 0), dim=0)[:n]
        result = torch.empty((n, n, n), dtype=torch.float32, device=self.device)
        for start in range(0, n, self._planes):
            planes = torch.fft.ifft(self._padded(lines[start : start + self._planes], 1), dim=1)[:, :n]
            result[start : start + self._planes] = torch.fft.irfft(planes, n=2 * n, dim=2)[:, :, :n]
        return result

    def _cropped(self, transform: torch.Tensor, axis: int) -> torch.Tensor:
        low, high = self._kept
        return torch.cat([transform[_along(axis, low)], transform[_along(axis, high)]], dim=axis)

    def _padded(self, transform: torch.Tensor, axis: int) -> torch.Tensor:
        """Undo `_cropped`, with zeros between."""
        low, high = self._kept
        if transform.shape[axis] == 2 * self.box_size_px:
            return transform
        shape = list(transform.shape)
        shape[axis] = 2 * self.box_size_px
        whole = torch.zeros(shape, dtype=transform.dtype, device=self.device)
        whole[_along(axis, low)] = transform[_along(axis, slice(0, self._band + 1))]
        whole[_along(axis, high)] = transform[_along(axis, slice(self._band + 1, None))]
        return whole

    def loss_and_gradient(self, volume: torch.Tensor) -> tuple[float, torch.Tensor]:
        gradient = self.apply(volume.float())
        gradient -= self.right_side
        # 1/2 <v, Tv> - <b, v> = 1/2 <v, Tv - b> - 1/2 <b, v>, and one wait for the device instead of two
        return 0.5 * self.inner(volume.float(), gradient - self.right_side), gradient

    def inner(self, first: torch.Tensor, second: torch.Tensor) -> float:
        return float(torch.dot(first.reshape(-1), second.reshape(-1)))

    def filtered(self, volume: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        transform = torch.fft.rfftn(torch.fft.ifftshift(volume)) * response
        shifted: torch.Tensor = torch.fft.fftshift(torch.fft.irfftn(transform, s=volume.shape))
        return shifted

    def moved_sum(self, volume: torch.Tensor, operators: NDArray[np.float64]) -> torch.Tensor:
        if len(operators) == 1:
            return volume
        inner = volume[1:, 1:, 1:]
        total = torch.zeros_like(volume)
        for operator in operators:
            flips, order = moved_axes(operator)
            total[1:, 1:, 1:] += torch.flip(inner, flips).permute(order)
        return total


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)
