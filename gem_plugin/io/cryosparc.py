"""Particles of a cryoSPARC refinement -> the tables of RELION 3.1.

What the fields mean was taken from cryoSPARC's forum and from public converters (pyem's csparc2star,
cryosparc-tools). The pose is a rotation vector; the matrix that turns it into an image, `A` of
docs/conventions.md, is the transpose of that rotation. The shift is in pixels of
``alignments3D/psize_A`` and has RELION's sign. Indices count from 0.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gem_plugin.errors import InputError
from gem_plugin.io.cs_file import Fields, read_cs
from gem_plugin.io.relion30 import distinct_rows
from gem_plugin.io.star import StarTable

NEEDED = (
    "blob/path", "blob/idx", "blob/psize_A", "blob/shape", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast",
    "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "alignments3D/pose", "alignments3D/shift",
)  # fmt: skip
# Global CTF Refinement's terms. How cryoSPARC scales and signs them is not documented.
ABERRATIONS = ("ctf/shift_A", "ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A")


def read_cryosparc(path: Path) -> tuple[StarTable, StarTable, list[str]]:
    """Read ``cryosparc_P1_J12_particles.cs`` or the like, with its passthrough.

    Returns
    -------
    optics, particles, notes
        Tables as RELION 3.1 has them, stacks by absolute names, and what the user should know.

    Raises
    ------
    InputError
        If the file is no particle file, lacks poses, images or CTFs, or has aberrations that cannot be converted.
    """
    fields, passthroughs = read_cs(path)
    _check_fields(path, fields)
    notes = [f"{path} is a particle file of cryoSPARC, read as RELION would have it."]
    if passthroughs:
        notes.append(f"Fields that it lacks were taken from {', '.join(map(str, passthroughs))}.")
    group_of_row, first_rows, optics = _optics(fields)
    scale, told = _scale(path, fields)
    pixel_size = _numbers(fields, "alignments3D/psize_A" if "alignments3D/psize_A" in fields else "blob/psize_A")
    shifts = _numbers(fields, "alignments3D/shift") * pixel_size[:, None]
    angles = euler_angles_deg(_numbers(fields, "alignments3D/pose"))
    columns: dict[str, NDArray[np.generic] | list[str]] = {
        "rlnImageName": _image_names(path, fields),
        "rlnOpticsGroup": (group_of_row + 1).astype(str),
        **{f"rlnAngle{name}": _texts(angles[:, axis]) for axis, name in enumerate(("Rot", "Tilt", "Psi"))},
        **{f"rlnOrigin{name}Angst": _texts(shifts[:, axis]) for axis, name in enumerate("XY")},
        "rlnDefocusU": _texts(_numbers(fields, "ctf/df1_A")),
        "rlnDefocusV": _texts(_numbers(fields, "ctf/df2_A")),
        "rlnDefocusAngle": _texts(np.rad2deg(_numbers(fields, "ctf/df_angle_rad"))),
        "rlnCtfScalefactor": _texts(scale),
    }
    if "ctf/phase_shift_rad" in fields:
        columns["rlnPhaseShift"] = _texts(np.rad2deg(_numbers(fields, "ctf/phase_shift_rad")))
    if "ctf/bfactor" in fields:
        columns["rlnCtfBfactor"] = _texts(_numbers(fields, "ctf/bfactor"))
    for name, label in (("alignments3D/split", "rlnRandomSubset"), ("alignments3D/class", "rlnClassNumber")):
        if name in fields:
            columns[label] = (fields[name].astype(np.int64) + 1).astype(str)
    if "alignments3D/split" in fields and len(np.unique(fields["alignments3D/split"])) == 1:
        del columns["rlnRandomSubset"]
        notes.append(f"{path} puts all particles into one half set, so they count as not split.")
    columns |= _places(fields)
    frame = pd.DataFrame(columns).astype("str")
    return StarTable(path, "optics", optics), StarTable(path, "particles", frame), [*notes, *told]


def euler_angles_deg(rotation_vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert cryoSPARC's poses to RELION's.

    Parameters
    ----------
    rotation_vectors
        [n, 3] axis times angle in radians.

    Returns
    -------
    angles
        [n, 3] rlnAngleRot, Tilt, Psi, tilt from 0 to 180.
    """
    a = (
        Rotation.from_rotvec(rotation_vectors).as_matrix().transpose(0, 2, 1)
    )  # docs/conventions.md: rows are x, y, view
    sine = np.hypot(a[:, 2, 0], a[:, 2, 1])
    is_pole = sine < 1e-6  # only rot + psi, or psi - rot, is defined there: all goes to psi
    tilt = np.arctan2(sine, a[:, 2, 2])
    rot = np.where(is_pole, 0, np.arctan2(a[:, 2, 1], a[:, 2, 0]))
    psi = np.where(is_pole, np.arctan2(a[:, 0, 1], a[:, 1, 1]), np.arctan2(a[:, 1, 2], -a[:, 0, 2]))
    angles: NDArray[np.float64] = np.rad2deg(np.stack([rot, tilt, psi], axis=1))
    return angles


