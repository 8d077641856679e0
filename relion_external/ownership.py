"""Whose a job directory is: a run replaces results of its own kind and never a file of anybody else."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gem_plugin.errors import OutputError
from relion_external.file_names import ALL_RESULTS, SETTINGS

if TYPE_CHECKING:
    from relion_external.options import JobOptions

_JOB_TYPE = re.compile(r"^_rlnJobType(?:Label)?[ \t]+(\S+)", re.MULTILINE)
_EXTERNAL_NUMBER = "99"  # in RELION 3.1
_EXTERNAL_LABEL = "relion.external"  # in RELION 4 and 5


class ForeignDirectoryError(OutputError):
    """The directory given as ``--o`` holds something that is not ours: nothing in it may change, markers included."""


def is_own_directory(directory: Path) -> bool:
    """Whether RELION made the directory for an External job or, if RELION did not make it, a run of ours filled it."""
    job_type = _job_type(directory / "job.star")
    return _is_file_or_link(directory / SETTINGS) if job_type is None else _is_external(job_type)


def require_own_directory(directory: Path) -> None:
    """Make sure that `directory`, if it is there, is not the directory of another job.

    Every complete run leaves its settings, and moves them into place first, so results without them are not ours.

    Raises
    ------
    ForeignDirectoryError
        If it is another's: it holds a job.star of another type, or a file under the name of one of our results but
        not our settings.
    OutputError
        If there is such a file in the directory that RELION made for this job: it may get a marker.
    """
    job_type = _job_type(directory / "job.star")
    if job_type is not None and not _is_external(job_type):
        raise ForeignDirectoryError(
            f"--o {directory} is the directory of another kind of job (its job.star says {job_type}): nothing was "
            "changed there; name a directory of its own for the results, e.g. --o External/job012/"
        )
    found = [name for name in ALL_RESULTS if _is_file_or_link(directory / name)]
    if found and SETTINGS not in found:
        raise _refusal(
            directory,
            f"--o {directory} holds {found[0]}, which gem-external would overwrite and did not write (there is no "
            f"{SETTINGS} beside it): nothing was overwritten; name another directory for the results, or move the "
            "file away",
        )


def require_inputs_elsewhere(options: "JobOptions") -> None:
    """Make sure that no result would overwrite an input.

    Raises
    ------
    ForeignDirectoryError
        If an input lies in the job directory under the name of a result, and the directory is not known to be ours.
    OutputError
        If it does and the directory is ours: it may get a marker.
    """
    directory = Path(os.path.realpath(options.directory))
    for option in ("in_parts", "in_mask", "in_3dref"):
        path: Path | None = getattr(options, option)
        if path is None:
            continue
        # The name that was given, and the file that it leads to if it is a link.
        for place in (Path(os.path.realpath(path.parent)) / path.name, Path(os.path.realpath(path))):
            if place.parent == directory and place.name in ALL_RESULTS:
                raise _refusal(
                    options.directory,
                    f"--{option} {path} lies in the directory for the results, --o {options.directory}, and would be "
                    "overwritten: nothing was; name another directory as --o",
                )


def _refusal(directory: Path, message: str) -> OutputError:
    """Return the error that leaves a marker in a directory of ours and nothing in another's."""
    return OutputError(message) if is_own_directory(directory) else ForeignDirectoryError(message)


def _is_external(job_type: str) -> bool:
    return job_type == _EXTERNAL_NUMBER or job_type.startswith(_EXTERNAL_LABEL)


def _job_type(job_star: Path) -> str | None:
    """Return the job's type as RELION left it in job.star: a number in 3.1, a label in 4 and 5; None if unknown."""
    try:
        found = _JOB_TYPE.search(job_star.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _is_file_or_link(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()
