"""Refusals: what a RELION table can ask for and this program does not do yet.

Ignoring one of these would give a wrong map without a word.
"""

import numpy as np

from gem_plugin.errors import InputError
from gem_plugin.io.star import StarTable

TOMOGRAPHY_COLUMNS = ("rlnTomoName", "rlnTomoParticleName", "rlnTomoParticleId", "rlnTomoVisibleFrames")
HELIX_COLUMNS = ("rlnHelicalTubeID", "rlnHelicalTrackLength", "rlnHelicalTrackLengthAngst")
CTF_STATE_COLUMNS = {
    "rlnCtfDataAreCtfPremultiplied": "images already multiplied by their CTF",
    "rlnCtfDataArePhaseFlipped": "phase-flipped images",
    "rlnCtfDataAreCtfCorrected": "CTF-corrected images",
}
ZERNIKE_COLUMNS = {
    "rlnOddZernike": "antisymmetric aberrations",
    "rlnEvenZernike": "symmetric aberrations",
}
IDENTITY = {"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0}
MAGNIFICATION_TOLERANCE = 1e-6  # below a thousandth of a pixel in any box


def refuse_other_kinds(particles: StarTable, optics: StarTable) -> None:
    """Refuse particles that are not 2D images of single particles.

    Raises
    ------
    InputError
        For tilt series, subtomograms and helices.
    """
    tomography = [column for column in TOMOGRAPHY_COLUMNS if column in particles]
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


def refuse_other_optics(groups: StarTable) -> None:
    """Refuse optics groups with corrections that are not applied yet.

    Raises
    ------
    InputError
        For beam tilt, Zernike terms, anisotropic magnification and images that are CTF-treated.
    """
    for row in range(len(groups)):
        one = StarTable(groups.path, groups.name, groups.frame.iloc[row : row + 1])
        for column, meaning in _corrections(one):
            value = one.frame[column].iloc[0]
            raise InputError(
                f"{groups.path}: not supported yet: {meaning} ({column} is {value} in {one.row_name(0)}). "
                "Leaving it out would give a worse or a wrong map, so nothing is done."
            )


def _corrections(group: StarTable) -> list[tuple[str, str]]:
    """Columns of the optics table that ask for something, with what it is."""
    found = [
        (column, "beam tilt")
        for column in ("rlnBeamTiltX", "rlnBeamTiltY")
        if column in group and group.numbers(column)[0] != 0
    ]
    found += [(column, meaning) for column, meaning in ZERNIKE_COLUMNS.items() if _has_nonzero_terms(group, column)]
    found += [
        (column, "anisotropic magnification")
        for column, expected in IDENTITY.items()
        if abs(group.numbers(column, default=expected)[0] - expected) > MAGNIFICATION_TOLERANCE
    ]
    found += [
        (column, meaning)
        for column, meaning in CTF_STATE_COLUMNS.items()
        if column in group and group.numbers(column)[0] != 0
    ]
    return found


def _has_nonzero_terms(group: StarTable, column: str) -> bool:
    """Whether a list like ``[0.1,0,0]`` holds anything but zeros; ``[]`` does not."""
    if column not in group:
        return False
    text = str(group.texts(column)[0]).strip()
    try:
        terms = [float(term) for term in text.strip("[]").split(",") if term.strip()]
    except ValueError as error:
        raise InputError(
            f"{group.path}: {column} is {text} in {group.row_name(0)}; expected numbers as in [0.1,0,0]."
        ) from error
    return any(term != 0 for term in terms)
