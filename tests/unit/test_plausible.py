"""Values that no microscope has are refused with column, particle and remedy; rare ones are told, usual ones not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.phantom import random_particles
from gem_plugin.plausible import plausibility_sentences
from tests.unit.small_project import SmallProject

COUNT = 50
U, V = "defocus_u_in_angstroms", "defocus_v_in_angstroms"


def usual(**optics: object) -> Particles:
    return random_particles(COUNT, OpticsGroup("one", 1.2, 64, 300.0, 2.7, 0.1, **optics), seed=0)


def with_columns(**factors: float) -> Particles:
    """Defoci times a factor, other columns of one value."""
    particles = usual()
    return dataclasses.replace(
        particles, **{n: getattr(particles, n) * f if n in (U, V) else np.full(COUNT, f) for n, f in factors.items()}
    )


def with_optics(**changes: object) -> Particles:
    particles = usual()
    return dataclasses.replace(particles, optics_groups=(dataclasses.replace(particles.optics_groups[0], **changes),))


def spoilt(name: str, row: int, value: float) -> Particles:
    particles = usual()
    values = getattr(particles, name).copy()
    values[row] = value
    return dataclasses.replace(particles, **{name: values})


def test_usual_values_are_not_told() -> None:
    assert plausibility_sentences(usual()) == []
    assert (
        plausibility_sentences(with_columns(phase_shift_deg=90.0, **{U: 0.3, V: 0.3})) == []
    )  # near focus, with a plate
    assert plausibility_sentences(with_optics(beam_tilt_mrad=(2.0, -1.0), magnification=(1.02, 0.01, 0.0, 0.99))) == []
    assert plausibility_sentences(spoilt(U, 3, 90_000.0)) == []


@pytest.mark.parametrize(
    ("particles", "words"),
    [
        (with_columns(**{U: 1e-4, V: 1e-4}), ("rlnDefocusU is ", "first of 50", "micrometres", "by 10000")),
        (with_columns(**{V: 1e-4}), ("rlnDefocusV is ", "micrometres")),
        (with_columns(**{U: 1e3, V: 1e3}), ("rlnDefocusU is ", "expected Angstrom, e.g. 15000")),
        (spoilt(V, 7, -2e6), ("rlnDefocusV is -2e+06 of particle 8", "take the particle out")),
        (spoilt("phase_shift_deg", 7, 5157.0), ("rlnPhaseShift is 5157 of particle 8", "expected degrees")),
        (spoilt("ctf_scale", 7, -1e5), ("rlnCtfScalefactor is -100000 of particle 8", "near 1")),
        (spoilt("defocus_angle_deg", 7, 1e308), ("rlnDefocusAngle is 1e+308 of particle 8", "expected degrees")),
        (with_columns(ctf_scale=0.0), ("rlnCtfScalefactor is 0 of particle 1", "not 0 of all")),
        (spoilt("ctf_bfactor_in_angstroms2", 7, -3000.0), ("rlnCtfBfactor is -3000 of particle 8", "square Angstrom")),
        (with_optics(beam_tilt_mrad=(0.0, 4000.0)), ("rlnBeamTiltX", "group one", "radians", "in mrad")),
        (with_optics(odd_zernike=(0.0, 0.0, 1e9)), ("rlnOddZernike", "group one")),
        (with_optics(even_zernike=(0.0, 1e300, 1e300, 1e300)), ("rlnEvenZernike", "expected fewer than 10000")),
    ],
)
def test_what_cannot_be_is_refused(particles: Particles, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        plausibility_sentences(particles)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("particles", "words"),
    [
        (with_columns(**{U: 0.1, V: 0.1}), "in nanometres, multiply rlnDefocusU and rlnDefocusV by 10"),
        (with_columns(**{U: -1.0, V: -1.0}), "overfocus"),
        (with_columns(**{U: 0.1}), "differ by more than half the defocus"),
        (with_columns(phase_shift_deg=1.57), "in radians, multiply it by 57.2958"),
        (with_columns(ctf_bfactor_in_angstroms2=5000.0), "rlnCtfBfactor is 5000"),
        (with_optics(voltage_kv=30.0), "rlnVoltage is 30 kV"),
        (with_optics(amplitude_contrast=0.9), "rlnAmplitudeContrast is 0.9"),
        (with_optics(amplitude_contrast=-0.1), "rlnAmplitudeContrast is -0.1"),
        (with_optics(pixel_size_in_angstroms=0.19), "pixel size is 0.19 Angstrom"),
        (with_optics(spherical_aberration_mm=12.0), "rlnSphericalAberration is 12 mm"),
        (with_optics(spherical_aberration_mm=0.0027), "in metres, multiply it by 1000"),
        (with_optics(beam_tilt_mrad=(0.0, 100.0)), "rlnBeamTiltX, rlnBeamTiltY and rlnOddZernike of optics group one"),
        (with_optics(even_zernike=(500.0,)), "rlnEvenZernike of optics group one give phases of 500 radians"),
        (with_optics(magnification=(1.2, 0.0, 0.0, 1.0)), "factors of 1.000 to 1.200"),
    ],
)
def test_what_is_rare_is_told(particles: Particles, words: str) -> None:
    sentences = plausibility_sentences(particles)
    assert len(sentences) == 1
    assert words in sentences[0]


def test_images_without_a_transfer_function_may_have_any_defocus() -> None:
    particles = with_columns(**{U: 1e-4, V: 1e-4})
    corrected = dataclasses.replace(particles.optics_groups[0], ctf_state="corrected")
    assert plausibility_sentences(dataclasses.replace(particles, optics_groups=(corrected,))) == []


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("rlnVoltage", "300000", "kilovolts"),
        ("rlnVoltage", "0.3", "kilovolts"),
        ("rlnSphericalAberration", "2700", "millimetres"),
        ("rlnAmplitudeContrast", "7", "divide a percentage by 100"),
        ("rlnImagePixelSize", "1.2e-10", "Angstrom a pixel"),
        ("rlnImagePixelSize", "1200", "Angstrom a pixel"),
        ("rlnMagMat00", "0.4", "near 1, 0, 0, 1"),
        ("rlnMagMat01", "0.45", "stretches by less than half"),
    ],
)
def test_a_lens_that_cannot_be_is_refused_with_its_row(tmp_path: Path, column: str, value: str, expected: str) -> None:
    project = SmallProject(tmp_path)
    if column == "rlnMagMat01":  # singular, though each entry is near enough
        project.optics |= {"rlnMagMat00": ["0.55"], "rlnMagMat10": ["0.45"], "rlnMagMat11": ["0.55"]}
    project.optics[column] = [value]
    with pytest.raises(InputError) as caught:
        project.read()
    for word in (column, f"{float(value):g}", "row 1 of data_optics", expected):
        assert word in str(caught.value)


def test_a_particles_own_voltage_is_named_with_its_row(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.particles["rlnVoltage"] = [300] * 5 + [300_000]
    with pytest.raises(InputError, match=r"rlnVoltage is 300000 in row 6 of data_particles .*expected kilovolts"):
        project.read()


@pytest.mark.parametrize(("axis", "name"), [(0, "rlnAngleRot"), (1, "rlnAngleTilt"), (2, "rlnAnglePsi")])
def test_angles_without_meaning_are_refused(axis: int, name: str) -> None:
    particles = usual()
    angles = particles.euler_angles_deg.copy()
    angles[4, axis] = 720.0
    assert plausibility_sentences(dataclasses.replace(particles, euler_angles_deg=angles)) == []
    angles[4, axis] = -1e300
    with pytest.raises(InputError, match=rf"{name} is -1e\+300 of particle 5.*expected degrees"):
        plausibility_sentences(dataclasses.replace(particles, euler_angles_deg=angles))


@pytest.mark.parametrize(("axis", "name"), [(0, "rlnOriginXAngst"), (1, "rlnOriginYAngst")])
def test_shifts_without_meaning_are_refused(axis: int, name: str) -> None:
    """A particle that was moved out of its box is told elsewhere; 1e300 is no place."""
    particles = usual()
    shifts = particles.shifts_in_angstroms.copy()
    shifts[4, axis] = -10 * particles.optics.edge_in_angstroms
    assert plausibility_sentences(dataclasses.replace(particles, shifts_in_angstroms=shifts)) == []
    shifts[4, axis] = -1e300
    with pytest.raises(InputError, match=rf"{name} is -1e\+300 of particle 5.*expected Angstrom"):
        plausibility_sentences(dataclasses.replace(particles, shifts_in_angstroms=shifts))


def test_particles_of_both_contrasts_are_told() -> None:
    assert plausibility_sentences(with_columns(ctf_scale=-1.0)) == []  # all dark, as cryoSPARC may say
    (sentence,) = plausibility_sentences(spoilt("ctf_scale", 7, -1.0))
    assert f"negative of 1 of {COUNT} particles" in sentence
