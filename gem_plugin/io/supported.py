"""Refusals: what a RELION table can ask for and this program does not do yet.

Ignoring one of these would give a wrong map without a word.
"""

import numpy as np

from gem_plugin.errors import InputError
from gem_plugin.io.star import StarTable

TOMOGRAPHY_COLUMNS = ("rlnTomoName", "rlnTomoParticleName", "rlnTomoParticleId", "rlnTomoVisibleFrames")
TOMOGRAPHY_OPTICS = ("rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning")
HELIX_COLUMNS = ("rlnHelicalTubeID", "rlnHelicalTrackLength", "rlnHelicalTrackLengthAngst")


def refuse_other_kinds(particles: StarTable, optics: StarTable) -> None:
    """Refuse particles that are not 2D images of single particles.

    Raises
    ------
    InputError
        For tilt series, subtomograms and helices.
    """
    tomography = [column for column in TOMOGRAPHY_COLUMNS if column in particles]
    tomography += [column for column in TOMOGRAPHY_OPTICS if column in optics]
    if "rlnImageDimensionality" in optics and np.any(optics.numbers("rlnImageDimensionality") != 2):
        tomography.append("rlnImageDimensionality other than 2")
    if tomography:
        raise InputError(
            f"{particles.path} holds particles of tilt series or subtomograms ({tomography[0]}), which are not "
            "supported. Give 2D single particles, e.g. the run_data.star of a Refine3D job."
        )
    for column in HELIX_COLUMNS:
        if column in particles and np.any(particles.numbers(column) != 0):
            raise InputError(
                f"{particles.path} holds helical segments ({column} is not 0), which are not supported. "
                "Give 2D single particles."
            )
