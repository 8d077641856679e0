"""Gaussians on disk: numpy's .npz, which holds arrays and can run no code."""

from pathlib import Path

import numpy as np

from gem_plugin.errors import InputError
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.atomic import replacing

FORMAT = 2


def save_gaussians(path: Path, gaussians: Gaussians, *, box_size_px: int, pixel_size_in_angstroms: float) -> None:
    """Write Gaussians with the grid that their pixels refer to; the file appears whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as temporary:
        np.savez(
            temporary,
            format=FORMAT,
            centres_px=gaussians.centres_px,
            log_scales=gaussians.log_scales,
            quaternions=gaussians.quaternions,
            amplitudes=gaussians.amplitudes,
            symmetry=gaussians.symmetry,
            box_size_px=box_size_px,
            pixel_size_in_angstroms=pixel_size_in_angstroms,
        )


def load_gaussians(path: Path) -> tuple[Gaussians, int, float]:
    """Read what `save_gaussians` wrote.

    Returns
    -------
    the Gaussians, the box size in pixels and the pixel size in Angstrom

    Raises
    ------
    InputError
        If the file is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) != FORMAT:
                found = int(arrays["format"])
                raise InputError(f"{path} has format {found}, expected {FORMAT}: was it made by a newer version?")
            gaussians = Gaussians(
                arrays["centres_px"],
                arrays["log_scales"],
                arrays["quaternions"],
                arrays["amplitudes"],
                str(arrays["symmetry"]),
            )
            return gaussians, int(arrays["box_size_px"]), float(arrays["pixel_size_in_angstroms"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} does not hold Gaussians written by this program: {error}") from error
