"""Tables of every origin become the tables of RELION 3.1: small ones, written here."""

import re
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.particles import read_particles
from gem_plugin.io.tables import ParticleTables, read_particle_tables
from tests.unit.small_project import Columns, SmallProject, default_optics, default_particles, table_text

MICROSCOPE = {
    "rlnVoltage": ["300.000000"] * 4 + ["200.000000"] * 2,
    "rlnSphericalAberration": ["2.700000"] * 6,
    "rlnAmplitudeContrast": ["0.100000"] * 6,
    "rlnDetectorPixelSize": ["5.000000"] * 6,
    "rlnMagnification": ["40000.000000"] * 6,
}


def relion30() -> Columns:
    """The six particles as RELION 3.0 would have written them, at 1.25 A/px."""
    columns = default_particles()
    del columns["rlnOpticsGroup"]
    for axis in "XY":
        columns[f"rlnOrigin{axis}"] = [f"{float(str(v)) / 1.25:.6f}" for v in columns.pop(f"rlnOrigin{axis}Angst")]
    return columns | MICROSCOPE


def read(tmp_path: Path, text: str) -> ParticleTables:
    path = tmp_path / "particles.star"
    path.write_text(text)
    return read_particle_tables(path)


def pair(optics: Columns, particles: Columns) -> str:
    return table_text("optics", optics) + table_text("particles", particles)


@pytest.mark.parametrize("name", ["", "images", "particles", "model_class_1"])
def test_a_table_of_relion_3_0_becomes_two(tmp_path: Path, name: str) -> None:
    tables = read(tmp_path, table_text(name, relion30()))
    optics, particles = tables.optics, tables.particles
    assert list(optics.frame.columns) == [
        "rlnOpticsGroup", "rlnOpticsGroupName", "rlnAmplitudeContrast", "rlnSphericalAberration", "rlnVoltage",
        "rlnImagePixelSize",
    ]  # fmt: skip
    np.testing.assert_array_equal(optics.numbers("rlnVoltage"), [300, 200])
    np.testing.assert_allclose(optics.numbers("rlnImagePixelSize"), 1.25)
    np.testing.assert_array_equal(particles.integers("rlnOpticsGroup"), [1, 1, 1, 1, 2, 2])
    assert not {*MICROSCOPE, "rlnOriginX", "rlnOriginY"} & set(particles.frame.columns)
    for column in ("rlnOriginXAngst", "rlnOriginYAngst"):
        expected = [float(str(value)) for value in default_particles()[column]]
        np.testing.assert_allclose(particles.numbers(column), expected, atol=2e-6)
    assert list(particles.texts("rlnDefocusU")) == relion30()["rlnDefocusU"]
    assert "2 optics groups, pixel size 1.25 Angstrom; rlnOriginX, rlnOriginY converted" in tables.notes[0]


