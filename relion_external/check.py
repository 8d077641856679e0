"""What a run would be and what it would take: ``gem-external check``, and the head of every run's log."""

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
    return [*lines, "Nothing was written. Leave out 'check' to run it."]


def look_ahead(options: JobOptions, inputs: Inputs) -> list[str]:
    """Say in lines what is about to be run.

    Raises
    ------
    ResourceError
        If the results would not fit on the disk.
    """
    planned = _plan(options, inputs)
    table_sentences(inputs.particles)  # the run itself tells them, after it has refused what cannot be
    require_disk(options.directory, planned.disk_bytes)
    return [*inputs.particles.notes, *planned.lines()]


def require_disk(directory: Path, needed_bytes: float) -> None:
    """Make sure that the disk under `directory`, which need not exist yet, has room.

    Raises
    ------
    ResourceError
        If it has not.
    """
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise ResourceError(
            f"the disk under {directory} has {_size(free)} free and the results take about {_size(needed_bytes)}: "
            "make room or choose another --o"
        )


def _plan(options: JobOptions, inputs: Inputs) -> "Plan":
    return plan(inputs.particles, options.reconstruction_config(), n_threads=options.n_threads)


def _size(n_bytes: float) -> str:
    """Return a size in words: ``85 MB``, ``2.4 GB``."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(1, round(n_bytes / 1e6))} MB"
