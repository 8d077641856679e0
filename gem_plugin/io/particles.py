"""Particle tables: RELION STAR -> `Particles`."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.image_repair import ImageRepair
from gem_plugin.io.half_sets import check_images_are_distinct, read_half_sets
from gem_plugin.io.model_star import read_refinement_record
from gem_plugin.io.mtf import DetectorResponse, read_detector_responses
from gem_plugin.io.optics_table import OpticsGroup, of_particle_or_group, read_optics_groups, told_boxes_px, used_rows
from gem_plugin.io.refinement_files import RefinementFiles
from gem_plugin.io.stack_files import FileStamp, file_stamp
from gem_plugin.io.stacks import locate_images
from gem_plugin.io.star import StarTable, write_tables
from gem_plugin.io.supported import refuse_other_kinds
from gem_plugin.io.tables import read_particle_tables, select_first
from gem_plugin.noise_substitution import NoiseSubstitution

CLASS_COLUMN = "rlnClassNumber"


@dataclass(frozen=True)
class Particles:
    """The particles of one job. All arrays are in table order, one entry a particle."""

    table: pd.DataFrame  # data_particles, every column as read: text
    optics_table: pd.DataFrame  # data_optics, every column as read: text
    optics_groups: tuple[OpticsGroup, ...]  # those that particles use
    group_of_particle: NDArray[np.int32]  # [n] index into optics_groups
    euler_angles_deg: NDArray[np.float64]  # [n, 3] rlnAngleRot, Tilt, Psi
    shifts_in_angstroms: NDArray[np.float64]  # [n, 2] rlnOriginX/YAngst: added to the image to centre it
    defocus_u_in_angstroms: NDArray[np.float64]  # [n] underfocus positive
    defocus_v_in_angstroms: NDArray[np.float64]  # [n]
    defocus_angle_deg: NDArray[np.float64]  # [n] from x towards +y of the array
    phase_shift_deg: NDArray[np.float64]  # [n]
    ctf_bfactor_in_angstroms2: NDArray[np.float64]  # [n]
    ctf_scale: NDArray[np.float64]  # [n]
    half_set: NDArray[np.int8]  # [n] 1 or 2
    half_sets_are_refined: bool  # False when the table had no rlnRandomSubset: no resolution is claimed
    stack_paths: tuple[Path, ...]  # the image stacks, as opened
    stack_of_particle: NDArray[np.int32]  # [n] index into stack_paths
    image_in_stack: NDArray[np.int64]  # [n] 0-based index in the stack
    noise_substitution: NoiseSubstitution | None = None  # of the images' phases, for a control; None: as they are
    notes: tuple[str, ...] = ()  # sentences for the user: what was converted, chosen or taken for granted
    image_repair: ImageRepair | None = None  # of the images as they are read; None: as they are
    detector_responses: tuple[DetectorResponse, ...] = ()  # MTF of each optics group, where they differ
    group_scale: NDArray[np.float64] | None = None  # [n] of the signal in each image; None: 1
    norm_factor: NDArray[np.float64] | None = None  # [n] what each image is multiplied by; None: 1
    stack_stamps: tuple[FileStamp, ...] = ()  # of each stack when the table was read; empty: any file will do

    def __len__(self) -> int:
        return len(self.half_set)

    @functools.cached_property
    def optics_group_of_the_map(self) -> OpticsGroup:
        """The group of the most particles, on whose pixels the map is made."""
        counts = np.bincount(self.group_of_particle, minlength=len(self.optics_groups))
        return self.optics_groups[int(np.argmax(counts))]

    @functools.cached_property
    def optics(self) -> OpticsGroup:
        """`optics_group_of_the_map` with the map's box, which is even."""
        group = self.optics_group_of_the_map
        return replace(group, box_size_px=group.box_size_px + group.box_size_px % 2)


