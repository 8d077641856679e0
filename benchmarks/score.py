"""The yardstick: how well a pair of half maps agrees with a known truth, under one soft mask.

Definitions, the same for our maps and for RELION's:

* the mask comes from the truth: blurred by 2 px, cut at 5 % of the maximum, grown by `extend_px`, with a raised-cosine
  edge of `edge_px` (or it is a given map);
* the combined map is the mean of the two half maps; both it and the truth are multiplied by the mask;
* shells are one Fourier pixel wide, 0 ... n/2; the mean FSC is the average over shells 1 ... n/2;
* a curve crosses a threshold where the line between two shells does; a curve that never rises above it crosses at
  infinity, one that never falls below it at nan.

``python benchmarks/score.py TRUTH HALF1 HALF2 [HALF1 HALF2 ...]`` prints one row a pair.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

Volume = NDArray[np.float64]  # [z, y, x]
Curve = NDArray[np.float64]  # one entry a Fourier shell 0 ... n // 2

MASK_BLUR_PX = 2.0
MASK_THRESHOLD = 0.05


@dataclass(frozen=True)
class Score:
    """What one pair of half maps scores; resolutions in Angstrom."""

    mean_fsc_to_truth: float
    mean_fsc_to_truth_unmasked: float
    truth_crossing: float
    truth_crossing_unmasked: float
    half_map_crossing: float

    def row(self) -> str:
        """Return the numbers in the order of `HEADER`."""
        return (
            f"{self.mean_fsc_to_truth:9.4f} {self.mean_fsc_to_truth_unmasked:9.4f} "
            f"{self.truth_crossing:9.2f} {self.truth_crossing_unmasked:9.2f} {self.half_map_crossing:9.2f}"
        )


HEADER = f"{'mean FSC':>9} {'unmasked':>9} {'0.5 (A)':>9} {'unmasked':>9} {'half .143':>9}"


def load_map(path: Path) -> tuple[Volume, float]:
    """Read a map [z, y, x] and its pixel size in Angstrom."""
    with mrcfile.open(path, permissive=True) as file:
        return np.asarray(file.data, dtype=np.float64), float(file.voxel_size.x)


def save_map(path: Path, volume: NDArray[np.floating], pixel_size_in_angstroms: float) -> None:
    """Write a map [z, y, x] as float32."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(volume, dtype=np.float32))
        file.voxel_size = pixel_size_in_angstroms


def shell_sums(box_size_px: int, *quantities: NDArray[np.floating]) -> list[Curve]:
    """Sum half-spectra [n, n, n // 2 + 1] over the shells of the whole spectrum."""
    index = np.fft.fftfreq(box_size_px, 1 / box_size_px)
    half_index = np.arange(box_size_px // 2 + 1)
    radius = np.sqrt(index[:, None, None] ** 2 + index[None, :, None] ** 2 + half_index**2)
    shell = np.rint(radius).astype(np.int64)
    # every column but the first (and Nyquist's, in an even box) stands for its Friedel mate too
    multiplicity = np.full(half_index.size, 2.0)
    multiplicity[0] = 1.0
    if box_size_px % 2 == 0:
        multiplicity[-1] = 1.0
    inside = shell <= box_size_px // 2
    return [
        np.bincount(shell[inside], weights=(values * multiplicity)[inside]).astype(np.float64) for values in quantities
    ]


def fourier_shell_correlation(first: Volume, second: Volume) -> Curve:
    """Correlate two maps of one size, shell by shell."""
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    cross, power_a, power_b = shell_sums(first.shape[0], (a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    return cross / np.sqrt(power_a * power_b + 1e-30)


def crossing(curve: Curve, box_size_px: int, pixel_size_in_angstroms: float, threshold: float) -> float:
    """Return the resolution in Angstrom at which a curve first falls below a threshold."""
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if below.size == 0:
        return float("nan")
    first = int(below[0])
    if first == 1:
        return float("inf")
    drop = curve[first - 1] - curve[first]
    shell = first - 1 + (curve[first - 1] - threshold) / drop
    return float(box_size_px * pixel_size_in_angstroms / shell)


def mask_from_truth(truth: Volume, extend_px: float = 3.0, edge_px: float = 5.0) -> Volume:
    """Make the soft mask, 0 to 1, in which everything is scored."""
    blurred = gaussian_filter(truth, MASK_BLUR_PX)
    distance = distance_transform_edt(blurred <= MASK_THRESHOLD * blurred.max())
    through_edge = np.clip((distance - extend_px) / edge_px, 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * through_edge), dtype=np.float64)


def score(truth: Volume, half1: Volume, half2: Volume, mask: Volume, pixel_size_in_angstroms: float) -> Score:
    """Score one pair of half maps."""

    def fsc_to_truth(volume: Volume, within: Volume) -> Curve:
        return fourier_shell_correlation(volume * within, truth * within)

    return score_against(fsc_to_truth, half1, half2, mask, pixel_size_in_angstroms)


def score_against(
    fsc_to_truth: Callable[[Volume, Volume], Curve],
    half1: Volume,
    half2: Volume,
    mask: Volume,
    pixel_size_in_angstroms: float,
) -> Score:
    """Score one pair of half maps by a function that correlates a map with the truth under a mask.

    The function's curve may end before Nyquist: the mean is over the shells that it has.
    """
    n = half1.shape[0]
    combined = (half1 + half2) / 2

    def crosses(curve: Curve, threshold: float) -> float:
        return crossing(curve, n, pixel_size_in_angstroms, threshold)

    masked, unmasked = fsc_to_truth(combined, mask), fsc_to_truth(combined, np.ones_like(mask))
    return Score(
        mean_fsc_to_truth=float(masked[1:].mean()),
        mean_fsc_to_truth_unmasked=float(unmasked[1:].mean()),
        truth_crossing=crosses(masked, 0.5),
        truth_crossing_unmasked=crosses(unmasked, 0.5),
        half_map_crossing=crosses(fourier_shell_correlation(half1 * mask, half2 * mask), 0.143),
    )


def score_files(truth: Path, half1: Path, half2: Path, mask: Volume) -> Score:
    """Score one pair of half-map files against a truth file."""
    true_map, pixel_size = load_map(truth)
    return score(true_map, load_map(half1)[0], load_map(half2)[0], mask, pixel_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("half_maps", type=Path, nargs="+")
    parser.add_argument("--mask", type=Path, help="use this mask instead of one made from the truth")
    parser.add_argument("--extend", type=float, default=3.0, help="growth of the mask in pixels (3)")
    parser.add_argument("--edge", type=float, default=5.0, help="width of its soft edge in pixels (5)")
    arguments = parser.parse_args()
    if len(arguments.half_maps) % 2:
        parser.error("half maps come in pairs")
    if arguments.mask:
        mask = load_map(arguments.mask)[0]
    else:
        mask = mask_from_truth(load_map(arguments.truth)[0], arguments.extend, arguments.edge)
    print(f"{HEADER}  pair")
    for half1, half2 in zip(arguments.half_maps[::2], arguments.half_maps[1::2], strict=True):
        print(f"{score_files(arguments.truth, half1, half2, mask).row()}  {half1}")


if __name__ == "__main__":
    main()
