"""What a run would be and what it would take: ``gem-external check``, and the head of every run's log."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gem_plugin.errors import ResourceError
from gem_plugin.image_checks import table_sentences
from gem_plugin.reconstruct import plan
from relion_external.inputs import Inputs, read_inputs
from relion_external.optimiser import resolve_optimiser
from relion_external.options import JobOptions
from relion_external.startup import within_processors

if TYPE_CHECKING:
    from gem_plugin.plan import Plan


def check(options: JobOptions) -> list[str]:
    """Read the inputs and say in lines what would be run. Writes nothing.

    Raises
    ------
    GemError
        As the run itself would at its start.
    """
    options, note = within_processors(options)
    options, refinement_files, told = resolve_optimiser(options)
    inputs = read_inputs(options, refinement_files)
    planned = _plan(options, inputs)
    lines = [note, *told] if note else told
    lines += [
        f"Particles: {options.particle_table}, {len(inputs.particles)} images",
        *inputs.particles.notes,
        *planned.lines(),
        *(f"warning: {sentence}" for sentence in table_sentences(inputs.particles)),
    ]
    if options.output is not None:
        lines.append(f"Results would be written to {options.output}/")
        require_disk(options.output, planned.disk_bytes)
    require_scratch(options.scratch, planned.scratch_bytes)
    return [*lines, "Nothing was written. Leave out 'check' to run it."]


def look_ahead(options: JobOptions, inputs: Inputs) -> tuple[list[str], bool]:
    """Say in lines what is about to be run, and whether the disk has room for checkpoints, too.

    Raises
    ------
    ResourceError
        If the results would not fit on the disk, or the images not into the scratch folder.
    """
    planned = _plan(options, inputs)
    table_sentences(inputs.particles)  # the run itself tells them, after it has refused what cannot be
    require_disk(options.directory, planned.disk_bytes)
    require_scratch(options.scratch, planned.scratch_bytes)
    lines = [*inputs.particles.notes, *planned.lines()]
    has_room = _free_bytes(options.directory) >= planned.disk_bytes + planned.checkpoint_bytes
    if not has_room:
        lines.append("The disk has no room for checkpoints beside the results: a run that ends early would begin anew.")
    return lines, has_room


def require_disk(directory: Path, needed_bytes: float) -> None:
    """Make sure that the disk under `directory`, which need not exist yet, has room.

    Raises
    ------
    ResourceError
        If it has not.
    """
    free = _free_bytes(directory)
    if free < needed_bytes:
        raise ResourceError(
            f"the disk under {directory} has {_size(free)} free and the results take about {_size(needed_bytes)}: "
            "make room or choose another --o"
        )


def require_scratch(folder: Path | None, needed_bytes: float) -> None:
    """Make sure that the scratch folder is there, can be written and has room.

    Raises
    ------
    ResourceError
        If not.
    """
    if folder is None:
        return
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ResourceError(f"--scratch {folder} is no folder in which you may write: name another, or none")
    free = _free_bytes(folder)
    if free < needed_bytes:
        raise ResourceError(
            f"the disk under --scratch {folder} has {_size(free)} free and the images of a half set, for which there is"
            f" not enough memory, take about {_size(needed_bytes)}: make room, or choose another folder"
        )


def _free_bytes(folder: Path) -> float:
    """Of the disk under a folder, which need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return float(shutil.disk_usage(existing).free)


def _plan(options: JobOptions, inputs: Inputs) -> "Plan":
    return plan(inputs.particles, options.reconstruction_config(), n_threads=options.n_threads)


def _size(n_bytes: float) -> str:
    """Return a size in words: ``85 MB``, ``2.4 GB``."""
    if n_bytes < 1e6:
        return "less than 1 MB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{round(n_bytes / 1e6)} MB"
