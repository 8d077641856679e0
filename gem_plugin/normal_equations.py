"""A half set's whole likelihood as two arrays, made in one pass over the particles.

For a map v the negative log-likelihood of a half set is quadratic (design: docs/method.md):

    L(v) = 1/2 <v, T v> - <b, v> + const,
    b(r)     = 2 Re sum_ik w_k CTF_ik Y_ik / sigma_k^2 exp(+2 pi i k3_ik . r / n),
    t(r - r') = 2 Re sum_ik w_k CTF_ik^2 / sigma_k^2 exp(+2 pi i k3_ik . (r - r') / n),

and T is the convolution with t, done exactly by FFTs on a doubled box (Wang, Shkolnisky and Singer,
arXiv 1307.5824, section 4). Sums add, so parts of a half set combine by addition.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch
from gem_plugin.device_batches import DeviceBatch
from gem_plugin.device_sums import DeviceSliceSums
from gem_plugin.errors import InputError
from gem_plugin.ops import engines
from gem_plugin.spreading import UPSAMPLING, SliceSums, even_resampled, fast_even_size

Map = NDArray[np.floating[Any]]


SLAB_PLANES = 6  # planes of a map that are transformed together: some megabytes
REACH_MARGIN = 1.0  # cycles: an anisotropic magnification carries points a little beyond the circle
BAND_MARGIN = 8  # doubled-box frequencies beyond the data that are kept: the box's own transform leaks there


@dataclass(frozen=True)
class NormalEquations:
    """The arrays b and T of some particles.

    ``right_side`` [n, n, n] is b; ``spectrum`` is the (real) transform of the kernel t on the doubled box, [2n, 2n,
    n + 1] or, where the data end at a frequency h of that box, [2h + 1, 2h + 1, h + 1] (frequencies in the order of an
    FFT). Greyscale: v is such that a projection's pixel is the sum of the map's voxels, whatever the voxels' size.
    """

    right_side: Map
    spectrum: NDArray[np.float32]
    n_particles: int

    @property
    def box_size_px(self) -> int:
        """Voxels of the map on each axis."""
        return int(self.right_side.shape[0])

    @property
    def band(self) -> int:
        """Highest frequency of the doubled box at which T is kept, on any axis."""
        return int(self.spectrum.shape[2]) - 1

    def scaled(self, factor: float) -> "NormalEquations":
        """The likelihood of a map for images that show `factor` times its greyscale."""
        if factor == 1:
            return self
        return NormalEquations(
            self.right_side * np.float32(factor), self.spectrum * np.float32(factor**2), self.n_particles
        )

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        """The arrays of both sets of particles together."""
        if self.box_size_px != other.box_size_px or self.band != other.band:
            raise ValueError(
                f"boxes of {self.box_size_px} and {other.box_size_px} px, bands of {self.band} and {other.band} cannot"
                " be added"
            )
        return NormalEquations(
            self.right_side + other.right_side, self.spectrum + other.spectrum, self.n_particles + other.n_particles
        )

    def kernel(self) -> Map:
        """The kernel t on the doubled box, [2n, 2n, 2n], offset 0 first."""
        full = _embed_half_spectrum(self.spectrum, 2 * self.box_size_px)
        return np.asarray(fft.irfftn(full, s=(2 * self.box_size_px,) * 3), dtype=np.float32)

    def crop(self, box_size_px: int) -> "NormalEquations":
        """The same data on a coarser grid of the same extent: only |k| below the coarse Nyquist is kept."""
        n, m = self.box_size_px, box_size_px
        if m == n:
            return self
        scale = (m / n) ** 3
        spectrum = _crop_half_spectrum(self.spectrum, min(self.band, m - 1)) * np.float32(scale)
        transform = _crop_half_spectrum(fft.rfftn(fft.ifftshift(self.right_side)), m // 2 - 1)
        transform = _embed_half_spectrum(transform, m)
        transform[conventions.shell_indices(m) >= m // 2] = 0
        right_side = fft.fftshift(fft.irfftn(transform, s=(m, m, m))) * np.float32(scale)
        return NormalEquations(right_side.astype(np.float32), spectrum, self.n_particles)

    def window(self, box_size_px: int) -> "NormalEquations":
        """The same likelihood for maps that are zero outside a smaller central box: exact, and cheaper to apply."""
        n, m = self.box_size_px, box_size_px
        if m == n:
            return self
        start = n // 2 - m // 2
        keep = slice(start, start + m)
        band = m if self.band == n else min(m, int(np.ceil((self.band - BAND_MARGIN) * m / n)) + BAND_MARGIN)
        right_side = np.ascontiguousarray(self.right_side[keep, keep, keep])
        weight = np.ones(2 * m - 1)
        spectrum = self._reweighted(weight, axis_frequencies(m, band) / (2 * m), band + 1)
        return NormalEquations(right_side, spectrum, self.n_particles)

    def sampling_weight(self) -> Map:
        """How much data each Fourier voxel of the map holds, [n, n, n // 2 + 1].

        The transform of the kernel t times the autocorrelation of the box (a triangle on each axis): T's diagonal in
        the Fourier basis.
        """
        n = self.box_size_px
        triangle = 1 - np.abs(np.arange(1 - n, n)) / n
        weight = self._reweighted(triangle, np.r_[0 : n // 2 + 1, 1 - n // 2 : 0] / n, n // 2 + 1)
        return np.asarray(np.maximum(weight, 0), dtype=np.float32)

    def _reweighted(
        self, weight: NDArray[np.float64], frequencies: NDArray[np.float64], n_along: int
    ) -> NDArray[np.float32]:
        """Transform of the kernel t times a weight on each axis, at other frequencies.

        The weight is separable, so that each axis is one matrix product and the doubled box is never made.

        Parameters
        ----------
        weight : [2m - 1] for the offsets 1 - m ... m - 1, symmetric
        frequencies : [f] cycles a voxel, the same for each axis, in the order of an FFT
        n_along : how many of them are wanted on x

        Returns
        -------
        [f, f, n_along]
        """
        n = self.box_size_px
        offset = np.arange(len(weight)) - len(weight) // 2
        there = 2 * np.pi * np.outer(frequencies, offset)
        back = 2 * np.pi * np.outer(offset, axis_frequencies(n, self.band) / (2 * n))
        # sum over offsets of weight exp(-i there) exp(i back) / 2n; the weight is even, so the sines of one sign go
        even, odd = (np.cos(there) * weight) @ np.cos(back), (np.sin(there) * weight) @ np.sin(back)
        across = ((even + odd) / (2 * n)).astype(np.float32)
        # each frequency that is kept on x stands for its mate, too, but those that are their own
        own = np.isin(np.arange(self.band + 1), (0, n)) / 2
        given = slice(0, self.band + 1)
        pair = tuple(
            ((even[:n_along, given] + sign * odd[:n_along, given]) * (1 - own) / (2 * n)).astype(np.float32)
            for sign in (1, -1)
        )
        return even_resampled(self.spectrum, across, (pair[0], pair[1]))

    def save(self, path: Path) -> None:
        """Write to a numpy .npz file (no pickle)."""
        np.savez(path, right_side=self.right_side, spectrum=self.spectrum, n_particles=self.n_particles)

    @staticmethod
    def load(path: Path) -> "NormalEquations":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return NormalEquations(arrays["right_side"], arrays["spectrum"], int(arrays["n_particles"]))
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path} does not hold normal equations written by this program: {error}") from error


def sum_of(parts: Sequence[NormalEquations]) -> NormalEquations:
    """The arrays of all parts together, at least one."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def axis_frequencies(n: int, band: int) -> NDArray[np.int64]:
    """The frequencies of the doubled box, in its cycles, at which T is kept on an axis, in the order of an FFT."""
    highest, lowest = (n, 1 - n) if band == n else (band, -band)
    return np.concatenate([np.arange(highest + 1), np.arange(lowest, 0)])


def kernel_spectrum(kernel: Map, band: int) -> NDArray[np.float32]:
    """Transform of a symmetric kernel [2n, 2n, 2n], offset 0 in the middle, up to a frequency on each axis."""
    kernel[0] = kernel[:, 0] = kernel[:, :, 0] = 0  # offset -n joins no two voxels of the box
    spectrum = fft.rfftn(fft.ifftshift(kernel)).real.astype(np.float32)
    return spectrum if 2 * band == kernel.shape[0] else _crop_half_spectrum(spectrum, band)


def _crop_half_spectrum(transform: NDArray[Any], band: int) -> NDArray[Any]:
    """The frequencies -band ... band of an ``rfftn``, [2 band + 1, 2 band + 1, band + 1]."""
    n = transform.shape[0]
    keep = np.r_[0 : band + 1, n - band : n]
    return np.ascontiguousarray(transform[np.ix_(keep, keep, np.arange(band + 1))])


def _embed_half_spectrum(transform: NDArray[Any], size: int) -> NDArray[Any]:
    """Undo `_crop_half_spectrum`: an ``rfftn`` of a box of `size`, zero beyond the band."""
    band = transform.shape[2] - 1
    if transform.shape[0] == size:
        return transform
    place = np.r_[0 : band + 1, size - band : size]
    full = np.zeros((size, size, size // 2 + 1), dtype=transform.dtype)
    full[np.ix_(place, place, np.arange(band + 1))] = transform
    return full


class Accumulator:
    """Sums batches of Fourier data into normal equations.

    Parameters
    ----------
    plane : the Fourier points of an image with the map's box and pixels: how far the data reach
    noise_power : [points] variance of the noise at those of the images' half plane; one array for each optics group, or
        one for all
    n_threads : threads of the FFTs
    render_box_px : voxels of the result on each axis, on which Gaussians are drawn; by default the images' box. A
        larger number means smaller voxels, not a wider box.
    upsampling : of the fine grids; more is more accurate
    engine : that spreads
    """

    def __init__(
        self,
        plane: conventions.HalfPlane,
        noise_power: NDArray[np.float32] | Sequence[NDArray[np.float32]],
        n_threads: int,
        render_box_px: int | None = None,
        upsampling: float = UPSAMPLING,
        engine: str = "cpu",
    ) -> None:
        self._box_size_px = render_box_px or plane.box_size_px
        self._noise_power = (noise_power,) if isinstance(noise_power, np.ndarray) else tuple(noise_power)
        self._band = data_band(plane, self._box_size_px)
        self._kernel_box_px = kernel_box(self._band, self._box_size_px)
        reach = float(plane.radius.max()) + REACH_MARGIN
        self._sums: SliceSums | DeviceSliceSums
        if engines.uses_cuda_kernels(engine):
            device = engines.device_of(engine)
            self._sums = DeviceSliceSums(reach, self._box_size_px, 2 * self._kernel_box_px, upsampling, device)
        else:
            self._sums = SliceSums(reach, self._box_size_px, 2 * self._kernel_box_px, upsampling)
        self._n_threads = n_threads
        self._n_particles = 0

    def add(self, batch: FourierBatch | DeviceBatch) -> None:
        """Add some particles."""
        noise_power = self._noise_power[min(batch.group, len(self._noise_power) - 1)]
        weight = (2 * batch.plane.weight / noise_power).astype(np.float32)
        if isinstance(self._sums, DeviceSliceSums):
            self._sums.add(batch.plane, batch.slices, batch.observed, (batch.ctf, batch.adjoint), weight)
        elif isinstance(batch, DeviceBatch):
            raise ValueError("a batch on a device is not for the CPU's sums")
        else:
            self._sums.add(batch.plane, batch.slices, batch.observed, (batch.ctf, batch.adjoint), weight)
        self._n_particles += len(batch.indices)

    def finish(self) -> NormalEquations:
        """Transform the sums; the accumulator is spent."""
        right_side = self._sums.right_side(self._n_threads)
        spectrum = self._sums.kernel_spectrum(axis_frequencies(self._box_size_px, self._band), self._band)
        spectrum *= np.float32((self._box_size_px / self._kernel_box_px) ** 3)  # a sum over the box's own voxels
        return NormalEquations(right_side, spectrum, self._n_particles)


def data_band(plane: conventions.HalfPlane, box_size_px: int) -> int:
    """Highest frequency of the doubled box at which T is kept, on any axis."""
    return min(int(np.ceil(2 * float(plane.radius.max()))) + BAND_MARGIN, box_size_px)


def kernel_box(band: int, box_size_px: int) -> int:
    """Voxels on which t is made, for the images' box: it spans twice that, and needs be no finer than its band."""
    return min(fast_even_size(band + 1), box_size_px)


class Operator:
    """Applies T of normal equations to maps; one map at a time, because it works in one buffer."""

    def __init__(self, equations: NormalEquations, n_threads: int) -> None:
        self.box_size_px = equations.box_size_px
        self.right_side = equations.right_side  # [n, n, n]
        self._spectrum = equations.spectrum
        self._band = equations.band
        self._n_threads = n_threads
        # transforms of the two padded axes, cropped to the band: [n, 2h + 1 (2n without a band), h + 1]
        self._lines = np.empty((self.box_size_px, self._spectrum.shape[1], self._band + 1), dtype=np.complex64)

    def apply(self, volume: Map) -> Map:
        """T v for a map [n, n, n].

        An axis is padded, and cropped to the band, only when its turn comes, and a few planes at a time, which stay in
        the processor's cache; each plane's result is the same whoever computes it.
        """
        n = self.box_size_px
        volume = np.asarray(volume, dtype=np.float32)
        result = np.empty((n, n, n), dtype=np.float32)

        def backward(planes: slice) -> None:
            result[planes] = self._plane_maps(planes)

        with ThreadPoolExecutor(max_workers=self._n_threads) as pool:
            for work, n_planes in (
                (lambda planes: self._transform_planes(volume, planes), n),
                (self._convolve_columns, self._lines.shape[1]),
                (backward, n),
            ):
                list(pool.map(work, _slabs(n_planes)))
        return result

    def _transform_planes(self, volume: Map, planes: slice) -> None:
        """Transform some z planes along x and y."""
        n, h = self.box_size_px, self._band
        transform = fft.fft(fft.rfft(volume[planes], n=2 * n, axis=2)[:, :, : h + 1], n=2 * n, axis=1)
        if h < n:
            self._lines[planes, : h + 1] = transform[:, : h + 1]
            self._lines[planes, h + 1 :] = transform[:, -h:]
        else:
            self._lines[planes] = transform

    def _convolve_columns(self, rows: slice) -> None:
        """Transform some y frequencies along z, apply T, and go back."""
        n, h = self.box_size_px, self._band
        transform = fft.fft(self._lines[:, rows], n=2 * n, axis=0)
        if h < n:
            transform[: h + 1] *= self._spectrum[: h + 1, rows]
            transform[h + 1 : -h] = 0
            transform[-h:] *= self._spectrum[h + 1 :, rows]
        else:
            transform *= self._spectrum[:, rows]
        self._lines[:, rows] = fft.ifft(transform, axis=0, overwrite_x=True)[:n]

    def _plane_maps(self, planes: slice) -> Map:
        """Go back along y and x in some z planes."""
        n, h = self.box_size_px, self._band
        transform = self._lines[planes]
        if h < n:
            transform = np.zeros((transform.shape[0], 2 * n, h + 1), dtype=np.complex64)
            transform[:, : h + 1] = self._lines[planes, : h + 1]
            transform[:, -h:] = self._lines[planes, h + 1 :]
        transform = fft.ifft(transform, axis=1)[:, :n]
        return np.asarray(fft.irfft(transform, n=2 * n, axis=2)[:, :, :n], dtype=np.float32)

    def loss_and_gradient(self, volume: Map) -> tuple[float, Map]:
        """L(v) without its constant, and dL/dv = T v - b."""
        gradient = self.apply(volume)
        gradient -= self.right_side
        # 1/2 <v, Tv> - <b, v> = 1/2 <v, Tv - b> - 1/2 <b, v>
        loss = 0.5 * (np.vdot(volume, gradient) - np.vdot(volume, self.right_side))
        return float(loss), gradient


def _slabs(n_planes: int) -> list[slice]:
    return [slice(start, start + SLAB_PLANES) for start in range(0, n_planes, SLAB_PLANES)]
