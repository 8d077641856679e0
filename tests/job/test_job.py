"""The job around the science: files, nodes, exactly one marker, exit codes. The science is a stand-in here."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from gem_plugin.errors import InputError
from relion_external.job import main
from tests.job import fake
from tests.job.conftest import JOB, Run, names_in, standing_markers
from tests.job.project import PIXEL_SIZE_IN_ANGSTROMS, Project, write_mrc

RESULTS = {
    "run_half1_class001_unfil.mrc",
    "run_half2_class001_unfil.mrc",
    "run_class001.mrc",
    "gem_half1.mrc",
    "gem_half2.mrc",
    "model_free_half1.mrc",
    "model_free_half2.mrc",
    "gem_half1_gaussians.npz",
    "gem_half2_gaussians.npz",
    "gem_half1_gaussians.cif",
    "gem_half2_gaussians.cif",
    "gem_chimerax.cxc",
    "gem_fsc.star",
    "gem_residuals.star",
    "gem_unfiltered.mrc",
    "gem_sharpened.mrc",
    "gem_locally_filtered.mrc",
    "gem_locres.mrc",
    "run_data.star",
    "logfile.pdf",
    "gem_config.json",
    "RELION_OUTPUT_NODES.star",
}
pytestmark = pytest.mark.usefixtures("_stand_in")
RunJob = Callable[..., Run]


def test_a_run_leaves_all_results_and_one_marker(project: Project, run: RunJob):
    project.write()
    result = run("--pipeline_control", f"{JOB}/")
    assert (result.exit_code, result.markers, result.err) == (0, ["RELION_JOB_EXIT_SUCCESS"], "")
    found = names_in(JOB)
    assert found == RESULTS | {"gem_mask.mrc", "RELION_JOB_EXIT_SUCCESS"}
    assert not any("None" in name for name in found), "RELION rewrites such paths"
    assert fake.STATEMENT in result.out
    lines = result.out.splitlines()
    for setting in ("--steps auto", "--n_gaussians auto", "--maxres auto", "--class all", "--seed 0", "--sym C1"):
        assert f"  {setting}" in lines, "effective settings, defaults included, belong in run.out"


def test_each_map_is_under_its_own_name(project: Project, run: RunJob):
    """The stand-in's maps differ by known factors: a swapped file shows."""
    project.write()
    assert run().exit_code == 0
    halves = np.array(project.particles["rlnRandomSubset"]).astype(int)
    means = [project.images[halves == half].mean(axis=0) for half in (1, 2)]
    expected = {
        "gem_half1.mrc": means[0],
        "gem_half2.mrc": means[1],
        "model_free_half1.mrc": means[0] / 2,
        "model_free_half2.mrc": means[1] / 2,
        "run_half1_class001_unfil.mrc": means[0] * 2,
        "run_half2_class001_unfil.mrc": means[1] * 2,
        "run_class001.mrc": (means[0] + means[1]) / 2,
        "gem_unfiltered.mrc": means[0] * 3,
        "gem_sharpened.mrc": means[0] * 4,
        "gem_locally_filtered.mrc": means[0] * 5,
        "gem_locres.mrc": means[0] * 6,
    }
    for name, section in expected.items():
        with mrcfile.open(JOB / name) as file:
            assert file.data.dtype == np.float32
            np.testing.assert_allclose(file.data[3], section, rtol=1e-5, atol=1e-6, err_msg=name)
            assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE_IN_ANGSTROMS, rel=1e-6)
    for name in ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"):
        with mrcfile.open(JOB / name) as file:
            assert "do not deposit" in str(file.header.label[0])
    with np.load(JOB / "gem_half2_gaussians.npz", allow_pickle=False) as stored:
        assert any(np.allclose(stored[name], means[1][:1, 0]) for name in stored.files if stored[name].size)


