"""The files of a job directory: what each holds, and how all appear at once.

Everything is written into a hidden folder inside the job directory and moved into place when the last file is
complete, so that a run that fails leaves the results of an earlier one as they were.
"""

import json
import os
from pathlib import Path

from gem_plugin.errors import OutputError
from gem_plugin.gaussians.mmcif import save_mmcif
from gem_plugin.gaussians.storage import save_gaussians
from gem_plugin.io.atomic import sync_file, sync_folder
from gem_plugin.io.maps import write_map
from gem_plugin.io.particles import Particles, write_particles
from gem_plugin.reconstruction import Map, Reconstruction
from gem_plugin.report import write_report
from relion_external import nodes
from relion_external.chimerax import chimerax_script
from relion_external.file_names import (
    ALL_RESULTS,
    CALIBRATED_HALF_MAPS,
    CHIMERAX,
    COMBINED_MAP,
    FSC,
    GAUSSIAN_HALF_MAPS,
    GAUSSIANS,
    GAUSSIANS_MMCIF,
    LOCAL_RESOLUTION,
    LOCALLY_FILTERED_MAP,
    MASK,
    MODEL_FREE_HALF_MAPS,
    NODES,
    PARTICLES,
    REPORT,
    RESIDUALS,
    SETTINGS,
    SHARPENED_MAP,
    UNFILTERED_MAP,
)
from relion_external.fsc_table import fsc_table
from relion_external.nodes import Node, NodeType, RelionVersion
from relion_external.residual_table import particle_columns, residual_table


def write_results(
    folder: Path,
    directory: Path,
    reconstruction: Reconstruction,
    particles: Particles,
    *,
    version: RelionVersion,
    settings: dict[str, object],
    command: str,
    mask_was_given: bool,
) -> None:
    """Write every result into `folder`, named and listed as it will stand in the job directory, and see it on disk.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    try:
        _write_maps(folder, reconstruction, mask_was_given=mask_was_given)
        _write_gaussians(folder, reconstruction)
        script = chimerax_script(reconstruction, mask_was_given=mask_was_given)
        (folder / CHIMERAX).write_text(script, encoding="ascii")
        (folder / FSC).write_text(fsc_table(reconstruction), encoding="ascii", errors="replace")
        (folder / RESIDUALS).write_text(residual_table(reconstruction), encoding="utf-8")
        write_particles(particles, folder / PARTICLES, particle_columns(reconstruction, len(particles)))
        title = f"gem-external: {directory.as_posix()}/"
        write_report(reconstruction, folder / REPORT, title=title, command=command)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        table = nodes.node_table(directory, _nodes(mask_was_given=mask_was_given), version)
        (folder / NODES).write_text(table, encoding="utf-8")
        for path in folder.iterdir():
            sync_file(path)
    except OSError as error:
        raise OutputError(_cannot_write(directory, error)) from error


def move_into_place(folder: Path, directory: Path, *, mask_was_given: bool) -> None:
    """Move complete results into the job directory and remove what this run did not make.

    The settings come first, because they make the directory ours, and the list of nodes last.

    Raises
    ------
    OutputError
        If a result cannot be moved; nothing is moved if one is missing or a directory stands where a file should go.
    """
    results = [name for name in ALL_RESULTS if not (mask_was_given and name == MASK)]
    names = sorted(results, key=lambda name: (name != SETTINGS, name == NODES))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OutputError(
            f"{folder / missing[0]} has gone since it was written: no result in {directory} was changed; see that no "
            "other program removes files there and run the job again"
        )
    blocked = [name for name in names if (directory / name).is_dir()]
    if blocked:
        raise OutputError(f"{directory / blocked[0]} is a directory where a result of that name belongs: move it away")
    try:
        for name in names:
            os.replace(folder / name, directory / name)
        if MASK not in names:
            (directory / MASK).unlink(missing_ok=True)
        sync_folder(directory)
    except OSError as error:
        raise OutputError(_cannot_write(directory, error)) from error


def _write_maps(folder: Path, reconstruction: Reconstruction, *, mask_was_given: bool) -> None:
    """Write all maps, each with a line in its header that says what it is good for."""
    combined = "GEM map, both halves, filtered by its cross-validated FSC, not sharpened"
    maps: list[tuple[str, Map, str]] = [(COMBINED_MAP, reconstruction.combined_map, combined)]
    viewing = reconstruction.viewing
    b_factor = viewing.sharpening.b_factor_in_angstroms2
    by = "not sharpened" if b_factor is None else f"B-factor {b_factor:.1f} A^2"
    maps += [
        (UNFILTERED_MAP, viewing.unfiltered, "GEM map, both halves, neither filtered nor sharpened"),
        (SHARPENED_MAP, viewing.sharpened, f"GEM map, both halves, filtered, {by}"),
        (LOCALLY_FILTERED_MAP, viewing.locally_filtered, "GEM map, both halves, filtered by its local FSC"),
        (LOCAL_RESOLUTION, viewing.local_resolution.in_angstroms, "GEM local resolution in Angstrom; 0: not stated"),
    ]
    for index, half in enumerate(reconstruction.halves):
        number = half.half_set
        calibrated = f"GEM calibrated pair {number}/2 for RELION tools; not independent: do not deposit"
        gaussian = f"GEM Gaussians of half {number}, pure; their half-map FSC is biased"
        model_free = f"GEM model-free half map {number}: the pair to deposit"
        maps += [
            (CALIBRATED_HALF_MAPS[index], reconstruction.calibrated_half_maps[index], calibrated),
            (GAUSSIAN_HALF_MAPS[index], half.gaussian_map, gaussian),
            (MODEL_FREE_HALF_MAPS[index], half.model_free_map, model_free),
        ]
    if not mask_was_given:
        maps.append((MASK, reconstruction.mask, "GEM soft mask in which the maps were compared"))
    for name, data, label in maps:
        write_map(folder / name, data, reconstruction.pixel_size_in_angstroms, label)


def _write_gaussians(folder: Path, reconstruction: Reconstruction) -> None:
    """Write each half's Gaussians twice: exactly, for programs, and as pseudo-atoms, for viewers."""
    box, pixel = reconstruction.box_size_px, reconstruction.pixel_size_in_angstroms
    for half, exact, atoms in zip(reconstruction.halves, GAUSSIANS, GAUSSIANS_MMCIF, strict=True):
        save_gaussians(folder / exact, half.gaussians, box_size_px=box, pixel_size_in_angstroms=pixel)
        save_mmcif(folder / atoms, half.gaussians, box_size_px=box, pixel_size_in_angstroms=pixel)


def _nodes(*, mask_was_given: bool) -> list[Node]:
    """Return what other jobs can pick in RELION's file browser."""
    listed = [Node(name, NodeType.HALF_MAP) for name in CALIBRATED_HALF_MAPS]
    listed += [
        Node(COMBINED_MAP, NodeType.MAP),
        Node(SHARPENED_MAP, NodeType.MAP),
        Node(UNFILTERED_MAP, NodeType.MAP),
        Node(LOCALLY_FILTERED_MAP, NodeType.MAP),
        Node(LOCAL_RESOLUTION, NodeType.LOCAL_RESOLUTION),
        Node(PARTICLES, NodeType.PARTICLES),
        Node(REPORT, NodeType.LOG),
    ]
    return listed if mask_was_given else [*listed, Node(MASK, NodeType.MASK)]


def _cannot_write(directory: Path, error: OSError) -> str:
    where = error.filename2 or error.filename or directory
    return (
        f"{where} cannot be written: {error.strerror or error}. Check that {directory} is a folder in which you may "
        "write and that the disk has space left"
    )
