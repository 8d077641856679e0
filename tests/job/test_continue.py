"""RELION's Continue: the same command in the same directory goes on from what an earlier run had done."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_layer import FaultLayer

from gem_plugin.errors import JobAborted
from gem_plugin.io.images import ImageReader
from gem_plugin.monitor import SilentMonitor
from relion_external.checkpoint_folder import FOLDER, MADE_FROM, CheckpointFolder
from relion_external.file_names import ALL_RESULTS, PARTICLES, PROGRESS, REPORT, SETTINGS
from relion_external.markers import AbortSwitch, ExitMarkers
from tests.job import fake
from tests.job.conftest import JOB, Run, standing_markers
from tests.job.project import Project, write_mrc
from tests.job.test_abort import SECONDS, wait_until_busy

RunJob = Callable[..., Run]
Start = Callable[..., "subprocess.Popen[str]"]
KEPT = JOB / FOLDER


def results() -> dict[str, bytes]:
    return {name: (JOB / name).read_bytes() for name in ALL_RESULTS if (JOB / name).exists()}


def interrupt(start: Start, number: signal.Signals = signal.SIGTERM) -> None:
    """Let a run do half of its work."""
    process = start(behaviour="patient later")
    wait_until_busy(process)
    wait_until_busy(process)  # again, between the halves
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    assert {path.name for path in KEPT.iterdir()} == {"half1.npz", MADE_FROM}


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_where_it_was(project: Project, start: Start, run: RunJob, number: signal.Signals) -> None:
    project.write()
    assert run().exit_code == 0
    expected = results()
    for name in ALL_RESULTS:
        (JOB / name).unlink(missing_ok=True)
    interrupt(start, number)
    assert standing_markers(JOB) == [f"RELION_JOB_EXIT_{'FAILURE' if number is signal.SIGKILL else 'ABORTED'}"]
    again = run()
    assert (again.exit_code, again.err, again.markers) == (0, "", ["RELION_JOB_EXIT_SUCCESS"])
    assert "Checkpoints: continuing" in again.out
    assert "Half 1: from the checkpoint" in again.out
    assert results() == expected
    assert {path.name for path in JOB.iterdir()} <= {*ALL_RESULTS, "RELION_JOB_EXIT_SUCCESS", PROGRESS}
    assert "checkpoint" not in run().out, "with success there is nothing to go on from"


@pytest.mark.usefixtures("_stand_in")
def test_a_changed_setting_is_named_and_refused(project: Project, start: Start, run: RunJob) -> None:
    project.write()
    interrupt(start)
    before = {path: path.read_bytes() for path in KEPT.iterdir()}
    refused = run("--seed", "7", "--particle_diameter", "50")
    assert (refused.exit_code, refused.markers) == (1, ["RELION_JOB_EXIT_FAILURE"])
    assert len(refused.errors) == 1
    for words in ("--seed (was 0, is 7)", "--particle_diameter (was auto, is 50.0)", str(KEPT), "--restart"):
        assert words in refused.errors[0]
    assert {path: path.read_bytes() for path in KEPT.iterdir()} == before
    assert "Half 1: from the checkpoint" in run().out, "the old settings still continue"


@pytest.mark.usefixtures("_stand_in")
def test_restart_begins_anew(project: Project, start: Start, run: RunJob) -> None:
    project.write()
    interrupt(start)
    anew = run("--seed", "7", "--restart")
    assert (anew.exit_code, anew.markers) == (0, ["RELION_JOB_EXIT_SUCCESS"])
    assert "checkpoint" not in anew.out.replace("gem_checkpoint", "")
    assert not KEPT.exists()


@pytest.mark.usefixtures("_stand_in")
def test_what_changes_no_half_map_may_change(project: Project, start: Start, run: RunJob) -> None:
    project.write()
    interrupt(start)
    box = project.images.shape[1]
    write_mrc(project.directory / "mask.mrc", np.ones((box, box, box), np.float32))
    again = run("--in_mask", "mask.mrc", "--verbose", "--adhoc_bfac", "-50")
    assert again.exit_code == 0
    assert "Half 1: from the checkpoint" in again.out


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("what", ["table", "stack", "model"])
def test_changed_particles_are_named_and_refused(project: Project, start: Start, run: RunJob, what: str) -> None:
    project.write()
    model = (project.directory / project.table).with_name("run_model.star")
    interrupt(start)
    if what == "table":
        project.particles["rlnAngleRot"][3] = "12.5"
        os.link(project.directory / project.stack, "kept.mrcs")
        project.write()
        os.replace("kept.mrcs", project.directory / project.stack)  # the same file as before
    elif what == "stack":
        project.write()
    else:
        header = "data_model_general\n_rlnNormCorrectionAverage 2.0\n_rlnReferenceDimensionality 3\n"
        header += "data_model_groups\nloop_\n_rlnGroupNumber #1\n_rlnGroupName #2\n_rlnGroupScaleCorrection #3\n"
        names = sorted(set(project.particles["rlnMicrographName"]))
        model.write_text(header + "".join(f"{n} {name} 1.5\n" for n, name in enumerate(names, 1)))
    refused = run()
    named = {"table": project.table, "stack": project.stack, "model": "the refinement's files"}[what]
    assert refused.exit_code == 1, refused.out
    assert named in refused.errors[0]
    assert "--restart" in refused.errors[0]
    assert (KEPT / "half1.npz").exists()


def rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Write the file anew with other arrays, as numpy does."""
    with np.load(path) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    change(changed)
    np.savez(path, **changed)  # type: ignore[arg-type]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "pickled":

        class Hostile:
            def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
                return os.mkdir, ("executed",)

        with zipfile.ZipFile(path, "w") as archive, archive.open("mean.npy", "w") as file:
            np.lib.format.write_array(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    elif how == "huge":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (200_000,) * 2})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mean.npy", header.getvalue() + bytes(100))
    elif how == "compressed":
        with np.load(path) as arrays:
            np.savez_compressed(path, **{name: arrays[name] for name in arrays.files})  # type: ignore[arg-type]
    elif how == "method":  # a bit of the zip's directory
        data[data.rfind(b"PK\x01\x02") + 10] ^= 1
        path.write_bytes(data)
    elif how == "changed":
        rewrite(path, lambda arrays: arrays.update(mean=arrays["mean"] * 2))
    elif how == "nan":
        rewrite(path, lambda arrays: arrays["mean"].__setitem__((0, 0), np.nan))
    elif how == "lacking":
        rewrite(path, lambda arrays: arrays.pop("mean"))
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes({"cut": data[:-100], "flipped": data, "empty": b""}[how])


