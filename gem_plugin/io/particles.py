"""Particle tables: RELION STAR -> `Particles`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.half_sets import check_images_are_distinct, read_half_sets
from gem_plugin.io.stacks import locate_images
from gem_plugin.io.star import StarTable, write_tables
from gem_plugin.io.supported import refuse_other_kinds, refuse_other_optics
from gem_plugin.io.tables import read_particle_tables
from gem_plugin.noise_substitution import NoiseSubstitution

PIXEL_SIZE_COLUMNS = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")  # first wins
CLASS_COLUMN = "rlnClassNumber"


@dataclass(frozen=True)
class OpticsGroup:
    """What the particles of one optics group share."""

    name: str
    pixel_size_in_angstroms: float
    box_size_px: int
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float


@dataclass(frozen=True)
class Particles:
    """The particles of one job. All arrays are in table order, one entry a particle."""

    table: pd.DataFrame  # data_particles, every column as read: text
    optics_table: pd.DataFrame  # data_optics, every column as read: text
    optics: OpticsGroup
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

    def __len__(self) -> int:
        return len(self.half_set)


def read_particles(
    path: Path, *, class_number: int = 0, project_directory: Path = Path("."), seed: int = 0
) -> Particles:
    """Read a particle table of RELION 3.1, 4 or 5, and check all that can be checked without reading an image.

    Parameters
    ----------
    path
        STAR file with data_optics and data_particles, in either order.
    class_number
        Use only particles with this rlnClassNumber; 0 takes the table's one class.
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
    optics, table = _read_tables(path)
    refuse_other_kinds(table, optics)
    table = _select_class(table, class_number)
    group = _used_optics_group(table, optics)
    refuse_other_optics(group)
    told_box_px = np.full(len(table), _box_size_px(group) or 0)  # 0: the table does not tell
    locations = locate_images(table, project_directory, told_box_px, table.integers("rlnOpticsGroup"))
    half_set, is_refined = read_half_sets(table, seed)
    check_images_are_distinct(table, locations, half_set)
    defocus_u = _of_particle_or_group(table, group, "rlnDefocusU")
    return Particles(
        table=table.frame.reset_index(drop=True),
        optics_table=optics.frame,
        optics=_optics_group(table, group, int(locations.box_size_of_stack[0])),
        euler_angles_deg=_euler_angles_deg(table),
        shifts_in_angstroms=_shifts_in_angstroms(table),
        defocus_u_in_angstroms=defocus_u,
        defocus_v_in_angstroms=_of_particle_or_group(table, group, "rlnDefocusV", defocus_u),
        defocus_angle_deg=_of_particle_or_group(table, group, "rlnDefocusAngle", 0.0),
        phase_shift_deg=_of_particle_or_group(table, group, "rlnPhaseShift", 0.0),
        ctf_bfactor_in_angstroms2=_of_particle_or_group(table, group, "rlnCtfBfactor", 0.0),
        ctf_scale=_of_particle_or_group(table, group, "rlnCtfScalefactor", 1.0),
        half_set=half_set,
        half_sets_are_refined=is_refined,
        stack_paths=locations.stack_paths,
        stack_of_particle=locations.stack_of_particle,
        image_in_stack=locations.image_in_stack,
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


def _read_tables(path: Path) -> tuple[StarTable, StarTable]:
    """The optics and the particle table."""
    tables = read_particle_tables(path)
    return tables.optics, tables.particles


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


def _used_optics_group(table: StarTable, optics: StarTable) -> StarTable:
    """The row of data_optics that the particles refer to."""
    used = np.unique(table.integers("rlnOpticsGroup"))
    numbers = optics.integers("rlnOpticsGroup")
    if len(used) > 1:
        raise InputError(
            f"{table.path} uses {len(used)} optics groups ({', '.join(map(str, used))}); one is supported until now. "
            "Select one, e.g. with relion_star_handler --select rlnOpticsGroup."
        )
    is_used = numbers == used[0]
    if np.count_nonzero(is_used) != 1:
        raise InputError(
            f"{table.path}: data_optics has {np.count_nonzero(is_used)} rows for rlnOpticsGroup {used[0]}, "
            "which the particles use; expected one."
        )
    return optics.select(is_used)


def _optics_group(table: StarTable, group: StarTable, box_size_px: int) -> OpticsGroup:
    pixel_size = _pixel_size_in_angstroms(group)
    voltage = _single_value(table, group, "rlnVoltage")
    amplitude_contrast = _single_value(table, group, "rlnAmplitudeContrast")
    for column, value, is_good, expected in (
        ("rlnVoltage", voltage, 1 <= voltage <= 10_000, "kilovolts, e.g. 300"),
        ("rlnAmplitudeContrast", amplitude_contrast, abs(amplitude_contrast) < 1, "a value between 0 and 1, e.g. 0.1"),
    ):
        if not is_good:
            raise InputError(f"{group.path}: {column} is {value:g}; expected {expected}.")
    return OpticsGroup(
        name=str(group.frame["rlnOpticsGroupName"].iloc[0]) if "rlnOpticsGroupName" in group else "opticsGroup1",
        pixel_size_in_angstroms=pixel_size,
        box_size_px=box_size_px,
        voltage_kv=voltage,
        spherical_aberration_mm=_single_value(table, group, "rlnSphericalAberration"),
        amplitude_contrast=amplitude_contrast,
    )


def _single_value(table: StarTable, group: StarTable, column: str) -> float:
    """A value of the optics group; the particles' own column wins, and must agree with itself."""
    if column not in table:
        return float(group.numbers(column)[0])
    values = np.unique(table.numbers(column))
    if len(values) > 1:
        raise InputError(
            f"{table.path}: {column} has {len(values)} values in data_particles, {values[0]:g} to {values[-1]:g}; "
            "one is supported until now. Give particles of one microscope setting."
        )
    return float(values[0])


def _of_particle_or_group(
    table: StarTable, group: StarTable, column: str, default: float | NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """A CTF parameter of every particle: its own column, else the optics group's, else `default`."""
    if column in table or (column not in group and default is None):
        return table.numbers(column)
    if column in group:
        return np.full(len(table), group.numbers(column)[0])
    return np.broadcast_to(np.asarray(default, np.float64), (len(table),)).copy()


def _pixel_size_in_angstroms(group: StarTable) -> float:
    for column in PIXEL_SIZE_COLUMNS:
        if column in group:
            pixel_size = float(group.numbers(column)[0])
            if not 0 < pixel_size < 1000:
                raise InputError(f"{group.path}: {column} is {pixel_size:g} in data_optics; expected Angstrom a pixel.")
            return pixel_size
    raise InputError(f"{group.path} has no pixel size in data_optics; expected {PIXEL_SIZE_COLUMNS[0]}.")


def _box_size_px(group: StarTable) -> int | None:
    return int(group.integers("rlnImageSize")[0]) if "rlnImageSize" in group else None


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
    for column in columns:
        in_pixels = column.removesuffix("Angst")
        if column not in table and in_pixels in table:
            raise InputError(
                f"{table.path} gives shifts in pixels ({in_pixels}), as RELION 3.0 did; expected {column}. "
                f"Convert the table with: relion_convert_star --i {table.path} --o converted.star"
            )
    return np.stack([table.numbers(column, default=0.0) for column in columns], axis=1)
