"""Whoever may read what follows the umask of the one who runs the job, for every file and folder that it makes."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from relion_external.file_names import ALL_RESULTS
from tests.job.conftest import JOB
from tests.job.project import Project
from tests.job.test_abort import SECONDS

Start = Callable[..., "subprocess.Popen[str]"]


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [directory, *directory.rglob("*")]}


@pytest.mark.parametrize("umask", [0o027, 0o077])
@pytest.mark.parametrize("behaviour", ["", "memory"])
def test_modes_follow_the_umask(project: Project, start: Start, umask: int, behaviour: str) -> None:
    project.write()
    process = start(behaviour=behaviour, before=f"umask {umask:03o}; ")
    process.communicate(timeout=SECONDS)
    assert process.returncode == (1 if behaviour else 0)
    modes = modes_in(JOB)
    ending = "RELION_JOB_EXIT_FAILURE" if behaviour else "RELION_JOB_EXIT_SUCCESS"
    assert modes.keys() >= {JOB.name, ending, "gem_progress.jsonl", *(() if behaviour else ALL_RESULTS)}
    for name, mode in modes.items():
        assert mode == (0o777 if name == JOB.name else 0o666) & ~umask, f"{name} has {mode:03o}"