DAMAGES = (
    "cut",
    "flipped",
    "empty",
    "pickled",
    "huge",
    "compressed",
    "method",
    "changed",
    "nan",
    "lacking",
    "pipe",
    "folder",
)


def as_if_interrupted(run: RunJob) -> dict[str, bytes]:
    """The results of a whole run, and the checkpoint of one that was not; in this process, for many cases."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CheckpointFolder, "remove", lambda _: None)
        assert run().exit_code == 0
    return results()


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_or_hostile_checkpoint_is_not_used(project: Project, run: RunJob, how: str) -> None:
    project.write()
    expected = as_if_interrupted(run)
    damage(KEPT / "half1.npz", how)
    again = run()
    assert (again.exit_code, again.err) == (0, "")
    assert "half1.npz is damaged or another's, and is not used" in again.out
    assert "Half 1: from the checkpoint" not in again.out
    assert "Half 2: from the checkpoint" in again.out
    assert not Path("executed").exists()
    assert results() == expected


@pytest.mark.usefixtures("_stand_in")
def test_what_belongs_to_another_half_or_another_run_is_not_used(project: Project, run: RunJob) -> None:
    project.write()
    as_if_interrupted(run)
    other = (KEPT / "half1.npz").read_bytes()
    (KEPT / "half2.npz").write_bytes(other)
    again = run()
    assert again.exit_code == 0
    assert "half2.npz is damaged or another's" in again.out
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CheckpointFolder, "remove", lambda _: None)
        assert run("--seed", "1").exit_code == 0
    (KEPT / "half1.npz").write_bytes(other)
    seeded = run("--seed", "1")
    assert (seeded.exit_code, "half1.npz is damaged or another's" in seeded.out) == (0, True)


@pytest.mark.usefixtures("_stand_in")
def test_a_folder_elsewhere_behind_a_link_is_as_good(project: Project, run: RunJob) -> None:
    project.write()
    as_if_interrupted(run)
    elsewhere = Path("scratch").absolute()
    KEPT.rename(elsewhere)
    KEPT.symlink_to(elsewhere)
    (elsewhere / "notes.txt").write_text("of the user")
    anew = run("--restart")
    assert (anew.exit_code, anew.err) == (0, "")
    assert "from the checkpoint" not in anew.out
    assert [path.name for path in elsewhere.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("option", [(), ("--restart",)])
def test_a_file_in_the_folders_place_is_told_once(project: Project, run: RunJob, option: tuple[str, ...]) -> None:
    project.write()
    JOB.mkdir(parents=True)
    KEPT.write_text("of the user")
    result = run(*option)
    assert (result.exit_code, result.err) == (0, "")
    assert result.out.count("Checkpoints:") == 1
    assert "is no folder" in result.out
    assert KEPT.read_text() == "of the user"


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "made_from": {}}', '{"format": 1, "made_from": 3}'])
def test_a_folder_that_says_nothing_is_not_used(project: Project, start: Start, run: RunJob, text: str) -> None:
    project.write()
    interrupt(start)
    (KEPT / MADE_FROM).write_text(text)
    again = run()
    assert (again.exit_code, again.err) == (0, "")
    assert "cannot be read and is not used" in again.out
    assert "Half 1: from" not in again.out


@pytest.mark.usefixtures("_stand_in")
def test_no_room_for_a_checkpoint_ends_no_run(project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write()
    JOB.mkdir(parents=True)
    KEPT.mkdir()
    with FaultLayer(KEPT, ("make", "write", "sync"), errno.ENOSPC).installed():
        result = run()
    assert (result.exit_code, result.err) == (0, "")
    assert result.out.count("Checkpoints: none can be kept") == 1
    assert not KEPT.exists()


@pytest.mark.usefixtures("_stand_in")
def test_checkpoints_take_no_room_from_results(
    project: Project, start: Start, run: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier run kept is used all the same."""
    project.write()
    interrupt(start)
    monkeypatch.setattr("relion_external.check.plan", lambda *_, **__: fake.FakePlan(checkpoint_bytes=1e18))
    monkeypatch.setattr(CheckpointFolder, "remove", lambda _: None)
    again = run()
    assert (again.exit_code, again.err) == (0, "")
    assert "no room for checkpoints" in again.out
    assert "Half 1: from the checkpoint" in again.out
    assert {path.name for path in KEPT.iterdir()} == {"half1.npz", MADE_FROM}