def test_tables_settings_and_report(project: Project, run: RunJob):
    project.write()
    assert run("--seed", "7").exit_code == 0
    used = starfile.read(JOB / "run_data.star", always_dict=True)
    assert used["particles"]["rlnBeamSizeKept"].tolist() == project.particles["rlnBeamSizeKept"]
    assert set(used["optics"]) == set(project.optics)
    curves = starfile.read(JOB / "gem_fsc.star", always_dict=True)
    assert curves["general"]["gemStatement"] == fake.STATEMENT
    assert float(curves["general"]["gemResolutionInAngstroms"]) == 8.0
    assert int(curves["general"]["gemIsResolutionClaimed"]) == 1
    assert int(curves["general"]["gemPhasesRandomisedFromShell"]) == 3
    truth = fake.curve(17)
    for column, values in {
        "gemFirstShell": truth.first_shell,
        "gemLastShell": truth.last_shell,
        "gemBandResolutionInAngstroms": truth.band_resolution_in_angstroms,
        "gemCrossValidatedFsc": truth.c_full,
        "gemCrossValidatedFscStandardError": truth.c_full_standard_error,
        "gemCrossValidatedFscResampledError": truth.c_full_resampled_error,
        "gemCrossValidatedFscRandomisedPhases": truth.c_full_randomised,
        "gemCrossValidatedFscRandomisedPhasesError": truth.c_full_randomised_error,
        "gemModelFreeHalfMapFsc": truth.band_model_free_fsc,
        "gemModelFreeCorrelation": truth.band_model_free_correlation,
        "gemIndependentCoefficients": truth.n_independent,
        "gemIsMeasurable": truth.is_measurable.astype(int),
    }.items():
        np.testing.assert_allclose(curves["fsc_bands"][column].astype(float), values, rtol=1e-7, err_msg=column)
    for column, values in {
        "rlnSpectralIndex": np.arange(17),
        "rlnAngstromResolution": truth.shell_resolution_in_angstroms,
        "gemGaussianHalfMapFsc": truth.plain_half_map_fsc,
        "gemModelFreeHalfMapFsc": truth.model_free_fsc,
        "rlnFourierShellCorrelationUnmaskedMaps": truth.postprocess.unmasked,
        "rlnFourierShellCorrelationMaskedMaps": truth.postprocess.masked,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": truth.postprocess.randomised,
        "rlnFourierShellCorrelationCorrected": truth.postprocess.corrected,
        "gemFilterWeight": truth.filter_weight,
    }.items():
        np.testing.assert_allclose(curves["fsc_shells"][column].astype(float), values, rtol=1e-7, err_msg=column)
    record = json.loads((JOB / "gem_config.json").read_text())
    assert record["options"]["seed"] == 7
    assert record["options"]["steps"] == 0, "numbers in the record, words for people in the log"
    assert record["choices"]["seed"] == "7"
    assert record["statement"] == fake.STATEMENT
    report = (JOB / "logfile.pdf").read_bytes()
    assert b"External/job012" in report
    assert b"gem-external --o" in report


def test_each_particle_and_group_has_its_results(project: Project, run: RunJob):
    """Rows of the stand-in's two halves interleave: each value must stand in its own particle's row."""
    project.write()
    assert run().exit_code == 0
    used = starfile.read(JOB / "run_data.star", always_dict=True)["particles"]
    halves = np.array(project.particles["rlnRandomSubset"]).astype(int)
    assert set(halves[:4]) == {1, 2}
    expected = 0.001 * np.arange(len(halves))
    np.testing.assert_allclose(used["gemParticleScale"].astype(float), halves + expected, atol=1e-4)
    np.testing.assert_allclose(used["gemNormalisedResidual"].astype(float), 10 * halves + expected, atol=1e-4)
    tables = starfile.read(JOB / "gem_residuals.star", always_dict=True)
    groups, shells = tables["groups"], tables["shells"]
    assert groups["rlnRandomSubset"].tolist() == [1, 1, 2, 2]
    assert groups["gemLastShell"].tolist() == [1, 16, 1, 16]
    np.testing.assert_allclose(groups["gemResidualOverNoise"], [0.9, 1.1, 0.9, 2.2])
    assert groups["rlnGroupNrParticles"].tolist() == np.repeat([sum(halves == 1), sum(halves == 2)], 2).tolist()
    np.testing.assert_allclose(shells["gemResidualOverNoise"], np.repeat([2.0, 3.0], 17))
    assert shells["rlnSpectralIndex"].tolist() == [*range(17), *range(17)]
    assert np.all(shells["rlnSigma2Noise"] == 1)


