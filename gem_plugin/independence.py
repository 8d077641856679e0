"""Whether the half sets are what they are taken for: different images, seen from all sides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.errors import InputError

Map = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

LEAST_EXCESS = 0.1  # of the half maps' correlation over what the quarter sets predict
SIGNIFICANCE = 6.0
UNSEEN_WEIGHT = 0.1  # of a shell's mean: less says next to nothing of a direction
LARGEST_UNSEEN_SHARE = 0.1
FIRST_SHELL = 4  # coarser ones have too few voxels


def refuse_shared_images(digests: tuple[NDArray[np.uint64], NDArray[np.uint64]], rows: tuple[Any, Any]) -> None:
    """Refuse half sets that hold the same images under different names.

    Parameters
    ----------
    digests : [m] of the pixels of each half's images
    rows : [m] of the particle table, in the same order

    Raises
    ------
    InputError
        If an image is in both.
    """
    common, first, second = np.intersect1d(*digests, return_indices=True)
    if not len(common):
        return
    raise InputError(
        f"{len(common)} images are in both half sets under different names: the first is particle"
        f" {int(rows[0][first[0]]) + 1} of the table, the same as particle {int(rows[1][second[0]]) + 1}. Half sets"
        " that share noise agree on it, and no resolution would be true: take the copies out, or give them one"
        " rlnRandomSubset"
    )


def shares_noise(half_fsc: Floats, quarter_fsc: Floats, n_independent: Floats) -> bool:
    """Whether half maps agree better than their own quarter sets let one expect, by far more than chance.

    Quarter sets of one half with Fourier shell correlation q make half maps with 2q / (1 + q) if the noise of all four
    is independent. Shifted or rescaled copies of images in the other half raise only the correlation of the halves.

    Parameters
    ----------
    half_fsc, quarter_fsc : [bands], the latter averaged over the halves
    n_independent : [bands] coefficients
    """
    q = np.clip(quarter_fsc, 0, 0.999)
    expected = 2 * q / (1 + q)
    slope = 2 / (1 + q) ** 2
    error = np.sqrt(((1 - expected**2) ** 2 + (slope * (1 - q**2)) ** 2 / 2) / np.maximum(n_independent, 1))
    excess = half_fsc - expected
    return bool(((excess > LEAST_EXCESS) & (excess > SIGNIFICANCE * error)).any())


def unseen_share(weight: Map, last_shell: int) -> float:
    """The share of directions of which the particles' views say next to nothing.

    Measured on the coarser half of the shells, where slices are dense: what is empty there, no further particle of the
    same views would fill.

    Parameters
    ----------
    weight : [n, n, n // 2 + 1] data in each Fourier voxel
    """
    shell = conventions.shell_indices(weight.shape[0])
    shares = []
    for number in range(FIRST_SHELL, max(last_shell // 2, FIRST_SHELL) + 1):
        values = weight[shell == number]
        shares.append(float((values < UNSEEN_WEIGHT * values.mean()).mean()) if values.any() else 0.0)
    return float(np.median(shares))


def views_sentences(share: float) -> list[str]:
    """What to say of views that leave directions out."""
    if share <= LARGEST_UNSEEN_SHARE:
        return []
    return [
        f"the views leave {share:.0%} of the directions in Fourier space next to unseen (preferred orientation): the"
        " map is smeared along them, and the resolution, which compares only what was seen, does not show it"
    ]
