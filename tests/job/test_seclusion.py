"""A whole job, science included, watched by Python's own audit: no network, no shell, no pickle of a file."""

import os
import subprocess
import sys
from pathlib import Path

from tests.job.conftest import REPOSITORY
from tests.job.project import make_project

UMASK = 0o037

# Numba keeps compiled kernels as pickles in a folder that the user alone can write: docs/security.md.
WATCHED = """
import os, sys
told = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "urllib.Request"):
        told.append((event, str(arguments[1:])))
    elif event in ("os.system", "os.exec", "os.posix_spawn", "os.forkpty", "os.startfile"):
        told.append((event, str(arguments[0])))
    elif event == "subprocess.Popen" and arguments[0] != sys.executable:
        told.append((event, str(arguments[0])))
    elif event == "pickle.find_class":
        frame, files = sys._getframe(), []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        if not any("/numba/" in file for file in files):
            told.append((event, str(arguments)))
sys.addaudithook(watch)
from relion_external.job import main
exit_code = main(sys.argv[1:])
print("AUDIT", told)
sys.exit(exit_code)
"""


def watched(directory: Path, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, umask=UMASK
    )


def test_a_job_keeps_to_itself(tmp_path: Path) -> None:
    project = make_project(tmp_path, n_particles=24, snr=1.0).write()
    words = ["--o", "External/job001/", "--in_parts", project.table, "--n_gaussians", "60", "--steps", "3", "--j", "1"]
    result = watched(tmp_path, WATCHED, *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "AUDIT []"
    files = list((tmp_path / "External/job001").iterdir())
    assert any(path.name == "logfile.pdf" for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~UMASK}


def test_the_watch_sees(tmp_path: Path) -> None:
    """The same watch on a program that does all of it."""
    program = WATCHED.replace(
        "from relion_external.job import main",
        "import pickle, socket, subprocess, pathlib\n"
        "def main(words):\n"
        "    pickle.loads(pickle.dumps(pathlib.PurePosixPath('x')))\n"
        "    os.system('true')\n"
        "    subprocess.run('true', shell=True)\n"
        "    with socket.socket() as one:\n"
        "        one.connect_ex(('127.0.0.1', 9))\n"
        "    return 0",
    )
    told = watched(tmp_path, program).stdout
    for event in ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect"):
        assert event in told
