"""What the job reads: particles, mask and reference, checked against each other before anything is computed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.maps import read_map
from gem_plugin.io.particles import Particles, read_particles
from gem_plugin.io.refinement_files import RefinementFiles
from relion_external.options import JobOptions

# A pixel size that is off by this much moves the edge of a 200 px box by half a pixel.
_PIXEL_SIZE_TOLERANCE = 0.005
_MASK_TOLERANCE = 1e-6  # as in relion_postprocess


@dataclass(frozen=True)
class Inputs:
    """The inputs of one job."""

    particles: Particles
    mask: NDArray[np.float32] | None  # [z, y, x], 0 to 1
    reference: NDArray[np.float32] | None  # [z, y, x]


def read_inputs(options: JobOptions, refinement_files: RefinementFiles | None = None) -> Inputs:
    """Read the particle table, the mask and the reference.

    Image names in the table are relative to the project directory, which is the current directory.

    Parameters
    ----------
    refinement_files : what an optimiser.star names; None for the files beside the table

    Raises
    ------
    InputError
        If one of them cannot be used, or does not fit the particles.
    """
    particles = read_particles(
        options.particle_table,
        class_number=options.class_number,
        max_particles=options.max_particles,
        project_directory=Path("."),
        refinement_files=refinement_files,
    )
    return Inputs(
        particles=particles,
        mask=None if options.in_mask is None else read_mask(options.in_mask, particles),
        reference=None if options.in_3dref is None else read_volume(options.in_3dref, "reference", particles),
    )


def read_mask(path: Path, particles: Particles) -> NDArray[np.float32]:
    """Read a mask of the particles' box.

    Raises
    ------
    InputError
        If it has another box or pixel size, values outside 0 to 1, or nothing inside.
    """
    mask = read_volume(path, "mask", particles)
    lowest, highest = float(mask.min()), float(mask.max())
    if lowest < -_MASK_TOLERANCE or highest > 1 + _MASK_TOLERANCE:
        raise InputError(
            f"the mask {path} has values from {lowest:.4g} to {highest:.4g}; expected 0 (solvent) to 1 (particle): "
            "make it with a MaskCreate job"
        )
    if highest < 0.5:
        raise InputError(f"the mask {path} is empty: its largest value is {highest:.4g}; lower its threshold")
    return np.clip(mask, 0, 1)


def read_volume(path: Path, what: str, particles: Particles) -> NDArray[np.float32]:
    """Read a map of the particles' box and pixel size; `what` is its name in messages.

    Raises
    ------
    InputError
        If it has another box or pixel size.
    """
    volume = read_map(path)
    optics = particles.optics
    box = optics.box_size_px
    if volume.data.shape != (box, box, box):
        found = " x ".join(str(length) for length in reversed(volume.data.shape))
        raise InputError(
            f"the {what} {path} has {found} voxels and the particles have a box of {box} pixels: give a {what} of the "
            f"same box (relion_image_handler --new_box {box})"
        )
    difference = abs(volume.pixel_size_in_angstroms / optics.pixel_size_in_angstroms - 1)
    if difference > _PIXEL_SIZE_TOLERANCE:
        wanted = f"{optics.pixel_size_in_angstroms:.4f}"
        raise InputError(
            f"the {what} {path} has a pixel size of {volume.pixel_size_in_angstroms:.4f} Angstrom and the particles "
            f"have {wanted}: give a {what} of the same pixel size (relion_image_handler --rescale_angpix {wanted} "
            f"--new_box {box}), or, if only its header is wrong, correct that (relion_image_handler "
            f"--force_header_angpix {wanted})"
        )
    return volume.data
