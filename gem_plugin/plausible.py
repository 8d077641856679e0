"""Values of the tables that no microscope has: refused before anything is run, or told where one might have them."""

import numpy as np
from numpy.typing import NDArray

from gem_plugin.aberrations import antisymmetric_phase, symmetric_phase
from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles

Floats = NDArray[np.float64]

LEAST_DEFOCUS = 100.0  # Angstrom: where no particle has more, they are in other units
LARGEST_DEFOCUS = 1e6
USUAL_DEFOCUS = 2500.0  # Angstrom: most particles have more, where no phase plate was used
PHASE_PLATE_DEG = 20.0
LARGEST_ASTIGMATISM = 0.5  # of the defocus, of most particles
LARGEST_PHASE_SHIFT_DEG = 1000.0
LARGEST_ANGLE_DEG = 1e5  # beyond which a float's digits no longer tell a degree from another
LARGEST_SHIFT = 100.0  # box edges
LARGEST_SCALE = 1000.0
LARGEST_GAIN = 20.0  # logarithm of what a negative B-factor multiplies amplitudes by at Nyquist
USUAL_BFACTOR = 2000.0  # square Angstrom, beyond which nothing is left at 7 Angstrom
LARGEST_PHASE = 1e4  # radians at Nyquist, by aberrations
USUAL_PHASE = 300.0
USUAL_MAGNIFICATION = 0.1
DIRECTIONS = 64  # in which aberrations are looked at


def plausibility_sentences(particles: Particles) -> list[str]:
    """What to say of values that are rare.

    Raises
    ------
    InputError
        If values cannot be a microscope's: with the column, the first particle or the group, and what is expected.
    """
    has_ctf = np.array([group.ctf_state != "corrected" for group in particles.optics_groups])
    rows = np.flatnonzero(has_ctf[particles.group_of_particle])
    sentences = []
    _refuse_poses(particles)
    if len(rows):
        _refuse_columns(particles, rows)
        sentences = [*_of_defocus(particles, rows), *_of_phase_and_envelope(particles, rows)]
    for group, is_used in zip(particles.optics_groups, has_ctf, strict=True):
        sentences += _of_optics(group) if is_used else []
        sentences += _of_aberrations(group)
    return sentences


def _refuse_poses(particles: Particles) -> None:
    expected = f"expected degrees, at most {LARGEST_ANGLE_DEG:g}; mend it, or take the particle out"
    for column, angles in zip(
        ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), particles.euler_angles_deg.T, strict=True
    ):
        _refuse_where(particles, np.flatnonzero(np.abs(angles) > LARGEST_ANGLE_DEG), column, angles, expected)
    edges = np.array([group.edge_in_angstroms for group in particles.optics_groups])[particles.group_of_particle]
    expected = "expected Angstrom, within the box; mend it, or take the particle out"
    for column, shifts in zip(("rlnOriginXAngst", "rlnOriginYAngst"), particles.shifts_in_angstroms.T, strict=True):
        _refuse_where(particles, np.flatnonzero(np.abs(shifts) > LARGEST_SHIFT * edges), column, shifts, expected)


def _refuse_columns(particles: Particles, rows: NDArray[np.int64]) -> None:
    """Refuse parameters of the particles [rows] that cannot be."""
    in_angstroms = "expected Angstrom, e.g. 15000 for 1.5 micrometres"
    for column, defocus in (
        ("rlnDefocusU", particles.defocus_u_in_angstroms),
        ("rlnDefocusV", particles.defocus_v_in_angstroms),
    ):
        size = np.abs(defocus[rows])
        if 0 < size.max() < LEAST_DEFOCUS:
            remedy = "these look like micrometres; multiply rlnDefocusU and rlnDefocusV by 10000"
            _refuse_where(particles, rows[size > 0], column, defocus, f"{in_angstroms}: {remedy}")
        remedy = "mend its unit, or take the particle out"
        _refuse_where(particles, rows[size > LARGEST_DEFOCUS], column, defocus, f"{in_angstroms}; {remedy}")
    shift, scale, bfactor = particles.phase_shift_deg, particles.ctf_scale, particles.ctf_bfactor_in_angstroms2
    expected = f"expected degrees, at most {LARGEST_PHASE_SHIFT_DEG:g}; {remedy}"
    _refuse_where(particles, rows[np.abs(shift[rows]) > LARGEST_PHASE_SHIFT_DEG], "rlnPhaseShift", shift, expected)
    angle = particles.defocus_angle_deg
    expected = f"expected degrees, at most {LARGEST_ANGLE_DEG:g}; {remedy}"
    _refuse_where(particles, rows[np.abs(angle[rows]) > LARGEST_ANGLE_DEG], "rlnDefocusAngle", angle, expected)
    is_bad = np.abs(scale[rows]) > LARGEST_SCALE if scale[rows].any() else np.ones(len(rows), dtype=bool)
    expected = f"expected a factor near 1, at most {LARGEST_SCALE:g}, and not 0 of all; {remedy}"
    _refuse_where(particles, rows[is_bad], "rlnCtfScalefactor", scale, expected)
    nyquist = np.array([0.5 / group.pixel_size_in_angstroms for group in particles.optics_groups])
    gain = -bfactor[rows] * nyquist[particles.group_of_particle[rows]] ** 2 / 4
    expected = f"expected square Angstrom, e.g. 50, of a loss of amplitude; {remedy}"
    _refuse_where(particles, rows[gain > LARGEST_GAIN], "rlnCtfBfactor", bfactor, expected)


