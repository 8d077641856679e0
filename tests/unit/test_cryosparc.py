"""cryoSPARC's particle files: what arrives where, against matrices computed on their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.particles import read_particles
from gem_plugin.io.tables import ParticleTables, read_particle_tables
from tests.unit.small_project import BOX_SIZE_PX, write_mrc

N = 6
MAIN_FIELDS = [
    ("uid", "<u8"), ("alignments3D/split", "<u4"), ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/pose", "<f4", (3,)), ("alignments3D/psize_A", "<f4"), ("alignments3D/alpha", "<f4"),
    ("alignments3D/class", "<u4"), ("ctf/exp_group_id", "<u4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"), ("ctf/tilt_A", "<f4", (2,)), ("ctf/anisomag", "<f4", (4,)), ("ctf/bfactor", "<f4"),
]  # fmt: skip
PASSED_FIELDS = [
    ("uid", "<u8"), ("blob/path", "S40"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"), ("location/micrograph_path", "S40"), ("location/micrograph_shape", "<u4", (2,)),
    ("location/center_x_frac", "<f4"), ("location/center_y_frac", "<f4"),
]  # fmt: skip


class CsProject:
    """A cryoSPARC project with one refinement, whose records a test may spoil before they are saved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(7)
        self.main = np.zeros(N, np.dtype(MAIN_FIELDS))
        self.passed = np.zeros(N, np.dtype(PASSED_FIELDS))
        main, passed = self.main, self.passed
        main["uid"] = passed["uid"] = rng.permutation(2**60 + np.arange(N, dtype=np.uint64))
        main["alignments3D/split"] = [0, 1, 1, 0, 1, 0]
        main["alignments3D/shift"] = rng.uniform(-3, 3, (N, 2))
        main["alignments3D/pose"] = rng.uniform(-2, 2, (N, 3))
        main["alignments3D/psize_A"] = 2.5  # refined with images binned twice
        main["alignments3D/alpha"] = 1
        main["ctf/exp_group_id"] = [3, 3, 3, 8, 8, 8]
        for name, value in (("accel_kv", 300), ("cs_mm", 2.7), ("amp_contrast", 0.1), ("phase_shift_rad", 0.5)):
            main[f"ctf/{name}"] = value
        main["ctf/df1_A"], main["ctf/df2_A"] = 12000 + 10 * np.arange(N), 11000
        main["ctf/df_angle_rad"] = rng.uniform(-1.5, 1.5, N)
        passed["blob/path"] = [b"J3/extract/a.mrc", b"J3/extract/b.mrc"] * 3
        passed["blob/idx"] = [2, 0, 1, 1, 0, 2]
        passed["blob/shape"], passed["blob/psize_A"], passed["blob/sign"] = BOX_SIZE_PX, 1.25, 1
        passed["location/micrograph_path"] = b"J2/motioncorrected/m.mrc"
        passed["location/micrograph_shape"] = [4000, 5000]
        passed["location/center_x_frac"], passed["location/center_y_frac"] = 0.5, 0.25
        for name in "ab":
            write_mrc(root / f"J3/extract/{name}.mrc", rng.normal(size=(3, BOX_SIZE_PX, BOX_SIZE_PX)))

    @property
    def path(self) -> Path:
        return self.root / "J12" / "J12_005_particles.cs"

    def save(self) -> Path:
        self.path.parent.mkdir(exist_ok=True)
        save(self.path, self.main)
        save(self.path.parent / "J12_passthrough_particles.cs", np.random.default_rng(1).permutation(self.passed))
        return self.path

    def read(self) -> ParticleTables:
        return read_particle_tables(self.save())


def save(path: Path, records: NDArray[Any]) -> None:
    with path.open("wb") as file:  # np.save would add .npy to the name
        np.save(file, records, allow_pickle=False)


@pytest.fixture
def project(tmp_path: Path) -> CsProject:
    return CsProject(tmp_path)