def _check_fields(path: Path, fields: Fields) -> None:
    absent = [name for name in NEEDED if name not in fields]
    if absent:
        raise InputError(
            f"{path} lacks {', '.join(absent)}, and no passthrough file beside it has them. Give the particles of a "
            "finished cryoSPARC refinement, with its passthrough_particles.cs in the same folder."
        )
    n_particles = len(fields["blob/idx"])
    if not n_particles:
        raise InputError(f"{path} holds no particles.")
    for name, values in fields.items():
        if (
            np.issubdtype(values.dtype, np.floating)
            and name in {*NEEDED, *ABERRATIONS}
            and not np.isfinite(values).all()
        ):
            row = int(np.flatnonzero(~np.isfinite(values.reshape(n_particles, -1)).all(axis=1))[0])
            stack = _text(fields["blob/path"][row]).removeprefix(">")
            raise InputError(
                f"{path}: {name} has values that are no finite numbers, first of particle {row + 1} (image "
                f"{fields['blob/idx'][row] + 1} of {stack}). Take those particles out."
            )
    for name, width in (("alignments3D/pose", 3), ("alignments3D/shift", 2), ("blob/shape", 2)):
        if fields[name].shape != (n_particles, width):
            raise InputError(f"{path}: {name} has the shape {fields[name].shape}; expected {(n_particles, width)}.")
    if np.any(fields["blob/shape"][:, 0] != fields["blob/shape"][:, 1]):
        raise InputError(f"{path} has images that are not square. Extract the particles again.")
    asked = [name for name in ABERRATIONS if name in fields and np.any(fields[name] != 0)]
    if "ctf/anisomag" in fields and not _is_plain_magnification(fields["ctf/anisomag"]):
        asked.append("ctf/anisomag")
    if asked:
        raise InputError(
            f"{path} holds aberrations of Global CTF Refinement ({', '.join(asked)}), which cannot be converted to "
            "RELION's. Refine without them in cryoSPARC, or refine them with RELION's CtfRefine and give its table."
        )
    if "filament/filament_uid" in fields and np.any(fields["filament/filament_uid"] != 0):
        raise InputError(
            f"{path} holds helical segments (filament/filament_uid), which are not supported. Give single particles."
        )


def _is_plain_magnification(matrix: NDArray[np.generic]) -> bool:
    """Whether the matrix says nothing: programs write zeros or the unit matrix for that."""
    return bool(np.all(matrix == 0)) or bool(np.all(matrix == np.array([1, 0, 0, 1])))


def _numbers(fields: Fields, name: str) -> NDArray[np.float64]:
    return np.asarray(fields[name], dtype=np.float64)


