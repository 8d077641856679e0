"""Particle tables of any origin -> the optics table and the particle table of RELION 3.1."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gem_plugin.errors import InputError
from gem_plugin.io.columns import COLUMNS, canonical_name
from gem_plugin.io.cryosparc import read_cryosparc
from gem_plugin.io.optics_table import PIXEL_SIZE_COLUMNS, group_numbers
from gem_plugin.io.relion30 import MAX_OPTICS_GROUPS, convert_relion30, distinct_rows, lengths_to_angstroms
from gem_plugin.io.star import StarTable, read_tables

# Where a particle's own value wins over its group's, and RELION keeps one value a group (src/ctf.cpp).
OWN_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
DEFAULTS = {
    "rlnOriginXAngst": "0",
    "rlnOriginYAngst": "0",
    "rlnDefocusV": "rlnDefocusU",
    "rlnDefocusAngle": "0",
    "rlnPhaseShift": "0",
    "rlnCtfBfactor": "0",
    "rlnCtfScalefactor": "1",
    "rlnAmplitudeContrast": "0",
}
HARMLESS = {"rlnIsFlip": 0.0, "rlnMagnificationCorrection": 1.0}  # another value asks for what is not done


@dataclass(frozen=True)
class ParticleTables:
    """What a particle file says, in the form of RELION 3.1, 4 and 5."""

    optics: StarTable
    particles: StarTable
    notes: tuple[str, ...]  # sentences for the user: what was converted, and what was taken for granted


def read_particle_tables(path: Path) -> ParticleTables:
    """Read particles of any RELION, or of cryoSPARC.

    Parameters
    ----------
    path
        STAR file of RELION 1 to 5 or of a program that writes such files, or cryoSPARC's ``.cs``.

    Raises
    ------
    InputError
        If the file holds no particles, or what it says is incomplete or contradicts itself.
    """
    notes = []
    if path.suffix.lower() == ".cs":
        optics, particles, converted = read_cryosparc(path)
    else:
        tables, changed = _in_canonical_case(read_tables(path))
        if changed:
            notes.append(f"{path}: column names read in RELION's spelling: {', '.join(changed)}.")
        optics, particles, converted = _optics_and_particles(path, tables)
    notes += converted
    _refuse_other_requests(particles)
    particles, lengths = _with_lengths_in_angstroms(optics, particles)
    particles, numbered = _with_optics_group(optics, particles)
    optics, particles, split = _split_groups(optics, particles)
    notes += [*lengths, *numbered, *split, *_defaults(optics, particles), *_unused(optics, particles)]
    return ParticleTables(optics, particles, tuple(notes))


def select_first(particles: StarTable, max_particles: int) -> tuple[StarTable, list[str]]:
    """Keep the first particles of a table, with a sentence that says so; 0 keeps all."""
    if max_particles == 0 or max_particles >= len(particles):
        return particles, []
    note = f"The first {max_particles} of {len(particles)} particles are used (--max_particles)."
    return StarTable(particles.path, particles.name, particles.frame.iloc[:max_particles]), [note]


def _in_canonical_case(tables: dict[str, StarTable]) -> tuple[dict[str, StarTable], list[str]]:
    """Rename columns that differ from RELION's labels in upper and lower case only."""
    changed: dict[str, None] = {}
    renamed = {}
    for name, table in tables.items():
        labels = [canonical_name(label) for label in table.frame.columns]
        changed |= {new: None for old, new in zip(table.frame.columns, labels, strict=True) if new != old}
        if len(set(labels)) != len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise InputError(f"{table.path}: data_{name} has the column {twice} twice; expected once.")
        renamed[name] = StarTable(table.path, name, table.frame.set_axis(labels, axis=1))
    return renamed, list(changed)