def rodrigues(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation about an axis, from its formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def relion_matrix(rot: float, tilt: float, psi: float) -> NDArray[np.float64]:
    """RELION's A = Rz(psi) Ry(tilt) Rz(rot), its three factors multiplied."""

    def about_z(angle: float) -> NDArray[np.float64]:
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    return about_z(psi) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ about_z(rot)


def test_poses_become_the_matrices_of_the_rotation_vectors(project: CsProject) -> None:
    project.main["alignments3D/pose"][0] = 1e-9  # no rotation
    project.main["alignments3D/pose"][1] = [0, np.pi, 0]  # the other pole: tilt 180
    project.main["alignments3D/pose"][2] = [1.9, 2.4, 0]  # near it
    project.main["alignments3D/pose"][3] = [0, 0, 1]  # tilt 0
    particles = project.read().particles
    for row in range(N):
        angles = [float(particles.texts(f"rlnAngle{name}")[row]) for name in ("Rot", "Tilt", "Psi")]
        expected = rodrigues(project.main["alignments3D/pose"][row].astype(float)).T
        np.testing.assert_allclose(relion_matrix(*angles), expected, atol=5e-7)


def test_every_field_lands_in_its_column(project: CsProject) -> None:
    tables = project.read()
    particles, optics = tables.particles, tables.optics
    main = project.main
    for axis, name in enumerate("XY"):
        np.testing.assert_allclose(
            particles.numbers(f"rlnOrigin{name}Angst"), 2.5 * main["alignments3D/shift"][:, axis], atol=1e-6
        )
    np.testing.assert_allclose(particles.numbers("rlnDefocusU"), main["ctf/df1_A"])
    np.testing.assert_allclose(particles.numbers("rlnDefocusV"), main["ctf/df2_A"])
    np.testing.assert_allclose(particles.numbers("rlnDefocusAngle"), np.rad2deg(main["ctf/df_angle_rad"]), atol=1e-6)
    np.testing.assert_allclose(particles.numbers("rlnPhaseShift"), np.rad2deg(0.5), atol=1e-6)
    np.testing.assert_array_equal(particles.numbers("rlnRandomSubset"), [1, 2, 2, 1, 2, 1])
    np.testing.assert_array_equal(particles.numbers("rlnCtfScalefactor"), 1)
    np.testing.assert_array_equal(particles.numbers("rlnOpticsGroup"), [1, 1, 1, 2, 2, 2])
    assert list(particles.texts("rlnImageName"))[:2] == [
        f"000003@{project.root}/J3/extract/a.mrc:mrcs",
        f"000001@{project.root}/J3/extract/b.mrc:mrcs",
    ]
    assert set(particles.texts("rlnMicrographName")) == {"J2/motioncorrected/m.mrc"}
    np.testing.assert_allclose(particles.numbers("rlnCoordinateX"), 2500)
    np.testing.assert_allclose(particles.numbers("rlnCoordinateY"), 1000)
    assert list(optics.frame.columns) == [
        "rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
        "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality",
    ]  # fmt: skip
    assert optics.frame.iloc[1].tolist() == [
        "2",
        "exposureGroup8",
        "300.0",
        "2.7",
        "0.1",
        "1.25",
        str(BOX_SIZE_PX),
        "2",
    ]
    assert "J12_passthrough_particles.cs" in tables.notes[1]


def test_contrast_and_scale_go_into_the_transfer_function(project: CsProject) -> None:
    project.passed["blob/sign"] = -1
    project.main["alignments3D/alpha"] = [1, 2, 0.5, 1, 1, 1]
    tables = project.read()
    np.testing.assert_allclose(tables.particles.numbers("rlnCtfScalefactor"), [-1, -2, -0.5, -1, -1, -1])
    assert any("blob/sign -1" in note for note in tables.notes)


def test_particles_of_cryosparc_are_particles(project: CsProject) -> None:
    found = read_particles(project.save(), project_directory=Path("elsewhere"))
    assert len(found) == N
    np.testing.assert_array_equal(found.image_in_stack, project.passed["blob/idx"])
    assert [path.name for path in found.stack_paths] == ["a.mrc", "b.mrc"]
    assert found.optics.box_size_px == BOX_SIZE_PX
    np.testing.assert_array_equal(found.half_set, [1, 2, 2, 1, 2, 1])


def test_an_unsplit_refinement_has_no_half_sets(project: CsProject) -> None:
    project.main["alignments3D/split"] = 0
    tables = project.read()
    assert "rlnRandomSubset" not in tables.particles
    assert any("count as not split" in note for note in tables.notes)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ctf/tilt_A", 1.0, "aberrations of Global CTF Refinement (ctf/tilt_A)"),
        ("ctf/anisomag", 0.01, "aberrations of Global CTF Refinement (ctf/anisomag)"),
        (
            "alignments3D/pose",
            np.nan,
            "alignments3D/pose has values that are no finite numbers, first of particle 3 (image ",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(project: CsProject, field: str, value: float, words: str) -> None:
    project.main[field][2] = value
    with pytest.raises(InputError, match=r"J12_005_particles\.cs") as caught:
        project.read()
    assert words in str(caught.value)


def test_the_unit_matrix_is_no_magnification(project: CsProject) -> None:
    project.main["ctf/anisomag"] = [1, 0, 0, 1]
    assert len(project.read().particles) == N


def test_files_that_are_no_particle_files_are_refused(project: CsProject) -> None:
    path = project.save()
    whole = path.read_bytes()
    for content, words in (
        (whole[:-1], "is cut short: its 6 records take"),
        (whole[:50], "does not begin as numpy's arrays do"),
        (b"", "does not begin as numpy's arrays do"),
        (b"\x94CSDAT" + whole, "is a compressed cryoSPARC file"),
        (whole.replace(b"(6,), }" + b" " * 11, b"(666666666666,), }"), "cut short: its 666666666666 records"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_particle_tables(path)
    save(path, np.zeros(3))
    with pytest.raises(InputError, match="expected a list of records"):
        read_particle_tables(path)
    path.write_bytes(whole)
    (path.parent / "J12_passthrough_particles.cs").unlink()
    with pytest.raises(InputError, match=r"lacks blob/path, blob/idx.*no passthrough file beside it"):
        read_particle_tables(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_particle_tables(project.root / "none.cs")


def test_a_passthrough_of_other_particles_is_not_used(project: CsProject) -> None:
    project.passed["uid"][0] += 1000
    with pytest.raises(InputError, match="lacks blob/path"):
        project.read()