def _texts(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _optics(fields: Fields) -> tuple[NDArray[np.int64], NDArray[np.int64], pd.DataFrame]:
    """Make an optics group of each exposure group, and of each setting within it."""
    exposure = (
        _numbers(fields, "ctf/exp_group_id") if "ctf/exp_group_id" in fields else np.zeros(len(fields["blob/idx"]))
    )
    columns = {
        "rlnVoltage": _numbers(fields, "ctf/accel_kv"),
        "rlnSphericalAberration": _numbers(fields, "ctf/cs_mm"),
        "rlnAmplitudeContrast": _numbers(fields, "ctf/amp_contrast"),
        "rlnImagePixelSize": _numbers(fields, "blob/psize_A"),
        "rlnImageSize": _numbers(fields, "blob/shape")[:, 0],
    }
    group_of_row, first_rows = distinct_rows([exposure, *columns.values()])
    optics = {
        "rlnOpticsGroup": [str(number + 1) for number in range(len(first_rows))],
        "rlnOpticsGroupName": [f"exposureGroup{int(exposure[row])}" for row in first_rows],
        # in single precision in the file: the shortest decimal is what the user typed
        **{label: [str(np.float32(values[row])) for row in first_rows] for label, values in columns.items()},
        "rlnImageDimensionality": ["2"] * len(first_rows),
    }
    optics["rlnImageSize"] = [str(int(columns["rlnImageSize"][row])) for row in first_rows]
    return group_of_row, first_rows, pd.DataFrame(optics).astype("str")


def _scale(path: Path, fields: Fields) -> tuple[NDArray[np.float64], list[str]]:
    """Return the factor on the transfer function, with what it is made of: contrast sign and particle scale."""
    scale = np.ones(len(fields["blob/idx"]))
    notes = []
    if "blob/sign" in fields:
        sign = _numbers(fields, "blob/sign")
        if not np.all(np.abs(sign) == 1):
            raise InputError(f"{path}: blob/sign is {sign[np.abs(sign) != 1][0]:g} somewhere; expected 1 or -1.")
        if np.any(sign < 0):
            scale *= sign
            notes.append(f"{path} says that particles are dark (blob/sign -1): their contrast is inverted by the CTF.")
    if "alignments3D/alpha" in fields:
        alpha = _numbers(fields, "alignments3D/alpha")
        if np.all(np.isfinite(alpha) & (alpha > 0)):
            scale *= alpha
        else:
            notes.append(f"{path}: alignments3D/alpha, the particles' scales, is not positive everywhere and not used.")
    return scale, notes


def _image_names(path: Path, fields: Fields) -> list[str]:
    """Name images as RELION does, counting from 1, with absolute names of stacks."""
    codes, names = pd.factorize(fields["blob/path"].astype(object))
    stacks = [_text(name).removeprefix(">") for name in names]
    if any(not name.isprintable() or not name for name in stacks):
        bad = next(name for name in stacks if not name.isprintable() or not name)
        raise InputError(f"{path}: blob/path is {bad!r} somewhere; expected the name of a stack.")
    folder = _project_directory(path, stacks[0])
    absolute = [os.path.abspath(folder / name) for name in stacks]
    # RELION takes a .mrc file for a map unless its name says that it is a stack
    absolute = [f"{name}:mrcs" if name.endswith(".mrc") else name for name in absolute]
    numbers = fields["blob/idx"].astype(np.int64) + 1
    return [f"{number:06d}@{absolute[code]}" for number, code in zip(numbers, codes, strict=True)]


def _project_directory(path: Path, stack: str) -> Path:
    """Return the folder that stacks are relative to: the job's parent, unless they lie elsewhere."""
    candidates = (path.absolute().parent.parent, path.absolute().parent, Path.cwd())
    return next((folder for folder in candidates if (folder / stack).exists()), candidates[0])


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _places(fields: Fields) -> dict[str, list[str]]:
    """Return which micrograph a particle is from, and where, as far as neighbours go."""
    columns = {}
    if "location/micrograph_path" in fields:
        codes, names = pd.factorize(fields["location/micrograph_path"].astype(object))
        texts = [_text(name) or "unknown" for name in names]
        columns["rlnMicrographName"] = [texts[code] for code in codes]
    if {"location/center_x_frac", "location/center_y_frac", "location/micrograph_shape"} <= set(fields):
        rows_and_columns = _numbers(fields, "location/micrograph_shape")
        columns["rlnCoordinateX"] = _texts(_numbers(fields, "location/center_x_frac") * rows_and_columns[:, 1])
        columns["rlnCoordinateY"] = _texts(_numbers(fields, "location/center_y_frac") * rows_and_columns[:, 0])
    return columns