def _optics_and_particles(path: Path, tables: dict[str, StarTable]) -> tuple[StarTable, StarTable, list[str]]:
    if "optics" in tables and "particles" in tables:
        optics, particles = tables["optics"], tables["particles"]
        _check_rows(particles)
        _check_rows(_rows_in_use(optics, particles))
        return optics, particles, []
    with_images = [table for table in tables.values() if "rlnImageName" in table]
    if "optics" not in tables and len(with_images) == 1:
        _check_rows(with_images[0])
        return convert_relion30(with_images[0])
    found = ", ".join([f"data_{name}" for name in tables][:3] + ["..."] * (len(tables) > 3)) or "no table"
    raise InputError(
        f"{path} is not a particle table: expected data_optics and data_particles, found {found}. "
        "Give e.g. the run_data.star of a Refine3D job."
    )


def _rows_in_use(optics: StarTable, particles: StarTable) -> StarTable:
    """The rows of data_optics that particles use; what is wrong with the others does no harm."""
    if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in particles:
        return optics
    is_used = np.isin(group_numbers(optics), np.unique(particles.integers("rlnOpticsGroup")))
    return optics.select(is_used) if is_used.any() else optics


def _check_rows(table: StarTable) -> None:
    if not len(table):
        raise InputError(f"{table.path} holds no particles: data_{table.name} is empty.")
    table.check_rows_are_whole()


def _refuse_other_requests(particles: StarTable) -> None:
    """Refuse what would make another map and is not done here."""
    if "rlnReconstructImageName" in particles:
        names = particles.frame["rlnReconstructImageName"]
        if not (names == particles.frame.get("rlnImageName", names)).all():
            raise InputError(
                f"{particles.path} names other images for the reconstruction than for the refinement "
                "(rlnReconstructImageName), which is not supported. Take that column out, or put it in the place of "
                "rlnImageName."
            )
    if "rlnCtfImage" in particles:
        raise InputError(
            f"{particles.path} gives transfer functions as images (rlnCtfImage), as for subtomograms, which is not "
            "supported. Give 2D single particles, e.g. the run_data.star of a Refine3D job."
        )
    for column, harmless in HARMLESS.items():
        if column in particles:
            values = particles.numbers(column)
            is_other = values != harmless
            if is_other.any():
                row = int(np.flatnonzero(is_other)[0])
                raise InputError(
                    f"{particles.path}: {column} is {values[row]:g} in {particles.row_name(row)}, which is not "
                    f"supported; expected {harmless:g}."
                )


def _with_lengths_in_angstroms(optics: StarTable, particles: StarTable) -> tuple[StarTable, list[str]]:
    """Convert shifts in pixels, which some programs leave beside a data_optics."""
    in_pixels = [column for column in ("rlnOriginX", "rlnOriginY") if column in particles]
    wanted = [column for column in in_pixels if f"{column}Angst" not in particles]
    if not wanted:
        return particles, []
    column = next((column for column in PIXEL_SIZE_COLUMNS if column in optics), None)
    if column is None:
        raise InputError(f"{optics.path} has no pixel size in data_optics; expected {PIXEL_SIZE_COLUMNS[0]}.")
    if "rlnOpticsGroup" in particles and "rlnOpticsGroup" in optics:
        used = _rows_in_use(optics, particles)
        size_of_group = dict(zip(group_numbers(used), used.numbers(column), strict=True))
        groups = particles.integers("rlnOpticsGroup")
        unknown = sorted(set(groups.tolist()) - set(size_of_group))
        if unknown:
            raise InputError(f"{optics.path}: data_optics has no row for rlnOpticsGroup {unknown[0]}; expected one.")
        sizes = pd.Series(groups).map(size_of_group).to_numpy(np.float64)
    else:
        sizes = np.full(len(particles), optics.numbers(column)[0])
    table, names = lengths_to_angstroms(particles, sizes)
    return table, [f"{particles.path} gives {', '.join(names)} in pixels; converted to Angstrom with {column}."]