def test_curves_of_the_control(project: Project, run: RunJob):
    project.write()
    assert run("--noise_control", "9").exit_code == 0
    curves, truth = starfile.read(JOB / "gem_fsc.star", always_dict=True), fake.curve(17)
    bands, shells = curves["fsc_control"], curves["fsc_control_shells"]
    assert bands["gemFirstShell"].tolist() == truth.first_shell.tolist()
    assert bands["gemControlIsBeyond"].tolist() == [0, 1, 1]
    np.testing.assert_allclose(bands["gemControlCrossValidatedFsc"], truth.c_full / 11, rtol=1e-6)
    np.testing.assert_allclose(bands["gemControlCrossValidatedFscError"], truth.c_full / 12, rtol=1e-6)
    for factor, label in enumerate(("ControlGaussianHalfMap", "ControlModelFreeHalfMap", "TrueGaussianHalfMap"), 13):
        np.testing.assert_allclose(shells[f"gem{label}Fsc"], truth.model_free_fsc / factor, rtol=1e-6)
    assert "beyond 9 Angstrom" in (JOB / "gem_fsc.star").read_text()
    assert run().exit_code == 0
    assert "fsc_control" not in starfile.read(JOB / "gem_fsc.star", always_dict=True)


def test_every_column_and_file_is_documented(project: Project, run: RunJob):
    project.write()
    assert run("--noise_control", "9").exit_code == 0
    documented = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()
    text = (JOB / "gem_fsc.star").read_text() + (JOB / "gem_residuals.star").read_text()
    labels = [line.split()[0][1:] for line in text.splitlines() if line.startswith("_")]
    labels += [
        line.split()[0][1:] for line in (JOB / "run_data.star").read_text().splitlines() if line.startswith("_gem")
    ]
    assert len(labels) > 25
    for name in [*labels, *(path.name for path in JOB.iterdir())]:
        assert f"`{name}`" in documented


def test_nodes(project: Project, run: RunJob):
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "job.star").write_text("\n# version 30001\n\ndata_job\n\n_rlnJobType 99\n_rlnJobIsContinue 0\n")
    assert run().exit_code == 0
    table = starfile.read(JOB / "RELION_OUTPUT_NODES.star", always_dict=True)["output_nodes"]
    assert dict(zip(table["rlnPipeLineNodeName"], table["rlnPipeLineNodeType"], strict=True)) == {
        "External/job012/run_half1_class001_unfil.mrc": 10,
        "External/job012/run_half2_class001_unfil.mrc": 10,
        "External/job012/run_class001.mrc": 6,
        "External/job012/gem_sharpened.mrc": 6,
        "External/job012/gem_unfiltered.mrc": 6,
        "External/job012/gem_locally_filtered.mrc": 6,
        "External/job012/gem_locres.mrc": 12,
        "External/job012/run_data.star": 3,
        "External/job012/logfile.pdf": 13,
        "External/job012/gem_mask.mrc": 7,
    }
    assert all(Path(name).is_file() for name in table["rlnPipeLineNodeName"])


def test_mask_and_reference_reach_the_science(project: Project, run: RunJob):
    project.write()
    JOB.mkdir(parents=True)
    (JOB / "gem_mask.mrc").write_text("of an earlier run without a mask")
    (JOB / "gem_config.json").write_text("{}")
    write_mrc(Path("mask.mrc"), np.full((32, 32, 32), 0.75))
    write_mrc(Path("reference.mrc"), project.truth)
    assert run("--in_mask", "mask.mrc", "--in_3dref", "reference.mrc").exit_code == 0
    record = json.loads((JOB / "gem_config.json").read_text())
    assert record["mask"] == "given"
    assert record["choices"]["reference"] == "True"
    assert not (JOB / "gem_mask.mrc").exists(), "it is not the mask of these maps"


