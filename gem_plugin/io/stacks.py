"""From image names to files: which image of which stack, and that it is there."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.stack_files import open_stack
from gem_plugin.io.star import StarTable

FORMAT_SUFFIX = ":mrcs"


@dataclass(frozen=True)
class ImageLocations:
    """Where the images of a table lie. Per-particle arrays are in table order."""

    stack_paths: tuple[Path, ...]
    stack_of_particle: NDArray[np.int32]  # [n]
    image_in_stack: NDArray[np.int64]  # [n] 0-based
    box_size_of_stack: NDArray[np.int64]  # [stacks]


def locate_images(
    table: StarTable,
    project_directory: Path,
    box_size_px: NDArray[np.int64] | None = None,
    group_of_particle: NDArray[np.int64] | None = None,
) -> ImageLocations:
    """Find every image of `table` and check the headers of the stacks.

    Parameters
    ----------
    table
        Particles with rlnImageName: ``000012@Extract/job003/x.mrcs``, 1-based, relative to the
        project directory; absolute names are taken as they are.
    project_directory
        The directory in which RELION runs.
    box_size_px
        [n] rlnImageSize of each particle's optics group, 0 where the table does not tell.
    group_of_particle
        [n] rlnOpticsGroup of each particle; None: all are of one.

    Raises
    ------
    InputError
        If a name is malformed, a stack is missing or damaged, an index is out of range, images are
        not square, or their box is not the same throughout an optics group.
    """
    names, image_numbers = _split_names(table)
    name_of_particle, unique_names = pd.factorize(names, sort=True)
    paths = [project_directory / _file_name(name) for name in unique_names]
    # Two names may lead to one file; the same image must be recognised as the same.
    _, path_of_stack, stack_of_name = np.unique(
        [os.path.realpath(path) for path in paths], return_index=True, return_inverse=True
    )
    stack_paths = [paths[index] for index in path_of_stack]
    stack_of_particle = stack_of_name[name_of_particle].astype(np.int32)
    first_row = np.unique(stack_of_particle, return_index=True)[1]
    shapes = [_checked_shape(path, table, int(row)) for path, row in zip(stack_paths, first_row, strict=True)]
    boxes, n_images = np.array(shapes, np.int64).T
    groups = np.ones(len(table), np.int64) if group_of_particle is None else group_of_particle
    _check_boxes(table, stack_paths, boxes[stack_of_particle], stack_of_particle, groups, box_size_px)
    is_outside = (image_numbers < 1) | (image_numbers > n_images[stack_of_particle])
    if is_outside.any():
        row = int(np.flatnonzero(is_outside)[0])
        stack = stack_of_particle[row]
        raise InputError(
            f"{table.path}: {table.row_name(row)} asks for image {image_numbers[row]} of {stack_paths[stack]}, which "
            f"holds images 1 to {n_images[stack]}. The stack may be truncated or made again since."
        )
    return ImageLocations(
        stack_paths=tuple(stack_paths),
        stack_of_particle=stack_of_particle,
        image_in_stack=image_numbers - 1,
        box_size_of_stack=boxes,
    )


def _split_names(table: StarTable) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Stack name and 1-based image number of every particle; a name without @ is a file of one image."""
    names = np.empty(len(table), object)
    numbers = np.ones(len(table), np.int64)
    for row, text in enumerate(table.texts("rlnImageName")):
        number, at, name = str(text).partition("@")
        if not at:
            number, name = "1", number
        if not (number.isascii() and number.isdigit() and len(number) < 16 and name):
            raise InputError(
                f"{table.path}: rlnImageName is {text} in {table.row_name(row)}; "
                "expected a number, @ and the name of a stack, as in 000012@Extract/job003/x.mrcs."
            )
        names[row] = name
        numbers[row] = int(number)
    return names, numbers


def _file_name(name: str) -> str:
    """The name without RELION's suffix that says how to read a file, as in x.mrc:mrcs."""
    return name[: -len(FORMAT_SUFFIX)] if name.endswith(FORMAT_SUFFIX) else name


def _checked_shape(path: Path, table: StarTable, row: int) -> tuple[int, int]:
    """Box size and number of images of a stack."""
    if not os.path.exists(path):  # unlike Path.exists, False also where a folder may not be entered
        raise InputError(
            f"{path} does not exist or cannot be reached, but {table.path} needs it for {table.row_name(row)}. "
            "Image names are relative to the RELION project directory: run from there."
        )
    if not os.path.isfile(path):  # a pipe would be waited for, a device read without an end
        raise InputError(f"{path} is no file, but {table.path} names it as the stack of {table.row_name(row)}.")
    file = open_stack(path)
    file.close()
    if file.n_columns != file.n_rows:
        raise InputError(
            f"{path} holds images of {file.n_columns} x {file.n_rows} pixels; expected square images. "
            "Extract the particles again."
        )
    return file.n_columns, file.n_images


def _check_boxes(
    table: StarTable,
    stack_paths: list[Path],
    box_of_particle: NDArray[np.int64],
    stack_of_particle: NDArray[np.int32],
    group_of_particle: NDArray[np.int64],
    told_box_px: NDArray[np.int64] | None,
) -> None:
    """Refuse images that are not of the size that the table tells, or not of one size in an optics group."""
    if told_box_px is not None:
        is_other = (told_box_px > 0) & (told_box_px != box_of_particle)
        if is_other.any():
            row = int(np.flatnonzero(is_other)[0])
            box = box_of_particle[row]
            raise InputError(
                f"{stack_paths[stack_of_particle[row]]} holds images of {box} x {box} pixels, but data_optics of "
                f"{table.path} says rlnImageSize {told_box_px[row]}. The table does not belong to these stacks."
            )
    groups, first_row, group_index = np.unique(group_of_particle, return_index=True, return_inverse=True)
    is_other = box_of_particle != box_of_particle[first_row][group_index]
    if is_other.any():
        row = int(np.flatnonzero(is_other)[0])
        first = int(first_row[group_index[row]])
        raise InputError(
            f"{stack_paths[stack_of_particle[row]]} holds images of {box_of_particle[row]} pixels and "
            f"{stack_paths[stack_of_particle[first]]} of {box_of_particle[first]}, both of optics group "
            f"{groups[group_index[row]]}; expected one box size a group. Extract the particles again with one box."
        )