def _with_optics_group(optics: StarTable, particles: StarTable) -> tuple[StarTable, list[str]]:
    """Give the particles the number of the only group, where they have none."""
    if "rlnOpticsGroup" in particles or len(optics) != 1 or "rlnOpticsGroup" not in optics:
        return particles, []
    number = str(optics.texts("rlnOpticsGroup")[0])
    frame = particles.frame.assign(rlnOpticsGroup=number)
    note = f"{particles.path} has no rlnOpticsGroup in data_particles; all taken to be of group {number}, the only one."
    return StarTable(particles.path, particles.name, frame), [note]


def _split_groups(optics: StarTable, particles: StarTable) -> tuple[StarTable, StarTable, list[str]]:
    """Make optics groups of one voltage, spherical aberration and amplitude contrast each.

    The particles' own values win. The commonest use of a group's number stays with its first particle.
    """
    own = [column for column in OWN_OPTICS if column in particles]
    if not own or "rlnOpticsGroup" not in particles or "rlnOpticsGroup" not in optics:
        return optics, particles, []
    groups = particles.integers("rlnOpticsGroup")
    values = {column: particles.numbers(column) for column in own}
    part_of_row, first_rows = distinct_rows([groups.astype(np.float64), *values.values()])
    group_of_part = groups[first_rows]
    if len(np.unique(group_of_part)) == len(group_of_part):
        return optics, particles, []
    if len(first_rows) > MAX_OPTICS_GROUPS:
        raise InputError(
            f"{particles.path} would have {len(first_rows)} optics groups, as {', '.join(own)} change from particle to "
            f"particle; expected {MAX_OPTICS_GROUPS} at most."
        )
    known = group_numbers(optics)
    following = int(np.nanmax([*known, *group_of_part])) + 1
    number_of_part = group_of_part.copy()
    rows = [optics.frame]
    for part, group in enumerate(group_of_part):
        row = np.flatnonzero(known == group)
        if part == np.flatnonzero(group_of_part == group)[0] or len(row) != 1:
            continue
        number_of_part[part] = following
        new = optics.frame.iloc[row].assign(rlnOpticsGroup=str(following))
        if "rlnOpticsGroupName" in optics:
            new = new.assign(rlnOpticsGroupName=f"{new['rlnOpticsGroupName'].iloc[0]}_{following}")
        rows.append(new)
        following += 1
    frame = particles.frame.assign(rlnOpticsGroup=number_of_part[part_of_row].astype(str))
    note = (
        f"{particles.path}: {' and '.join(own)} differ among the particles of one optics group, so "
        f"{len(np.unique(groups))} groups became {len(number_of_part)}."
    )
    all_rows = StarTable(optics.path, optics.name, pd.concat(rows, ignore_index=True))
    return all_rows, StarTable(particles.path, particles.name, frame), [note]


def _defaults(optics: StarTable, particles: StarTable) -> list[str]:
    """Say which absent columns take RELION's defaults."""
    absent = [column for column in DEFAULTS if column not in particles and column not in optics]
    if not absent:
        return []
    taken = ", ".join(f"{column} ({DEFAULTS[column]})" for column in absent)
    return [f"{particles.path} does not have these columns, for which RELION's defaults were taken: {taken}."]


def _unused(optics: StarTable, particles: StarTable) -> list[str]:
    """Say which columns might have been meant to change the map, and do not."""
    notes = []
    for table in (optics, particles):
        for label in table.frame.columns:
            if label not in COLUMNS:
                notes.append(f"{table.path}: column {label} of data_{table.name} is not known and not used.")
    for label in particles.frame.columns:
        column = COLUMNS.get(label)
        if (
            column is not None
            and column.place == "optics"
            and column.treatment == "used"
            and _differs(label, optics, particles)
        ):
            notes.append(
                f"{particles.path}: column {label} of data_particles is not used: like RELION, this program takes it "
                "from data_optics."
            )
    return notes


def _differs(label: str, optics: StarTable, particles: StarTable) -> bool:
    """Whether a column of the particles says anything else than data_optics, as far as one can see at a glance."""
    return label not in optics or set(particles.frame[label].unique()) != set(optics.frame[label].unique())
