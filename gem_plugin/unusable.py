"""Whose fault it is where sums over particles are no numbers: NaN and infinities are told with their particle's name.

Tables and images are checked as they are read. This finds what slips through: values that are numbers and make none.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.dataset import FourierBatch, stream
from gem_plugin.errors import InputError
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.normal_equations import NormalEquations

PARTICLES_AT_ONCE = 64
COLUMNS = {
    "transfer function": "defoci, phase shift, rlnCtfBfactor and rlnCtfScalefactor",
    "image, centred and corrected,": "rlnOriginXAngst, rlnOriginYAngst and rlnNormCorrection",
    "pose": "rlnAngleRot, rlnAngleTilt and rlnAnglePsi",
}


def refuse_unusable_sums(
    equations: NormalEquations,
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
) -> None:
    """Make sure that the sums over the particles `indices` are numbers; if not, read these again to find the culprit.

    Raises
    ------
    InputError
        If they are not, with the first particle that is to blame.
    """
    # a sum over numbers is one, and over anything else is none: no array of flags is made
    if math.isfinite(float(equations.right_side.sum(dtype=np.float64))) and math.isfinite(
        float(equations.spectrum.sum(dtype=np.float64))
    ):
        return
    for batch in stream(particles, readers.reader(), indices, planes, PARTICLES_AT_ONCE):
        for what, is_bad in _unusable(batch).items():
            if is_bad.any():
                raise InputError(_sentence(particles, int(batch.indices[np.flatnonzero(is_bad)[0]]), what))
    raise InputError(
        "the sums over the particle images are no numbers, though each image is one of numbers: look for extreme pixel"
        " values, and normalise the images (relion_preprocess --norm)"
    )


def _unusable(batch: FourierBatch) -> dict[str, NDArray[np.bool_]]:
    """Which particles of a batch have no numbers where they are needed, [m] each."""
    fields: dict[str, tuple[NDArray[np.generic], ...]] = {
        "pose": (batch.slices,),
        "transfer function": (batch.ctf, batch.adjoint),
        "image, centred and corrected,": (batch.observed,),
    }
    return {
        what: np.array([not all(np.isfinite(array[i]).all() for array in arrays) for i in range(len(batch.indices))])
        for what, arrays in fields.items()
    }


def _sentence(particles: Particles, row: int, what: str) -> str:
    name = f" ({particles.table['rlnImageName'].iloc[row]})" if "rlnImageName" in particles.table.columns else ""
    return (
        f"the {what} of particle {row + 1}{name} has values that are no numbers: look at its {COLUMNS[what]}, and at"
        " those of its optics group; mend them, or take the particle out of the table"
    )
