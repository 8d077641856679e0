"""Is the printed resolution true? A job's statement beside the truth's 0.5 crossing and RELION's PostProcess."""

import re
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from our_job import JobResult
from reference import Reference
from score import crossing, load_map

BANDS_TOO_GOOD = 1.0  # by which the printed resolution may be better than the truth's
BANDS_TOO_POOR = 2.0  # and poorer
POSTPROCESS_SHELLS = 2.0  # by which RELION's PostProcess of the calibrated pair may differ from ours


@dataclass(frozen=True)
class Honesty:
    """What a job states beside what is true, both under the job's mask; Fourier shells count from 0.

    A curve that does not cross 0.5 counts as crossing where it ends. The truth's shell is None where its curve ends
    before it crosses and before what the job states: the reference is not good enough to judge.
    """

    printed_resolution: float | None  # None: no number is stated
    is_claimed: bool
    printed_shell: float
    true_resolution: float | None  # None: not crossed
    true_shell: float | None
    band_width_shells: int

    @property
    def bands_too_good(self) -> float | None:
        """How much finer the statement is than the truth; negative: coarser; None: cannot be judged."""
        return None if self.true_shell is None else (self.printed_shell - self.true_shell) / self.band_width_shells

    @property
    def is_true(self) -> bool | None:
        """Whether a resolution is stated, and one within the allowed bands of the truth's."""
        bands = self.bands_too_good
        return None if bands is None else self.is_claimed and -BANDS_TOO_POOR <= bands <= BANDS_TOO_GOOD

    def line(self) -> str:
        """The verdict, for people."""
        printed = "nothing" if not self.is_claimed else "the end of the data"
        printed = printed if self.printed_resolution is None else f"{self.printed_resolution:.2f} A"
        true = "does not cross 0.5" if self.true_resolution is None else f"crosses 0.5 at {self.true_resolution:.2f} A"
        if self.bands_too_good is None:
            return f"honesty: printed {printed}; the blurred truth is not known so far and cannot judge it"
        return (
            f"honesty: printed {printed}, truth {true} under the job's mask: "
            f"{self.bands_too_good:+.2f} bands of {self.band_width_shells} shells (allowed -{BANDS_TOO_POOR:.0f} to "
            f"+{BANDS_TOO_GOOD:.0f}): {'true' if self.is_true else 'FALSE'}"
        )

    def figures(self) -> dict[str, Any]:
        """Everything, for the result file."""
        return {**asdict(self), "bands_too_good": self.bands_too_good, "is_true": self.is_true}


def judge(job: JobResult, reference: Reference) -> Honesty:
    """Compare what a job states with the 0.5 crossing of its combined map, under the mask that the job used."""
    n, pixel_size = reference.volume.shape[0], reference.pixel_size_in_angstroms
    mask = load_map(job.directory / "gem_mask.mrc")[0]
    half1, half2 = (load_map(path)[0] for path in job.gaussian_half_maps)
    curve = reference.fsc((half1 + half2) / 2, mask)
    true_resolution = crossing(curve, n, pixel_size, 0.5)
    crosses = not np.isnan(true_resolution)
    printed_shell = stated_shell(job, n * pixel_size)
    end = float(len(curve) - 1)
    ends_early = len(curve) < n // 2 + 1 and printed_shell > end
    true_shell = n * pixel_size / true_resolution if crosses else None if ends_early else end
    return Honesty(
        printed_resolution=job.resolution_in_angstroms,
        is_claimed=job.is_claimed,
        printed_shell=printed_shell,
        true_resolution=true_resolution if crosses else None,
        true_shell=true_shell,
        band_width_shells=job.band_width_shells,
    )


def stated_shell(job: JobResult, box_edge_in_angstroms: float) -> float:
    """Up to which shell the job says that its map is right: the last of all where its curve does not cross."""
    if not job.is_claimed:
        return 0.0
    if job.resolution_in_angstroms is None:
        return float(job.bands[-1][1])
    return box_edge_in_angstroms / job.resolution_in_angstroms


@dataclass(frozen=True)
class PostProcess:
    """The resolution that RELION reads from the calibrated pair under the job's mask."""

    resolution: float
    shells_from_statement: float

    @property
    def agrees(self) -> bool:
        """Whether it is within two shells of what the job states."""
        return abs(self.shells_from_statement) <= POSTPROCESS_SHELLS

    def line(self) -> str:
        """The verdict, for people."""
        return (
            f"PostProcess on the calibrated pair: {self.resolution:.2f} A, {self.shells_from_statement:+.1f} shells: "
            f"{'agrees' if self.agrees else 'DISAGREES'}"
        )

    def figures(self) -> dict[str, Any]:
        """Everything, for the result file."""
        return {**asdict(self), "agrees": self.agrees}


def post_process(job: JobResult) -> PostProcess:
    """Run relion_postprocess on the pair that was made for it."""
    half1 = job.calibrated_half_maps[0]
    volume, pixel_size = load_map(half1)
    command = ["relion_postprocess", "--i", half1.name, "--mask", "gem_mask.mrc", "--o", "PostProcess/out", "--angpix"]
    (job.directory / "PostProcess").mkdir(exist_ok=True)
    log = subprocess.run([*command, str(pixel_size)], cwd=job.directory, capture_output=True, text=True)
    found = re.search(r"FINAL RESOLUTION:\s*([\d.]+|inf)", log.stdout)
    if log.returncode or found is None:
        raise SystemExit(f"relion_postprocess failed:\n{log.stdout[-2000:]}\n{log.stderr[-2000:]}")
    if "Skip masking" in log.stdout + log.stderr:
        print("PostProcess set the mask aside: the whole box correlates further than its inside")
    edge = volume.shape[0] * pixel_size
    return PostProcess(float(found[1]), edge / float(found[1]) - stated_shell(job, edge))
