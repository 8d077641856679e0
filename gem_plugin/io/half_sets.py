"""Which particle belongs to which half set, and that no image is in both."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.stacks import ImageLocations
from gem_plugin.io.star import StarTable

HALF_SET_COLUMN = "rlnRandomSubset"
LEAST_IN_HALF = 2  # particles, one for each quarter set


def read_half_sets(table: StarTable, seed: int) -> tuple[NDArray[np.int8], bool, list[str]]:
    """Half set of every particle, whether the table gave it, and a sentence where it did not.

    Raises
    ------
    InputError
        If a value is neither 1 nor 2, or a half set has fewer than two particles.
    """
    is_refined = HALF_SET_COLUMN in table
    half_set = _from_column(table) if is_refined else _split_by_name(table, seed)
    for number in (1, 2):
        count = int(np.sum(half_set == number))
        if count < LEAST_IN_HALF:
            raise InputError(
                f"{table.path} has {count or 'no'} particle in half set {number} "
                f"({HALF_SET_COLUMN} {number}) among the {len(table)} particles used; each half needs at least "
                f"{LEAST_IN_HALF}, one a quarter set. Look at --class and --max_particles, or give another table."
            )
    note = (
        f"{table.path} has no {HALF_SET_COLUMN}: the particles are split into halves here, at random by their images' "
        "names. Their poses were not refined in these halves, so no resolution will be claimed."
    )
    return half_set, is_refined, [] if is_refined else [note]


def _from_column(table: StarTable) -> NDArray[np.int8]:
    values = table.numbers(HALF_SET_COLUMN)
    is_bad = (values != 1) & (values != 2)
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise InputError(
            f"{table.path}: {HALF_SET_COLUMN} is {values[row]:g} in {table.row_name(row)}; expected 1 or 2. "
            "Give the run_data.star of a Refine3D job."
        )
    return values.astype(np.int8)


def _split_by_name(table: StarTable, seed: int) -> NDArray[np.int8]:
    """Split at random, evenly, by image name: the order of the rows does not matter.

    Every table of these images is split alike, so the halves of two runs can be compared.
    """
    names = table.texts("rlnImageName")
    digests = [hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest() for name in names]
    half_set = np.empty(len(table), np.int8)
    half_set[sorted(range(len(digests)), key=digests.__getitem__)] = 1 + np.arange(len(digests)) % 2
    return half_set


def check_images_are_distinct(table: StarTable, locations: ImageLocations, half_set: NDArray[np.int8]) -> None:
    """Refuse a table that uses an image twice.

    In both half sets, the halves would share noise and any resolution would be too good; within a
    half set, the image would count twice.

    Raises
    ------
    InputError
        Naming both rows.
    """
    order = np.lexsort((half_set, locations.image_in_stack, locations.stack_of_particle))
    stacks, images = locations.stack_of_particle[order], locations.image_in_stack[order]
    twice = np.flatnonzero((np.diff(stacks) == 0) & (np.diff(images) == 0))
    if not len(twice):
        return
    crosses = twice[half_set[order[twice]] != half_set[order[twice + 1]]]
    first = int((crosses if len(crosses) else twice)[0])
    rows = sorted((int(order[first]), int(order[first + 1])))
    where = "both half sets" if len(crosses) else f"half set {half_set[rows[0]]} twice"
    raise InputError(
        f"{table.path}: the same image is in {where}: {table.row_name(rows[0])} and {table.row_name(rows[1])}. "
        "Remove the duplicates, e.g. with relion_star_handler --remove_duplicates, and refine again."
    )