@pytest.mark.usefixtures("_stand_in")
def test_too_small_a_scratch_folder_is_found_before_anything_is_computed(
    project: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write()
    missing = run("--fit", "images", "--scratch", "nowhere")
    assert "--scratch nowhere is no folder" in missing.errors[0]
    monkeypatch.setattr("relion_external.check.plan", lambda *_, **__: fake.FakePlan(scratch_bytes=1e18))
    full = run("--fit", "images", "--scratch", ".")
    assert (missing.exit_code, full.exit_code) == (1, 1)
    assert "GB free and the images of a half set" in full.errors[0]
    assert "Standing in" not in missing.out + full.out


@pytest.mark.usefixtures("_stand_in")
def test_parts_of_files_of_a_killed_run_go(project: Project, start: Start, run: RunJob) -> None:
    project.write()
    interrupt(start)
    (KEPT / ".half2.123.part.npz").write_bytes(b"half a file")
    seen: list[list[str]] = []
    read = ImageReader.read

    def look(reader: ImageReader, rows: np.ndarray) -> np.ndarray:
        seen.append([path.name for path in KEPT.glob(".*")])
        return read(reader, rows)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ImageReader, "read", look)
        assert run().exit_code == 0
    assert seen == [[]]


def test_an_announced_end_is_waited_for_with_a_checkpoint(tmp_path: Path) -> None:
    """As by SLURM's --signal=USR1@120: the next step keeps its state, and the run ends there."""
    switch = AbortSwitch(ExitMarkers(tmp_path), poll_in_seconds=0.01, grace_in_seconds=60, state_grace_in_seconds=60)
    folder = CheckpointFolder(tmp_path, {"--seed": "0"}, SilentMonitor(), switch)
    with switch.watching():
        folder.keep("half1", {"mean": np.zeros(3)})
        switch.check()
        assert not folder.is_due()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert folder.is_due()
        switch.check()
        folder.keep("half1", {"mean": np.ones(3)})
        with pytest.raises(JobAborted, match="SIGUSR1"):
            switch.check()
    kept = CheckpointFolder(tmp_path, {"--seed": "0"}, SilentMonitor())
    kept.open(restart=False)
    np.testing.assert_array_equal((kept.load("half1") or {})["mean"], 1)


@pytest.mark.usefixtures("_stand_in")
def test_the_folder_says_what_it_was_made_from(project: Project, start: Start) -> None:
    project.write()
    interrupt(start)
    listed = json.loads((KEPT / MADE_FROM).read_text())["made_from"]
    assert listed["--seed"] == "0"
    assert f"the content of {project.table}" in listed
    assert any(project.stack in what for what in listed)
    assert not {"--j", "--o", "--in_mask", "--verbose"} & listed.keys()
    assert {SETTINGS, PARTICLES, REPORT}.isdisjoint(path.name for path in JOB.iterdir())