def test_particles_of_relion_3_0_are_those_of_3_1(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    expected = project.read()
    columns = relion30() | {"rlnVoltage": [300] * 6}
    project.table_path.write_text(table_text("", columns))
    found = read_particles(project.table_path, project_directory=project.root)
    assert found.optics == expected.optics
    for name in ("euler_angles_deg", "shifts_in_angstroms", "defocus_v_in_angstroms", "image_in_stack", "half_set"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-6)
    assert "RELION 3.0 or older" in found.notes[0]


def test_beam_tilts_and_pixel_sizes_make_groups_too(tmp_path: Path) -> None:
    columns = relion30()
    columns["rlnBeamTiltX"] = [0, 0, "0.5", "0.5", 0, 0]
    columns["rlnMagnification"] = [40000, 20000, 40000, 40000, 40000, 40000]
    tables = read(tmp_path, table_text("", columns))
    np.testing.assert_array_equal(tables.particles.integers("rlnOpticsGroup"), [1, 2, 3, 3, 4, 4])
    np.testing.assert_allclose(tables.optics.numbers("rlnImagePixelSize"), [1.25, 2.5, 1.25, 1.25])
    np.testing.assert_array_equal(tables.optics.numbers("rlnBeamTiltX"), [0, 0, 0.5, 0])
    pixels = np.array([1.25, 2.5, 1.25, 1.25, 1.25, 1.25])
    shifts = np.array([float(str(value)) for value in columns["rlnOriginX"]])
    np.testing.assert_allclose(tables.particles.numbers("rlnOriginXAngst"), shifts * pixels, atol=2e-6)


def test_a_pixel_size_in_a_column_of_its_own_is_taken(tmp_path: Path) -> None:
    columns = relion30()
    del columns["rlnMagnification"], columns["rlnDetectorPixelSize"]
    for column in ("rlnPixelSize", "rlnImagePixelSize"):
        tables = read(tmp_path, table_text("", columns | {column: ["1.5"] * 6}))
        np.testing.assert_array_equal(tables.optics.numbers("rlnImagePixelSize"), 1.5)
        shifts = np.array([float(str(value)) for value in columns["rlnOriginX"]])
        np.testing.assert_allclose(tables.particles.numbers("rlnOriginXAngst"), 1.5 * shifts, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rlnMagnification": None}, "has no pixel size: expected rlnImagePixelSize, or"),
        ({"rlnVoltage": None}, "neither data_optics nor a column rlnVoltage"),
        ({"rlnSphericalAberration": None}, "neither data_optics nor a column rlnSphericalAberration"),
        ({"rlnMagnification": [0] * 6}, "rlnMagnification is 0; expected a positive number"),
        ({"rlnDetectorPixelSize": [-5] * 6}, "is -1.25; expected Angstrom a pixel"),
        ({"rlnDetectorPixelSize": ["five"] * 6}, "rlnDetectorPixelSize is five in row 1"),
        ({"rlnImagePixelSize": ["1.5"] * 6}, "two pixel sizes: 1.5000 Angstrom from rlnImagePixelSize and 1.2500 from"),
        ({"rlnOriginX": ["nan"] * 6}, "rlnOriginX is missing or NaN in row 1"),
        ({"rlnCtfImage": ["a.mrc"] * 6}, "transfer functions as images (rlnCtfImage)"),
        ({"rlnReconstructImageName": ["1@a.mrcs"] * 6}, "names other images for the reconstruction"),
        ({"rlnMagnificationCorrection": [1, 1, "1.01", 1, 1, 1]}, "rlnMagnificationCorrection is 1.01 in row 3"),
        ({"rlnIsFlip": [0, 1, 0, 0, 0, 0]}, "rlnIsFlip is 1 in row 2"),
    ],
)
def test_tables_that_would_give_a_wrong_map_are_refused(
    tmp_path: Path, change: dict[str, list[object] | None], words: str
) -> None:
    columns = {name: values for name, values in (relion30() | change).items() if values is not None}
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read(tmp_path, table_text("", columns))
    assert "particles.star" in str(caught.value)


def test_two_tables_of_images_are_refused(tmp_path: Path) -> None:
    text = table_text("images", relion30()) + table_text("particles", relion30())
    with pytest.raises(InputError, match="expected data_optics and data_particles, found data_images, data_particles"):
        read(tmp_path, text)


def test_names_in_other_case_are_read_and_told(tmp_path: Path) -> None:
    optics = {column.lower(): values for column, values in default_optics().items()}
    particles = {column.upper(): values for column, values in default_particles().items()}
    tables = read(tmp_path, pair(optics, particles))
    np.testing.assert_array_equal(tables.optics.numbers("rlnVoltage"), 300)
    assert set(tables.particles.frame.columns) == set(default_particles())
    assert "rlnVoltage" in tables.notes[0]
    assert "rlnAnglePsi" in tables.notes[0]
    with pytest.raises(InputError, match="has the column rlnVoltage twice"):
        read(tmp_path, pair(default_optics() | {"RLNvoltage": [1]}, particles))


def test_own_values_of_particles_split_their_group(tmp_path: Path) -> None:
    optics = {name: [values[0]] * 2 for name, values in default_optics().items()}
    optics |= {"rlnOpticsGroup": [1, 5], "rlnOpticsGroupName": ["a", "b"], "rlnVoltage": [300, 120]}
    particles = default_particles() | {
        "rlnOpticsGroup": [1, 1, 5, 5, 1, 5],
        "rlnVoltage": [300, 200, 120, 120, 200, 120],
    }
    tables = read(tmp_path, pair(optics, particles))
    np.testing.assert_array_equal(tables.particles.integers("rlnOpticsGroup"), [1, 6, 5, 5, 6, 5])
    np.testing.assert_array_equal(tables.optics.integers("rlnOpticsGroup"), [1, 5, 6])
    assert list(tables.optics.texts("rlnOpticsGroupName")) == ["a", "b", "a_6"]
    assert "rlnVoltage differ among the particles of one optics group, so 2 groups became 3" in tables.notes[0]


