"""What a map is compared with: the truth itself, or the truth as errors of the poses blur it.

No reconstruction from wrong poses can show more than the blurred truth. It is made from noise-free images whose poses
have fresh errors of the same distribution, never the errors of the particles themselves, because a map agrees with
what its own errors did. Being made of finitely many images it is not exact: its two halves tell by their Fourier shell
correlation F how well the whole of it correlates with the truth that it stands for, C = sqrt(2 F / (1 + F)) (Rosenthal
and Henderson 2003), and what is measured against it is divided by that. Curves end at the first shell whose F is too
low for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from poses import PoseErrors, draw_poses, with_errors
from relion_baseline import reconstruct
from score import Curve, Volume, fourier_shell_correlation, load_map, shell_sums
from simulate import STACK, project_images, write_table

LEAST_FSC = 0.3
SEED = 20_000_000  # far from the seeds of the particles: no draw is shared
Bands = Sequence[tuple[int, int]]  # first and last shell, inclusive


@dataclass(frozen=True)
class Reference:
    """A map to compare with; `halves` are given if it is known from a finite number of images only."""

    volume: Volume
    pixel_size_in_angstroms: float
    halves: tuple[Volume, Volume] | None = None
    n_images: int = 0

    def fsc(self, volume: Volume, mask: Volume) -> Curve:
        """Correlation of a map with the true one in shells 0 ... n/2, or up to where the reference is good enough."""
        measured = fourier_shell_correlation(volume * mask, self.volume * mask)
        if self.halves is None:
            return measured
        of_halves = fourier_shell_correlation(self.halves[0] * mask, self.halves[1] * mask)
        return corrected(measured, of_halves)

    def band_correlation(self, volume: Volume, mask: Volume, bands: Bands) -> NDArray[np.float64]:
        """Correlation in bands of shells, the mean outside the mask taken off; nan where the reference is too poor.

        Defined as the program's own curve is, so that the two can be compared band by band.
        """
        measured = correlation_in_bands(volume, self.volume, mask, bands)
        if self.halves is None:
            return measured
        good = corrected(measured, correlation_in_bands(*self.halves, mask, bands), first=0)
        return np.concatenate([good, np.full(len(measured) - len(good), np.nan)])


def corrected(measured: Curve, fsc_of_halves: Curve, first: int = 1) -> Curve:
    """Divide by the reference's own correlation with what it stands for, up to the first entry where that is too low.

    Entries before `first` are not asked for: shell 0 is the mean of a map, which means nothing.
    """
    poor = np.flatnonzero(fsc_of_halves[first:] < LEAST_FSC)
    end = len(measured) if poor.size == 0 else first + int(poor[0])
    f = np.maximum(fsc_of_halves[:end], LEAST_FSC)
    return np.asarray(measured[:end] / np.sqrt(2 * f / (1 + f)))


def correlation_in_bands(first: Volume, second: Volume, mask: Volume, bands: Bands) -> NDArray[np.float64]:
    """Correlate two maps over bands of shells, each map's mean outside the mask taken off."""
    a, b = (np.fft.rfftn((volume - _level_outside(volume, mask)) * mask) for volume in (first, second))
    sums = shell_sums(mask.shape[0], (a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    cross, power_a, power_b = (np.array([s[low : high + 1].sum() for low, high in bands]) for s in sums)
    return np.asarray(cross / np.sqrt(power_a * power_b + 1e-30))


def _level_outside(volume: Volume, mask: Volume) -> float:
    outside = 1 - mask
    return float((volume * outside).sum() / outside.sum()) if outside.sum() > 0 else 0.0


def exact_reference(truth: Path) -> Reference:
    """Compare with the truth itself."""
    return Reference(*load_map(truth))


def blurred_reference(truth: Path, directory: Path, errors: PoseErrors, n_images: int, symmetry: str) -> Reference:
    """Make the blurred truth with RELION's programs, or find it in `directory`.

    The images are projected without CTF, which changes what errors of the poses do to no expectation.
    """
    table = directory / "erroneous.star"
    halves = (directory / "relion_half1.mrc", directory / "relion_half2.mrc")
    volume, pixel_size = load_map(truth)
    if not (directory / "finished").exists():
        random = np.random.default_rng([SEED, n_images])
        poses = draw_poses(random, n_images, pixel_size)
        clean = project_images(truth, poses, directory, pixel_size, volume.shape[0], ctf=False)
        clean.rename(directory / STACK)
        write_table(table, pixel_size, volume.shape[0], with_errors(poses, errors, random, pixel_size))
        reconstruct(directory, Path(table.name), directory, symmetry=symmetry, ctf=False)
        (directory / STACK).unlink()
        (directory / "finished").touch()
    half1, half2 = (load_map(path)[0] for path in halves)
    return Reference((half1 + half2) / 2, pixel_size, (half1, half2), n_images)
