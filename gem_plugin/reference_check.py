"""Does a reference map agree with the data in hand, sign and greyscale? It shapes nothing."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gem_plugin.fsc import Shells

Map = NDArray[np.floating[Any]]

LARGEST_SHIFT_PX = 2.0
COMPARED_SHELLS = 12  # the coarse features that any usable reference shares with the data


def mirrored(volume: Map) -> Map:
    """The other hand: z -> -z about the box centre (voxel n // 2)."""
    flipped = volume[::-1]
    return np.roll(flipped, 1, axis=0) if volume.shape[0] % 2 == 0 else flipped


def _best_shift(data: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
    """How many pixels the reference must move to fit the data best, and the correlation there."""
    cross = fft.irfftn(fft.rfftn(data) * fft.rfftn(reference).conj(), s=data.shape)
    peak = np.unravel_index(int(cross.argmax()), cross.shape)
    n = data.shape[0]
    offsets = (np.array(peak) + n // 2) % n - n // 2
    return float(np.linalg.norm(offsets)), float(cross.max() / (np.linalg.norm(data) * np.linalg.norm(reference)))


def check_reference(reference: Map, data_map: Map, mask: Map) -> list[str]:
    """Compare a reference with the model-free map under a mask, both low-passed.

    Returns
    -------
    warnings, one sentence each; none when the reference agrees
    """
    shells = Shells(reference.shape[0])
    weight = np.zeros(shells.last + 1)
    weight[1 : min(COMPARED_SHELLS, shells.last) + 1] = 1

    def prepared(volume: Map) -> NDArray[np.float64]:
        return np.asarray(shells.filter(volume, weight) * mask, dtype=np.float64).ravel()

    data, straight, other = prepared(data_map), prepared(reference), prepared(mirrored(reference))
    norm = np.linalg.norm(data) * np.linalg.norm(straight)
    if norm == 0:
        return ["the reference map is empty, so hand, sign and greyscale could not be checked against it"]
    same = float(data @ straight / norm)
    mirror = float(data @ other / max(float(np.linalg.norm(data) * np.linalg.norm(other)), 1e-30))
    if same < 0 and abs(same) >= abs(mirror):
        return [
            f"the reference correlates negatively with the data ({same:.2f}): its contrast or the particles' is"
            " inverted (RELION wants white particles)"
        ]
    if mirror > same + 0.02:
        return [
            f"the mirrored reference fits the data better ({mirror:.2f}) than the reference ({same:.2f}): the poses or"
            " the reference have the other hand"
        ]
    shift, aligned = _best_shift(data.reshape(reference.shape), straight.reshape(reference.shape))
    if shift > LARGEST_SHIFT_PX and aligned > same + 0.1:
        return [
            f"the reference lies {shift:.0f} px away from the data (correlation {same:.2f}, {aligned:.2f} when moved):"
            " it is not in the poses' frame"
        ]
    if same < 0.3:
        return [f"the reference hardly resembles the data (correlation {same:.2f}): is it of these particles?"]
    slope = float(data @ straight / (straight @ straight))
    if not 0.5 <= slope <= 2:
        return [
            f"the map's greyscale is {slope:.2g} times the reference's: the reference is not on the images' greyscale,"
            " which changes nothing here"
        ]
    return []