def _refuse_where(
    particles: Particles, bad_rows: NDArray[np.int64], column: str, values: Floats, expected: str
) -> None:
    if not len(bad_rows):
        return
    row = int(bad_rows[0])
    name = f" ({particles.table['rlnImageName'].iloc[row]})" if "rlnImageName" in particles.table.columns else ""
    more = f", the first of {len(bad_rows)} such" if len(bad_rows) > 1 else ""
    raise InputError(f"{column} is {values[row]:g} of particle {row + 1}{name}{more}; {expected}.")


def _of_defocus(particles: Particles, rows: NDArray[np.int64]) -> list[str]:
    u, v = particles.defocus_u_in_angstroms[rows], particles.defocus_v_in_angstroms[rows]
    middle = float(np.median((u + v) / 2))
    has_plate = np.median(np.abs(particles.phase_shift_deg[rows])) > PHASE_PLATE_DEG
    sentences = []
    if abs(middle) < USUAL_DEFOCUS and not has_plate:
        sentences.append(
            f"the particles' middle defocus is {middle:.0f} Angstrom, which is rare without a phase plate: if it is in"
            " nanometres, multiply rlnDefocusU and rlnDefocusV by 10"
        )
    if middle < 0:
        sentences.append(
            f"the particles' middle defocus is {middle:.0f} Angstrom, overfocus: RELION's rlnDefocusU and rlnDefocusV"
            " are positive for underfocus; if the images are underfocused, change their sign"
        )
    if np.median(np.abs(u - v)) > LARGEST_ASTIGMATISM * np.median(np.maximum(np.abs(u), np.abs(v))):
        sentences.append(
            "rlnDefocusU and rlnDefocusV differ by more than half the defocus in most particles: are both in Angstrom?"
        )
    return sentences


def _of_phase_and_envelope(particles: Particles, rows: NDArray[np.int64]) -> list[str]:
    shift = np.abs(particles.phase_shift_deg[rows])
    bfactor = float(np.median(particles.ctf_bfactor_in_angstroms2[rows]))
    n_negative = int(np.count_nonzero(particles.ctf_scale[rows] < 0))
    sentences = []
    if 0 < n_negative < len(rows):
        sentences.append(
            f"rlnCtfScalefactor is negative of {n_negative} of {len(rows)} particles, whose images are taken for dark"
            " ones on bright, unlike the others: is that so?"
        )
    if shift.any() and shift.max() < 2 * np.pi and np.median(shift) > 0.1:
        sentences.append(
            f"rlnPhaseShift is {np.median(shift):.2f} degrees in the middle and {shift.max():.2f} at most: if it is in"
            " radians, multiply it by 57.2958"
        )
    if bfactor > USUAL_BFACTOR:
        sentences.append(
            f"rlnCtfBfactor is {bfactor:.0f} square Angstrom in the middle, which leaves no signal beyond 7 Angstrom"
        )
    return sentences


def _of_optics(group: OpticsGroup) -> list[str]:
    sentences = [
        f"{column} is {value:g}{unit} in optics group {group.name}, which is rare: {usual}"
        for column, unit, value, least, most, usual in (
            ("rlnVoltage", " kV", group.voltage_kv, 60, 1300, "80 to 300 are common"),
            ("rlnAmplitudeContrast", "", group.amplitude_contrast, 0, 0.5, "0.07 to 0.1 are common in ice"),
            ("the pixel size", " Angstrom", group.pixel_size_in_angstroms, 0.2, 25, "0.5 to 5 are common"),
            ("rlnSphericalAberration", " mm", group.spherical_aberration_mm, -0.1, 8, "2.7 and 1.4 are common"),
        )
        if not least <= value <= most
    ]
    if 0 < group.spherical_aberration_mm < 0.005:
        sentences.append(
            f"rlnSphericalAberration is {group.spherical_aberration_mm:g} mm in optics group {group.name}: right behind"
            " a corrector; if it is in metres, multiply it by 1000"
        )
    return sentences


def _of_aberrations(group: OpticsGroup) -> list[str]:
    """Refuse or tell of phases at Nyquist, and of magnifications that are no lens's."""
    nyquist, angle = 0.5 / group.pixel_size_in_angstroms, 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    kx, ky = nyquist * np.cos(angle), nyquist * np.sin(angle)
    sentences = []
    for columns, phase in (
        ("rlnBeamTiltX, rlnBeamTiltY and rlnOddZernike", antisymmetric_phase(group, kx, ky)),
        ("rlnEvenZernike", symmetric_phase(group, kx, ky)),
    ):
        most = float(np.abs(phase).max())
        told = f"{columns} of optics group {group.name} give phases of {most:.3g} radians at Nyquist"
        if not most < LARGEST_PHASE:  # nor if it is infinite
            raise InputError(
                f"{told}; expected fewer than {LARGEST_PHASE:g}. Beam tilts are in mrad; fit these columns again with "
                "CtfRefine, or set them to 0."
            )
        if most > USUAL_PHASE:
            sentences.append(f"{told}, which the box can hardly hold: are beam tilts in mrad, and fits trustworthy?")
    factors = np.linalg.svd(np.reshape(group.magnification, (2, 2)), compute_uv=False)
    if np.abs(factors - 1).max() > USUAL_MAGNIFICATION:
        sentences.append(
            f"rlnMagMat00 to 11 of optics group {group.name} stretch the images by factors of {factors[1]:.3f} to"
            f" {factors[0]:.3f}; a few percent at most are common"
        )
    return sentences
