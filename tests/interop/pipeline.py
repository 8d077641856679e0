"""A RELION project that the real relion_pipeliner works in, for the tests of whole pipelines."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import starfile
from numpy.typing import NDArray

from tests.interop.simulated import read_volume

REPOSITORY = Path(__file__).resolve().parents[2]
SUCCESS, FAILURE = 2, 3  # rlnPipeLineProcessStatus


@dataclass
class Pipeline:
    """A RELION project in which jobs are added and run; the truth and a mask that its maps are judged by."""

    directory: Path
    truth: NDArray[np.float32]  # [z, y, x]
    mask: NDArray[np.float32]  # [z, y, x], 0 to 1

    def tables(self) -> dict:
        return starfile.read(self.directory / "default_pipeline.star", always_dict=True)

    def status(self, job: str) -> int:
        processes = self.tables()["pipeline_processes"]
        if not hasattr(processes, "columns"):
            return int(processes["rlnPipeLineProcessStatus"])
        row = processes[processes["rlnPipeLineProcessName"] == job]
        return int(row["rlnPipeLineProcessStatus"].iloc[0])

    def __post_init__(self) -> None:
        """Put gem-external on the PATH of the jobs, also under a name to which RELION adds --pipeline_control."""
        for name in ("gem-external", "relion_gem"):
            program = self.directory / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relion_external.job "$@"\n')
            program.chmod(0o755)

    def add_and_run(self, *words: str, status: int = SUCCESS) -> str:
        """Add a job to the pipeline, run it, wait for it; return its name.

        Its status is checked here, because the pipeliner waits for ever for the results of a job that failed.
        """
        number = int(self.tables()["pipeline_general"]["rlnPipeLineJobCounter"])
        self.relion_pipeliner(*words)
        found = list(self.directory.glob(f"*/job{number:03d}"))
        assert len(found) == 1, f"no job was added by {words}"
        job = f"{found[0].relative_to(self.directory)}/"
        self.relion_pipeliner("--RunJobs", job, "--sec_wait_after", "1")
        assert self.status(job) == status, self.log(job)
        return job

    def relion_pipeliner(self, *words: str) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = ["relion_pipeliner", *words]
        result = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"

    def log(self, job: str) -> str:
        """What a failed job has to say."""
        return "\n".join(
            (self.directory / job / name).read_text()
            for name in ("run.out", "run.err", "note.txt")
            if (self.directory / job / name).exists()
        )

    def truth_correlation(self, *names: str) -> float:
        """Mean Fourier shell correlation of the maps' average with the truth, under the mask."""
        volume = sum(read_volume(self.directory / name) for name in names) / len(names)
        a, b = (np.fft.rfftn(v * self.mask) for v in (volume, self.truth))
        n = len(self.truth)
        squares = (np.fft.fftfreq(n) * n) ** 2
        radius = np.sqrt(squares[:, None, None] + squares[None, :, None] + np.arange(n // 2 + 1) ** 2)
        shell = np.rint(radius).astype(int).ravel()
        cross, ours, true = (
            np.bincount(shell, weights=w.ravel()) for w in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2)
        )
        return float(np.mean((cross / np.sqrt(ours * true))[1 : n // 2 + 1]))
