"""From image names to files: which image of which stack, and that it is there."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.mrc_header import MrcHeader, read_header
from gem_plugin.io.star import StarTable


@dataclass(frozen=True)
class ImageLocations:
    """Where the images of a table lie. Per-particle arrays are in table order."""

    stack_paths: tuple[Path, ...]
    stack_of_particle: NDArray[np.int32]  # [n]
    image_in_stack: NDArray[np.int64]  # [n] 0-based
    box_size_px: int


def locate_images(table: StarTable, project_directory: Path, box_size_px: int | None) -> ImageLocations:
    """Find every image of `table` and check the headers of the stacks.

    Parameters
    ----------
    table
        Particles with rlnImageName: ``000012@Extract/job003/x.mrcs``, 1-based, relative to the
        project directory; absolute names are taken as they are.
    project_directory
        The directory in which RELION runs.
    box_size_px
        rlnImageSize of the optics group, None where the table does not tell.

    Raises
    ------
    InputError
        If a name is malformed, a stack is missing or damaged, an index is out of range, or the
        box is odd, not square or not the same everywhere.
    """
    names, image_numbers = _split_names(table)
    unique_names, name_of_particle = np.unique(names, return_inverse=True)
    paths = [project_directory / name for name in unique_names]
    # Two names may lead to one file; the same image must be recognised as the same.
    real_paths, stack_of_name = np.unique([os.path.realpath(path) for path in paths], return_inverse=True)
    stack_of_particle = stack_of_name[name_of_particle]
    stack_paths = [paths[int(np.flatnonzero(stack_of_name == stack)[0])] for stack in range(len(real_paths))]
    headers = [
        _checked_header(path, table, int(np.flatnonzero(stack_of_particle == stack)[0]), box_size_px)
        for stack, path in enumerate(stack_paths)
    ]
    _check_one_box(headers)
    n_images = np.array([header.n_sections for header in headers])
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
        stack_of_particle=stack_of_particle.astype(np.int32),
        image_in_stack=image_numbers - 1,
        box_size_px=headers[0].n_columns,
    )


def _split_names(table: StarTable) -> tuple[list[str], NDArray[np.int64]]:
    """Stack name and 1-based image number of every particle; a name without @ is a file of one image."""
    names: list[str] = []
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
        names.append(name)
        numbers[row] = int(number)
    return names, numbers


def _checked_header(path: Path, table: StarTable, row: int, box_size_px: int | None) -> MrcHeader:
    if not os.path.exists(path):  # unlike Path.exists, False also where a folder may not be entered
        raise InputError(
            f"{path} does not exist or cannot be reached, but {table.path} needs it for {table.row_name(row)}. "
            "Image names are relative to the RELION project directory: run from there."
        )
    header = read_header(path)
    size = f"{header.n_columns} x {header.n_rows} pixels"
    if header.n_columns != header.n_rows:
        raise InputError(f"{path} holds images of {size}; expected square images. Extract the particles again.")
    if header.n_columns % 2:
        raise InputError(
            f"{path} holds images of {size}; an odd box is not supported. Extract the particles again with an even box."
        )
    if box_size_px is not None and header.n_columns != box_size_px:
        raise InputError(
            f"{path} holds images of {size}, but data_optics of {table.path} says rlnImageSize {box_size_px}. "
            "The table does not belong to these stacks."
        )
    return header


def _check_one_box(headers: list[MrcHeader]) -> None:
    for header in headers:
        if header.n_columns != headers[0].n_columns:
            raise InputError(
                f"{header.path} holds images of {header.n_columns} pixels and {headers[0].path} of "
                f"{headers[0].n_columns}; expected one box size. Extract the particles again with one box."
            )