def read_particles(
    path: Path,
    *,
    class_number: int = 0,
    max_particles: int = 0,
    project_directory: Path = Path("."),
    seed: int = 0,
    refinement_files: RefinementFiles | None = None,
) -> Particles:
    """Read a particle table, and check all that can be checked without reading an image.

    Parameters
    ----------
    path
        STAR file of any RELION, or a particle file of cryoSPARC: see `read_particle_tables`.
    class_number
        Use only particles with this rlnClassNumber; 0 takes the table's one class.
    max_particles
        Use only so many, the first of the table after the choice of class; 0 takes all.
    project_directory
        What image names are relative to.
    seed
        Of the split into halves, used only for a table without rlnRandomSubset. Leave it alone so
        that all runs on the same images share their halves.

    Raises
    ------
    InputError
        If the table, its stacks or a value cannot be used. Defaults for absent columns are RELION's:
        zero shifts, DefocusV = DefocusU, no phase shift, no B-factor, scale 1.
    """
    tables = read_particle_tables(path)
    optics, table = tables.optics, tables.particles
    table, selection = select_first(_select_class(table, class_number), max_particles)
    rows, group_of_particle = used_rows(table, optics)
    refuse_other_kinds(table, rows)
    locations = locate_images(
        table, project_directory, told_boxes_px(rows)[group_of_particle], group_of_particle.astype(np.int64)
    )
    half_set, is_refined, split = read_half_sets(table, seed)
    check_images_are_distinct(table, locations, half_set)
    first_of_group = np.unique(group_of_particle, return_index=True)[1]
    boxes_px = locations.box_size_of_stack[locations.stack_of_particle[first_of_group]]

    def parameter(column: str, default: float | NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return of_particle_or_group(table, rows, group_of_particle, column, default)

    defocus_u = parameter("rlnDefocusU")
    record = read_refinement_record(table, half_set, refinement_files)
    optics_groups = record.optics_groups(read_optics_groups(table, rows, group_of_particle, boxes_px))
    return Particles(
        table=table.frame.reset_index(drop=True),
        optics_table=_with_image_sizes(optics, rows, boxes_px),
        optics_groups=optics_groups,
        group_of_particle=group_of_particle,
        euler_angles_deg=_euler_angles_deg(table),
        shifts_in_angstroms=_shifts_in_angstroms(table),
        defocus_u_in_angstroms=defocus_u,
        defocus_v_in_angstroms=parameter("rlnDefocusV", defocus_u),
        defocus_angle_deg=parameter("rlnDefocusAngle", 0.0),
        phase_shift_deg=parameter("rlnPhaseShift", 0.0),
        ctf_bfactor_in_angstroms2=parameter("rlnCtfBfactor", 0.0),
        ctf_scale=parameter("rlnCtfScalefactor", 1.0),
        half_set=half_set,
        half_sets_are_refined=is_refined,
        stack_paths=locations.stack_paths,
        stack_stamps=tuple(map(file_stamp, locations.stack_paths)),
        stack_of_particle=locations.stack_of_particle,
        image_in_stack=locations.image_in_stack,
        detector_responses=read_detector_responses(optics_groups, project_directory),
        group_scale=record.group_scale,
        norm_factor=record.norm_factor,
        notes=(*tables.notes, *selection, *split, *record.notes),
    )


def write_particles(particles: Particles, path: Path, results: Mapping[str, NDArray[np.float64]] | None = None) -> None:
    """Write the particles in use with all their columns, digit by digit as read, for RELION 3.1, 4 and 5.

    A split that was made here is not written: the halves of a table are those of its refinement.

    Parameters
    ----------
    results
        Columns to add, or to replace: label -> [n], written with four decimals.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    columns = {label: [f"{value:.4f}" for value in values] for label, values in (results or {}).items()}
    write_tables(path, {"optics": particles.optics_table, "particles": particles.table.assign(**columns)})


def _with_image_sizes(optics: StarTable, rows: StarTable, boxes_px: NDArray[np.int64]) -> pd.DataFrame:
    """data_optics with the columns without which RELION does not take it, as `relion_convert_star` fills them.

    Groups that no particle uses get the first used one's box.
    """
    frame = optics.frame
    if "rlnImageSize" not in optics:
        sizes = pd.Series(int(boxes_px[0]), index=frame.index)
        sizes[rows.frame.index] = boxes_px
        frame = frame.assign(rlnImageSize=sizes.astype(str))
    if "rlnImageDimensionality" not in optics:
        frame = frame.assign(rlnImageDimensionality="2")
    return frame


def _select_class(table: StarTable, class_number: int) -> StarTable:
    """Particles of one class; a table of several classes without a choice would give a map of none of them."""
    if CLASS_COLUMN not in table:
        if class_number == 0:
            return table
        raise InputError(f"{table.path} has no column {CLASS_COLUMN}, so class {class_number} cannot be chosen.")
    classes = table.integers(CLASS_COLUMN)
    present, counts = np.unique(classes, return_counts=True)
    listing = ", ".join(f"{number} ({count} particles)" for number, count in zip(present, counts, strict=True))
    if class_number == 0:
        if len(present) > 1:
            raise InputError(f"{table.path} holds several classes: {listing}. Choose one with --class.")
        return table
    if class_number not in present:
        raise InputError(f"{table.path} has no particle of class {class_number}. It holds {listing}.")
    return table.select(classes == class_number)


def _euler_angles_deg(table: StarTable) -> NDArray[np.float64]:
    columns = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    for column in columns:
        if column not in table:
            raise InputError(
                f"{table.path} has no column {column} in data_particles: these particles have no poses. "
                "Give the run_data.star of a Refine3D job."
            )
    return np.stack([table.numbers(column) for column in columns], axis=1)


def _shifts_in_angstroms(table: StarTable) -> NDArray[np.float64]:
    columns = ("rlnOriginXAngst", "rlnOriginYAngst")
    return np.stack([table.numbers(column, default=0.0) for column in columns], axis=1)
