"""Reading particle tables: what arrives where."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gem_plugin.errors import OutputError
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import read_particles, write_particles
from gem_plugin.io.star import read_tables, write_tables
from tests.unit.small_project import BOX_SIZE_PX, STACKS, SmallProject

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


def test_every_value_lands_in_its_array(project: SmallProject) -> None:
    particles = project.read()
    rows = np.arange(6)
    assert len(particles) == 6
    assert particles.optics == OpticsGroup("opticsGroup1", 1.25, BOX_SIZE_PX, 300.0, 2.7, 0.1)
    np.testing.assert_array_equal(
        particles.euler_angles_deg, np.stack([10.5 * rows, 20.25 * rows, -30.125 * rows], axis=1)
    )
    np.testing.assert_array_equal(particles.shifts_in_angstroms, np.stack([0.5 + rows, -0.25 - rows], axis=1))
    np.testing.assert_array_equal(particles.defocus_u_in_angstroms, 10000 + 100 * rows)
    np.testing.assert_array_equal(particles.defocus_v_in_angstroms, 9000 + 100 * rows)
    np.testing.assert_array_equal(particles.defocus_angle_deg, 15 * rows)
    np.testing.assert_array_equal(particles.phase_shift_deg, 90)
    np.testing.assert_array_equal(particles.ctf_bfactor_in_angstroms2, 40)
    np.testing.assert_array_equal(particles.ctf_scale, 0.9)
    np.testing.assert_array_equal(particles.half_set, [1, 2, 2, 1, 2, 1])
    assert particles.half_sets_are_refined
    stacks = [particles.stack_paths[stack] for stack in particles.stack_of_particle]
    assert stacks == [project.root / STACKS[stack] for stack in (0, 1, 0, 1, 1, 0)]
    np.testing.assert_array_equal(particles.image_in_stack, [2, 0, 1, 1, 2, 0])


def test_absent_columns_take_the_defaults_of_relion(project: SmallProject) -> None:
    for column in (
        "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfBfactor", "rlnCtfScalefactor",
        "rlnPhaseShift", "rlnClassNumber",
    ):  # fmt: skip
        del project.particles[column]
    del project.optics["rlnAmplitudeContrast"]
    particles = project.read()
    assert particles.optics.amplitude_contrast == 0
    assert "RELION's defaults were taken: rlnOriginXAngst (0), rlnOriginYAngst (0), rlnDefocusV" in particles.notes[0]
    np.testing.assert_array_equal(particles.shifts_in_angstroms, 0)
    np.testing.assert_array_equal(particles.defocus_v_in_angstroms, particles.defocus_u_in_angstroms)
    np.testing.assert_array_equal(particles.defocus_angle_deg, 0)
    np.testing.assert_array_equal(particles.phase_shift_deg, 0)
    np.testing.assert_array_equal(particles.ctf_bfactor_in_angstroms2, 0)
    np.testing.assert_array_equal(particles.ctf_scale, 1)


def test_pixel_size_falls_back_in_order(project: SmallProject) -> None:
    project.optics |= {"rlnMicrographOriginalPixelSize": ["0.5"], "rlnMicrographPixelSize": ["0.75"]}
    for column, expected in (
        ("rlnImagePixelSize", 1.25),
        ("rlnMicrographPixelSize", 0.75),
        ("rlnMicrographOriginalPixelSize", 0.5),
    ):
        assert project.read().optics.pixel_size_in_angstroms == expected
        del project.optics[column]


def test_the_box_comes_from_the_stacks_where_the_table_does_not_tell(project: SmallProject) -> None:
    del project.optics["rlnImageSize"]
    assert project.read().optics.box_size_px == BOX_SIZE_PX


def test_particle_columns_win_over_the_optics_table(project: SmallProject) -> None:
    project.particles |= {
        "rlnVoltage": [200] * 6,
        "rlnSphericalAberration": [1.4] * 6,
        "rlnAmplitudeContrast": [0.07] * 6,
    }
    project.optics |= {"rlnPhaseShift": [10], "rlnCtfBfactor": [20]}
    del project.particles["rlnCtfBfactor"]
    particles = project.read()
    assert particles.optics == OpticsGroup("opticsGroup1", 1.25, BOX_SIZE_PX, 200.0, 1.4, 0.07)
    np.testing.assert_array_equal(particles.phase_shift_deg, 90)  # the particles' own
    np.testing.assert_array_equal(particles.ctf_bfactor_in_angstroms2, 20)  # the group's, as the particles have none


def test_an_unused_optics_group_does_not_matter(project: SmallProject) -> None:
    for column, values in project.optics.items():
        values.append({"rlnOpticsGroup": 2, "rlnImageSize": 100, "rlnOpticsGroupName": "other"}.get(column, values[0]))
    project.optics["rlnBeamTiltX"] = [0, 1.5]
    assert project.read().optics.name == "opticsGroup1"
    project.particles["rlnOpticsGroup"] = [2] * 6
    project.optics |= {"rlnImageSize": [100, BOX_SIZE_PX], "rlnBeamTiltX": [1.5, 0], "rlnVoltage": [300, 120]}
    assert project.read().optics.voltage_kv == 120


BROKEN = {
    "rlnVoltage": "-3", "rlnSphericalAberration": "nan", "rlnAmplitudeContrast": "many", "rlnImagePixelSize": "0",
    "rlnImageSize": "none", "rlnImageDimensionality": "3", "rlnBeamTiltX": "1e300", "rlnBeamTiltY": "inf",
    "rlnOddZernike": "[a,b]", "rlnEvenZernike": "[1e99]", "rlnMagMat00": "0", "rlnMagMat01": "5", "rlnMagMat10": "x",
    "rlnMagMat11": "nan", "rlnCtfDataAreCtfPremultiplied": "1", "rlnCtfDataArePhaseFlipped": "1",
    "rlnMtfFileName": "gone.star",
}  # fmt: skip
SOUND = {"rlnBeamTiltX": "0", "rlnBeamTiltY": "0", "rlnOddZernike": "[0]", "rlnEvenZernike": "[0]", "rlnMagMat00": "1",
         "rlnMagMat01": "0", "rlnMagMat10": "0", "rlnMagMat11": "1", "rlnCtfDataAreCtfPremultiplied": "0",
         "rlnCtfDataArePhaseFlipped": "0", "rlnMtfFileName": "None"}  # fmt: skip


@pytest.mark.parametrize("number", ["2", "nan", "x", "2.5"])
@pytest.mark.parametrize("column", ["rlnBeamTiltY", "rlnMagMat11"])  # the last one, which a short row lacks, and others
def test_broken_values_in_an_unused_row_of_optics_do_no_harm(project: SmallProject, number: str, column: str) -> None:
    """With shifts in pixels, which every pixel size of a group in use is needed for."""
    expected = project.read()
    project.optics |= {name: [value] for name, value in SOUND.items()}
    for name, values in project.optics.items():
        values.insert(0, BROKEN.get(name, "broken"))
    project.optics["rlnOpticsGroup"][0] = number
    project.optics[column] = project.optics.pop(column)
    for axis in "XY":
        shifts = project.particles.pop(f"rlnOrigin{axis}Angst")
        project.particles[f"rlnOrigin{axis}"] = [f"{float(str(shift)) / 1.25}" for shift in shifts]
    particles = project.read()
    assert particles.optics == expected.optics
    np.testing.assert_allclose(particles.shifts_in_angstroms, expected.shifts_in_angstroms)
    assert len(particles.optics_table) == 2
    project.particles["rlnVoltage"] = [200, 300] * 3  # makes groups of the one
    assert [group.voltage_kv for group in project.read().optics_groups] == [200, 300]


def test_zero_corrections_are_no_corrections(project: SmallProject) -> None:
    project.optics |= {
        "rlnBeamTiltX": ["0.000000"], "rlnBeamTiltY": ["0"], "rlnOddZernike": ["[]"], "rlnEvenZernike": ["[0,0,0.0]"],
        "rlnMagMat00": ["1.000000"], "rlnMagMat01": ["0"], "rlnMagMat10": ["0"], "rlnMagMat11": ["1"],
        "rlnCtfDataAreCtfPremultiplied": [0], "rlnCtfDataArePhaseFlipped": [0],
    }  # fmt: skip
    project.particles["rlnHelicalTubeID"] = [0] * 6
    assert len(project.read()) == 6


def test_one_class_is_chosen(project: SmallProject) -> None:
    project.particles["rlnClassNumber"] = [1, 2, 2, 2, 2, 1]
    project.particles["rlnRandomSubset"] = [1, 1, 2, 1, 2, 1]
    particles = project.read(class_number=2)
    np.testing.assert_array_equal(particles.defocus_u_in_angstroms, [10100, 10200, 10300, 10400])
    np.testing.assert_array_equal(particles.half_set, [1, 2, 1, 2])
    assert list(particles.table.index) == [0, 1, 2, 3]
    assert list(particles.table["rlnDefocusU"]) == ["10100.000000", "10200.000000", "10300.000000", "10400.000000"]


def test_the_first_particles_of_a_class_are_chosen(project: SmallProject) -> None:
    project.particles["rlnClassNumber"] = [1, 2, 2, 2, 2, 2]
    project.particles["rlnRandomSubset"] = [1, 1, 2, 1, 2, 1]
    path = project.write()
    particles = read_particles(path, class_number=2, max_particles=4, project_directory=project.root)
    np.testing.assert_array_equal(particles.defocus_u_in_angstroms, [10100, 10200, 10300, 10400])
    assert list(particles.table["rlnDefocusU"]) == ["10100.000000", "10200.000000", "10300.000000", "10400.000000"]
    assert particles.notes == ("The first 4 of 5 particles are used (--max_particles).",)
    assert read_particles(path, class_number=2, max_particles=5, project_directory=project.root).notes == ()


def test_the_project_directory_is_where_names_start_and_absolute_names_stand(
    project: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.particles["rlnImageName"] = [
        str(name).replace("@", f"@{project.root}/") for name in project.particles["rlnImageName"]
    ]
    assert project.read().stack_paths == tuple(project.root / name for name in STACKS)
    relative = SmallProject(project.root)
    monkeypatch.chdir(project.root)
    assert read_particles(relative.write()).stack_paths == tuple(map(Path, STACKS))


def test_tables_in_the_other_order_and_windows_line_ends(project: SmallProject) -> None:
    expected = project.read()
    path = project.write("particles", "optics")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    found = read_particles(path, project_directory=project.root)
    np.testing.assert_array_equal(found.euler_angles_deg, expected.euler_angles_deg)
    assert found.optics == expected.optics


def test_a_table_of_relion_5_with_general_values_before_it(project: SmallProject) -> None:
    expected = project.read()
    text = project.write().read_text().replace("# version 30001\n\ndata", "# version 50001\ndata")
    project.table_path.write_text(f"\n# version 50001\ndata_general\n\n_rlnSomething    1\n{text}")
    found = read_particles(project.table_path, project_directory=project.root)
    np.testing.assert_array_equal(found.euler_angles_deg, expected.euler_angles_deg)
    assert found.optics == expected.optics


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not there")
def test_a_whole_refinement_of_relion_3_1_is_read_and_written_unchanged(tmp_path: Path) -> None:
    root = SHARED_DATA / "refine3d_313"
    path = root / "Refine3D/job005/run_data.star"
    particles = read_particles(path, project_directory=root)
    assert (len(particles), particles.optics.pixel_size_in_angstroms, particles.optics.box_size_px) == (2000, 4.0, 64)
    np.testing.assert_array_equal(np.sort(particles.image_in_stack), np.arange(2000))
    np.testing.assert_array_equal(particles.euler_angles_deg[0], [-133.27795, 105.457848, -73.16961])
    write_particles(particles, tmp_path / "again.star")
    written = [line.split() for line in (tmp_path / "again.star").read_text().splitlines() if "@" in line]
    assert written == [line.split() for line in path.read_text().splitlines() if "@" in line]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_columns_does_not_matter(project: SmallProject, data: st.DataObject) -> None:
    expected = SmallProject(project.root).read()
    for table in (project.optics, project.particles):
        shuffled = {column: table[column] for column in data.draw(st.permutations(sorted(table)))}
        table.clear()
        table.update(shuffled)
    found = project.read()
    np.testing.assert_array_equal(found.euler_angles_deg, expected.euler_angles_deg)
    np.testing.assert_array_equal(found.image_in_stack, expected.image_in_stack)
    np.testing.assert_array_equal(found.half_set, expected.half_set)
    assert found.optics == expected.optics


def test_without_half_sets_the_split_is_even_fixed_and_blind_to_order(project: SmallProject) -> None:
    del project.particles["rlnRandomSubset"]
    first = project.read()
    assert not first.half_sets_are_refined
    np.testing.assert_array_equal(np.bincount(first.half_set), [0, 3, 3])
    for values in project.particles.values():
        values.reverse()
    np.testing.assert_array_equal(project.read().half_set, first.half_set[::-1])
    path = project.write()
    splits = {tuple(read_particles(path, project_directory=project.root, seed=seed).half_set) for seed in range(20)}
    assert len(splits) > 5


def test_written_particles_keep_every_column_and_digit(project: SmallProject) -> None:
    project.particles["rlnSomethingNew"] = ["1e-300", "0007", "text", "3.141592653589793238", "None", "-0"]
    project.particles["rlnClassNumber"] = [1, 1, 1, 1, 1, 2]
    project.optics["rlnOddZernike"] = ["[]"]
    particles = project.read(class_number=1)
    path = project.root / "out" / "run_data.star"
    path.parent.mkdir()
    write_particles(particles, path)
    again = read_particles(path, project_directory=project.root)
    assert list(again.table.columns) == list(project.particles)
    for column, values in project.particles.items():
        assert list(again.table[column]) == [str(value) for value in values[:5]], column
    assert {
        column: [str(v) for v in values] for column, values in project.optics.items()
    } == again.optics_table.to_dict("list")
    text = path.read_text()
    assert text.index("data_optics") < text.index("data_particles")
    assert text.count("# version 30001") == 2
    assert "Created" not in text  # a date would make two equal runs differ
    assert [entry.name for entry in path.parent.iterdir()] == ["run_data.star"]


def test_a_split_made_here_is_not_written_as_a_refined_one(project: SmallProject) -> None:
    del project.particles["rlnRandomSubset"]
    path = project.root / "again.star"
    write_particles(project.read(), path)
    assert not read_particles(path, project_directory=project.root).half_sets_are_refined


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_computed_numbers_are_written_exactly(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "numbers.star"
    write_tables(path, {"numbers": pd.DataFrame({"rlnX": values, "rlnName": ["a"] * len(values)})})
    np.testing.assert_array_equal(read_tables(path)["numbers"].numbers("rlnX"), values)


def test_an_unwritable_place_is_an_output_error_and_keeps_the_old_file(project: SmallProject) -> None:
    particles = project.read()
    with pytest.raises(OutputError, match=r"no_such_folder/x\.star cannot be written: No such file or directory"):
        write_particles(particles, project.root / "no_such_folder" / "x.star")
    (project.root / "file").write_text("precious")
    with pytest.raises(OutputError, match=r"file/x\.star cannot be written"):
        write_particles(particles, project.root / "file" / "x.star")
    assert (project.root / "file").read_text() == "precious"


def test_the_written_optics_have_what_relion_asks_for(tmp_path: Path) -> None:
    """Without rlnImageSize and rlnImageDimensionality RELION's programs refuse a table."""
    project = SmallProject(tmp_path)
    for column in ("rlnImageSize", "rlnImageDimensionality"):
        project.optics.pop(column, None)
    particles = project.read()
    optics = particles.optics_table
    assert list(optics["rlnImageSize"].astype(int)) == [particles.optics.box_size_px] * len(optics)
    assert list(optics["rlnImageDimensionality"].astype(int)) == [2] * len(optics)
