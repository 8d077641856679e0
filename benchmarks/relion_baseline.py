"""What RELION makes of the same particles: relion_reconstruct, once a half set."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import starfile


@dataclass(frozen=True)
class Baseline:
    """A pair of RELION's half maps."""

    half1: Path
    half2: Path
    wall_seconds: float  # of the two runs together; nan if the maps were there already


def require_relion() -> None:
    """End with one line if RELION's programs are not on the PATH."""
    missing = [name for name in ("relion_project", "relion_reconstruct") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: put RELION's programs on the PATH to run this benchmark")


def with_float32_stacks(project: Path, table: Path, scratch: Path) -> Path:
    """Copy a project's table and stacks into `scratch`, every stack as float32, and return the table's path there.

    RELION 3.1 does not read float16 stacks (MRC mode 12); later versions do.
    """
    (scratch / table).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(project / table, scratch / table)
    for stack in stacks_of(project / table):
        (scratch / stack).parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.open(project / stack, permissive=True) as source, mrcfile.new(scratch / stack) as target:
            target.set_data(np.asarray(source.data, dtype=np.float32))
            target.voxel_size = source.voxel_size
    return scratch / table


def stacks_of(table: Path) -> list[str]:
    """Return the image stacks that a particle table names, relative to its project."""
    names = starfile.read(table, always_dict=True)["particles"]["rlnImageName"]
    return sorted({str(name).split("@", 1)[1] for name in names})


def reconstruct(project: Path, table: Path, output: Path, *, symmetry: str = "C1", ctf: bool = True) -> Baseline:
    """Run relion_reconstruct on both half sets of a table, from the project directory, one thread each, in turn."""
    output.mkdir(parents=True, exist_ok=True)
    halves = [output.resolve() / f"relion_half{half}.mrc" for half in (1, 2)]
    start = time.perf_counter()
    for half, path in enumerate(halves, start=1):
        command = ["relion_reconstruct", "--i", str(table), "--o", str(path), "--subset", str(half)]
        command += ["--sym", symmetry, "--pad", "2", "--skip_gridding", *(["--ctf"] if ctf else [])]
        log = subprocess.run(command, cwd=project, capture_output=True, text=True)
        if log.returncode or not path.exists():
            raise SystemExit(f"relion_reconstruct failed:\n{log.stdout[-2000:]}\n{log.stderr[-2000:]}")
    return Baseline(halves[0], halves[1], time.perf_counter() - start)
