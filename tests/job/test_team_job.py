"""One job in several processes: the same map as one process makes, and one clear end when a process dies."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.maps import read_map
from gem_plugin.io.star import read_tables
from relion_external.members import Membership
from tests.helpers import relative_error
from tests.job.project import make_project

OPTIONS = ["--in_parts", "Refine3D/job005/run_data.star", "--n_gaussians", "200", "--j", "1"]
MAGNIFICATIONS = (("1.0", "1.02"), ("0.0", "0.01"), ("0.0", "0.01"), ("1.0", "0.99"))  # of both optics groups
ROUNDING = 1e-5  # of sums that were added in another order
FITTED = 1e-2  # Adam divides by the gradient's size: where that is next to nothing, rounding decides on a step
ALONE = "import sys; from relion_external.job import main; sys.exit(main())"
# as with --gpu 0,1
STARTING_THE_OTHERS = """
import sys
from relion_external.job import run_job
from relion_external.members import start_members
with start_members(sys.argv[1:], 2) as first:
    sys.exit(run_job(sys.argv[1:], first))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 particles, which no team can share out evenly, of two microscopes, one of which magnifies unevenly."""
    directory = tmp_path_factory.mktemp("team")
    made = make_project(directory, n_particles=37, snr=1.0)
    second = {"rlnOpticsGroupName": "other", "rlnOpticsGroup": "2", "rlnVoltage": "200.0"}
    for name, values in made.optics.items():
        values.append(second.get(name, values[0]))
    for name, values in zip(("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"), MAGNIFICATIONS, strict=True):
        made.optics[name] = list(values)
    made.particles["rlnOpticsGroup"] = [str(1 + row % 2) for row in range(37)]
    made.write()
    return directory


@pytest.fixture(scope="module")
def alone(project: Path) -> str:
    """What a run in one process says."""
    return run_of(1, project)


def environment() -> dict[str, str]:
    """In which this checkout's program is found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def started(size: int, arguments: list[str], directory: Path) -> list[subprocess.Popen[str]]:
    """The processes of one job, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "relion_external.job", *arguments]
    return [
        subprocess.Popen(
            command,
            cwd=directory,
            env={**environment(), **Membership(rank, size, rank, "127.0.0.1", port).environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def run_of(size: int, directory: Path) -> str:
    """Run a job of some processes to its end and return what the first said."""
    arguments = ["--o", f"External/job{size:03d}/", *OPTIONS, "--steps", "6"]
    if size <= 2:
        command = [sys.executable, "-c", STARTING_THE_OTHERS if size == 2 else ALONE, *arguments]
        done = subprocess.run(command, cwd=directory, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout
    processes = started(size, arguments, directory)
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * size, said
    assert not any(err for _, err in said)
    assert not any(out for out, _ in said[1:])  # one process speaks
    return said[0][0]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_make_the_map_of_one(project: Path, alone: str, size: int) -> None:
    """Two that the job starts itself, four that were started for it."""
    together = run_of(size, project)
    assert f"{size} processes share the work" in together
    assert "processes share" not in alone
    for half in (1, 2):  # also what the process that fitted half 2 had to say
        assert f"Half {half}: 200 Gaussians, 6 steps (as asked)" in together
    bounds = {"run_class001.mrc": FITTED, "gem_half1.mrc": FITTED, "gem_half2.mrc": FITTED}
    for name, bound in (bounds | {"model_free_half1.mrc": ROUNDING, "model_free_half2.mrc": ROUNDING}).items():
        expected = read_map(project / "External/job001" / name).data
        found = read_map(project / f"External/job{size:03d}" / name).data
        assert relative_error(found, expected) < bound, name
        assert np.abs(expected).max() > 0
    scales = [scales_of(project / f"External/job{count:03d}/run_data.star") for count in (1, size)]
    assert len(scales[0]) == 37
    assert np.abs(scales[1] - scales[0]).max() < 0.01 * np.abs(scales[0]).max()


def scales_of(table: Path) -> np.ndarray:
    return read_tables(table)["particles"].texts("gemParticleScale").astype(float)


def test_a_killed_process_ends_the_job_with_one_sentence(project: Path) -> None:
    processes = started(2, ["--o", "External/job007/", *OPTIONS, "--steps", "6"], project)
    first, second = processes
    assert first.stdout is not None
    try:
        while "2 processes share the work" not in first.stdout.readline():
            assert first.poll() is None
        second.send_signal(signal.SIGKILL)
        _, err = first.communicate(timeout=120)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert first.returncode == 1
    assert "another of the 2 processes ended without a word" in err
    assert err.count("\n") == 1, err
    job = project / "External/job007"
    assert [path.name for path in job.glob("RELION_JOB_EXIT_*")] == ["RELION_JOB_EXIT_FAILURE"]
    assert not (job / "run_class001.mrc").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_aborts_the_job(project: Path, number: signal.Signals) -> None:
    """As a queueing system sends it: that the others end first is no failure, and a warning ends none of them."""
    processes = started(2, ["--o", "External/job008/", *OPTIONS, "--steps", "600"], project)
    first, second = processes
    assert first.stdout is not None
    try:
        while "2 processes share the work" not in first.stdout.readline():
            assert first.poll() is None
        for process in (second, first):
            process.send_signal(number)
        _, err = first.communicate(timeout=120)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    job = project / "External/job008"
    assert (first.returncode, [path.name for path in job.glob("RELION_JOB_EXIT_*")]) == (2, ["RELION_JOB_EXIT_ABORTED"])
    assert number.name in err
    assert "Traceback" not in err