@pytest.mark.parametrize(
    ("volume", "pixel_size", "expected"),
    [
        (np.ones((30, 30, 30)), 2.0, "30 x 30 x 30"),
        (np.ones((32, 32, 32)), 2.1, "2.1"),
        (np.ones((32, 32, 32)), 2.1, "--force_header_angpix 2.0000"),
        (np.full((32, 32, 32), 1.5), 2.0, "1.5"),
        (np.full((32, 32, 32), -0.5), 2.0, "-0.5"),
        (np.zeros((32, 32, 32)), 2.0, "empty"),
        (np.full((32, 32, 32), np.nan), 2.0, "NaN"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    project: Project, run: RunJob, volume: np.ndarray, pixel_size: float, expected: str
):
    project.write()
    write_mrc(Path("mask.mrc"), volume, pixel_size)
    result = run("--in_mask", "mask.mrc")
    assert result.exit_code == 1
    assert len(result.err.splitlines()) == 1
    assert "mask.mrc" in result.err
    assert expected in result.err


def test_a_reference_of_another_box_is_refused(project: Project, run: RunJob):
    project.write()
    write_mrc(Path("reference.mrc"), np.ones((30, 30, 30)))
    result = run("--in_3dref", "reference.mrc")
    assert result.exit_code == 1
    assert "reference.mrc" in result.err
    assert "30 x 30 x 30" in result.err


@pytest.mark.parametrize("words", [["--n_gausians", "5"], ["--steps", "many"], ["stray"]])
def test_a_wrong_option_leaves_the_failure_marker(project: Project, run: RunJob, words: list[str]):
    project.write()
    result = run(*words)
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert len(result.err.splitlines()) == len(result.errors) == 1


def test_missing_inputs_are_named(project: Project, capfd: pytest.CaptureFixture[str]):
    assert main(["--o", "External/job001/", "--j", "1"]) == 1
    assert standing_markers(Path("External/job001")) == ["RELION_JOB_EXIT_FAILURE"]
    assert "--in_parts is missing" in capfd.readouterr().err
    assert main(["--in_parts", "x.star", "--j", "1"]) == 1
    assert "--o is missing" in capfd.readouterr().err


def test_a_failure_replaces_the_marker_and_keeps_the_results_of_an_earlier_run(project: Project, run: RunJob):
    project.write()
    assert run().exit_code == 0
    before = {name: (JOB / name).read_bytes() for name in names_in(JOB)}
    project.images[3, 4, 5] = np.nan
    project.write()
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    after = {name: (JOB / name).read_bytes() for name in names_in(JOB)}
    del before["RELION_JOB_EXIT_SUCCESS"], after["RELION_JOB_EXIT_FAILURE"]
    assert after == before


def test_a_second_run_replaces_the_first(project: Project, run: RunJob):
    project.write()
    run()
    (JOB / "RELION_JOB_EXIT_ABORTED").touch()
    (JOB / "RELION_JOB_ABORT_NOW").touch()
    os.utime(JOB / "RELION_JOB_ABORT_NOW", (0, 0))  # long before this process
    first = (JOB / "gem_half1.mrc").read_bytes()
    project.images *= 2
    project.write()
    assert run().markers == ["RELION_JOB_EXIT_SUCCESS"]
    assert (JOB / "gem_half1.mrc").read_bytes() != first
    assert not (JOB / "RELION_JOB_ABORT_NOW").exists()


def test_a_defect_shows_a_sentence_and_a_traceback(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch):
    project.write()
    monkeypatch.setenv("GEM_FAKE", "crash")
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert "told to crash" in result.errors[0]
    assert "Traceback" in result.err


@pytest.mark.parametrize(("words", "is_shown"), [([], False), (["--verbose"], True)])
def test_warnings_of_numpy_do_not_hide_the_clear_line(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch, words: list[str], is_shown: bool
):
    def fail(*_: object, **__: object) -> None:
        warnings.warn("invalid value encountered in divide", RuntimeWarning, stacklevel=1)
        raise InputError("the images hold NaN")

    monkeypatch.setattr("gem_plugin.reconstruct.reconstruct", fail)
    project.write()
    warnings.simplefilter("default")  # as outside of tests
    result = run(*words)
    assert result.errors == ["gem-external: error: the images hold NaN"]
    assert ("RuntimeWarning: invalid value encountered in divide" in result.out) == is_shown
    assert "RuntimeWarning" not in result.err
    assert is_shown or result.err == "gem-external: error: the images hold NaN\n"


def test_too_little_memory_is_explained(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch):
    project.write()
    monkeypatch.setenv("GEM_FAKE", "memory")
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert "not enough memory" in result.err
    assert "99 GiB" in result.err
    assert "Traceback" not in result.err


def test_too_small_a_disk_is_found_before_anything_is_computed(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
):
    project.write()
    monkeypatch.setattr("relion_external.check.plan", lambda *a, **k: fake.FakePlan(disk_bytes=1e18))
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert "GB free" in result.errors[0]
    assert "Standing in" not in result.out


def test_a_job_directory_that_cannot_be_made(project: Project, run: RunJob):
    project.write()
    Path("External").write_text("a file where RELION has its folder")
    result = run()
    assert result.exit_code == 1
    assert len(result.errors) == 1
    assert "External" in result.errors[0]
    assert "Traceback" not in result.err
    assert "RELION_JOB_EXIT_FAILURE cannot be written" in result.err


def test_a_result_that_cannot_be_written(project: Project, run: RunJob):
    """A folder stands where a map should go: nothing at all is written."""
    project.write()
    (JOB / "run_class001.mrc").mkdir(parents=True)
    result = run()
    assert (result.exit_code, result.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert len(result.err.splitlines()) == len(result.errors) == 1
    assert "run_class001.mrc" in result.errors[0]
    assert names_in(JOB) == {"run_class001.mrc", "RELION_JOB_EXIT_FAILURE"}


def test_a_verbose_run_shows_where_an_error_arose(project: Project, run: RunJob):
    assert "Traceback" in run("--verbose").err


def test_check_writes_nothing(project: Project, capfd: pytest.CaptureFixture[str]):
    project.write()
    before = sorted(Path.cwd().rglob("*"))
    assert main(["check", "--in_parts", project.table, "--o", f"{JOB}/", "--j", "2"]) == 0
    assert sorted(Path.cwd().rglob("*")) == before
    out = capfd.readouterr().out
    for words in ("40 images", *fake.FakePlan().lines(), str(JOB)):
        assert words in out


def test_no_more_threads_than_processors(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """In the run, in its record and in the plan; a note says so."""
    project.write()
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 5})
    words = ["--o", f"{JOB}/", "--in_parts", project.table, "--j", "500"]
    assert main(words) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if "--j 500: 3 processors are" in line]
    record = json.loads((JOB / "gem_config.json").read_text())
    assert (record["choices"]["threads"], record["options"]["j"]) == ("3", 3)
    planned: list[int] = []

    def plan(*inputs: object, n_threads: int) -> fake.FakePlan:
        planned.append(n_threads)
        return fake.FakePlan()

    monkeypatch.setattr("relion_external.check.plan", plan)
    assert main(["check", *words]) == 0
    assert planned == [3]
    assert "--j 500: 3 processors are" in capfd.readouterr().out


def test_check_explains_what_is_wrong(project: Project, capfd: pytest.CaptureFixture[str]):
    assert main(["check", "--in_parts", "missing.star"]) == 1
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert "missing.star" in err


def test_help_and_version(capfd: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    assert "--n_gaussians" in capfd.readouterr().out
    assert main(["check", "--help"]) == 0
    assert "--n_gaussians" in capfd.readouterr().out
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("gem-external 0.")
    assert main([]) == 1