def test_split_groups_reach_the_particles(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.particles["rlnSphericalAberration"] = ["2.7", "2.7", "1.4", "2.7", "1.4", "2.7"]
    found = project.read()
    assert [group.spherical_aberration_mm for group in found.optics_groups] == [2.7, 1.4]
    np.testing.assert_array_equal(found.group_of_particle, [0, 0, 1, 0, 1, 0])


def test_shifts_in_pixels_beside_an_optics_table_are_converted(tmp_path: Path) -> None:
    particles = default_particles()
    expected = [float(str(value)) for value in particles["rlnOriginXAngst"]]
    particles["rlnOriginX"] = [value / 1.25 for value in expected]
    del particles["rlnOriginXAngst"]
    text = pair(default_optics(), particles)
    tables = read(tmp_path, text)
    np.testing.assert_allclose(tables.particles.numbers("rlnOriginXAngst"), expected, atol=2e-6)
    assert "gives rlnOriginX in pixels; converted to Angstrom with rlnImagePixelSize" in tables.notes[0]
    with pytest.raises(InputError, match="no row for rlnOpticsGroup 2"):
        read(
            tmp_path,
            pair(default_optics(), particles | {"rlnOpticsGroup": [2] * 6}),
        )


def test_particles_without_a_group_are_of_the_only_one(tmp_path: Path) -> None:
    particles = default_particles()
    del particles["rlnOpticsGroup"]
    tables = read(tmp_path, pair(default_optics() | {"rlnOpticsGroup": [3]}, particles))
    np.testing.assert_array_equal(tables.particles.integers("rlnOpticsGroup"), 3)
    assert "all taken to be of group 3" in tables.notes[0]


def test_defaults_that_are_taken_are_told(tmp_path: Path) -> None:
    particles = default_particles()
    whole = pair(default_optics(), particles)
    assert read(tmp_path, whole).notes == ()
    for column in ("rlnOriginXAngst", "rlnDefocusV", "rlnCtfScalefactor"):
        del particles[column]
    optics = default_optics()
    del optics["rlnAmplitudeContrast"]
    (note,) = read(tmp_path, pair(optics, particles)).notes
    taken = "rlnOriginXAngst (0), rlnDefocusV (rlnDefocusU), rlnCtfScalefactor (1), rlnAmplitudeContrast (0)."
    assert note.endswith(f"RELION's defaults were taken: {taken}")


def test_columns_that_might_have_meant_something_are_told(tmp_path: Path) -> None:
    optics = default_optics() | {"rlnNewAberration": ["[1,2]"]}
    particles = default_particles() | {"rlnBeamTiltX": ["0.5"] * 6, "ucsfUid": list(range(6))}
    notes = read(tmp_path, pair(optics, particles)).notes
    assert len(notes) == 3
    assert "column rlnNewAberration of data_optics is not known and not used" in notes[0]
    assert "column ucsfUid of data_particles is not known and not used" in notes[1]
    assert "column rlnBeamTiltX of data_particles is not used: like RELION" in notes[2]


def test_a_table_of_csparc2star_is_read(tmp_path: Path) -> None:
    """Its quirks: groups numbered with gaps, Zernike terms without brackets, columns that pandas put in quotes."""
    optics = default_optics() | {"rlnOpticsGroup": [17], "rlnOddZernike": ['"0.1,0.2,-0.3"'], "rlnImageSize": ["8.0"]}
    particles = default_particles() | {"rlnOpticsGroup": [17] * 6, "rlnMicrographName": ['"J2/a b.mrc"'] * 6}
    text = pair(optics, particles)
    tables = read(tmp_path, re.sub(r"# version.*\n", "", text))
    assert list(tables.optics.texts("rlnOddZernike")) == ["0.1,0.2,-0.3"]
    assert set(tables.particles.texts("rlnMicrographName")) == {"J2/a b.mrc"}
    assert list(tables.particles.texts("rlnDefocusV")) == particles["rlnDefocusV"]
