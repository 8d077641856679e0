"""Gaussians as an mmCIF file of pseudo-atoms, which molecular viewers open on top of the map.

One atom a Gaussian, in the order of the .npz file. Its position is in the frame of our MRC maps, where voxel
(0, 0, 0) is the origin: voxel index times pixel size. Its displacement tensor U is the Gaussian's covariance, B is
8 pi^2 times the mean of U's diagonal, and its occupancy the amplitude over the largest amplitude. The atoms are those
of one asymmetric unit; assembly 1 holds the operators that make the whole map.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.atomic import replacing
from gem_plugin.symmetry import point_group

Floats = NDArray[np.float64]

# The component UNX of the Chemical Component Dictionary is one atom of unknown kind. Each Gaussian is a residue of its
# own, so that no viewer draws bonds between neighbours.
_ATOM_COLUMNS = """loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
"""
_TENSOR = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_TENSOR_COLUMNS = "loop_\n_atom_site_anisotrop.id\n_atom_site_anisotrop.type_symbol\n" + "".join(
    f"_atom_site_anisotrop.U[{i + 1}][{j + 1}]\n" for i, j in _TENSOR
)


def save_mmcif(path: Path, gaussians: Gaussians, *, box_size_px: int, pixel_size_in_angstroms: float) -> None:
    """Write Gaussians as pseudo-atoms; the file appears whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = mmcif_text(gaussians, box_size_px=box_size_px, pixel_size_in_angstroms=pixel_size_in_angstroms)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def mmcif_text(gaussians: Gaussians, *, box_size_px: int, pixel_size_in_angstroms: float) -> str:
    """The text of the mmCIF file."""
    pixel = pixel_size_in_angstroms
    centre = (box_size_px // 2) * pixel
    positions = gaussians.centres_px.astype(np.float64) * pixel + centre
    tensors = covariances_px2(gaussians) * pixel**2
    b_factors = 8 * np.pi**2 * np.trace(tensors, axis1=1, axis2=2) / 3
    largest = float(np.abs(gaussians.amplitudes).max(initial=0.0)) or 1.0
    occupancies = gaussians.amplitudes.astype(np.float64) / largest
    numbers = np.arange(1, len(gaussians) + 1)
    atom = "HETATM %d X UNK . UNX A 1 . ? %.3f %.3f %.3f %.5f %.2f %d A 1"
    atoms = _rows(atom, [numbers, *positions.T, occupancies, b_factors, numbers])
    ellipsoid = "%d X " + " ".join(["%.4f"] * len(_TENSOR))
    ellipsoids = _rows(ellipsoid, [numbers, *(tensors[:, row, column] for row, column in _TENSOR)])
    return (
        "data_gaussians\n#\n_entry.id gaussians\n#\n"
        "_entity.id 1\n_entity.type non-polymer\n_entity.pdbx_description 'Gaussians of a cryo-EM map'\n#\n"
        + _assembly_text(point_group(gaussians.symmetry).operators, centre)
        + "\n".join([_ATOM_COLUMNS + atoms, "#", _TENSOR_COLUMNS + ellipsoids, "#", ""])
    )


def _rows(form: str, columns: list[NDArray[Any]]) -> str:
    """One line a row of some columns of one length, without the last line's end."""
    return "\n".join(map(form.__mod__, zip(*(column.tolist() for column in columns), strict=True)))


def covariances_px2(gaussians: Gaussians) -> Floats:
    """S = Q diag(s^2) Q^T of each Gaussian, [N, 3, 3] on x, y, z."""
    if not len(gaussians):
        return np.empty((0, 3, 3))
    axes = Rotation.from_quat(gaussians.quaternions[:, [1, 2, 3, 0]].astype(np.float64)).as_matrix()
    variances = np.exp(2 * gaussians.log_scales.astype(np.float64))
    return np.asarray(np.einsum("nij,nj,nkj->nik", axes, variances, axes))


def _assembly_text(operators: Floats, centre_in_angstroms: float) -> str:
    """The whole map as copies of the atoms, by operators about the box centre."""
    centre = np.full(3, centre_in_angstroms)
    rows = []
    for number, operator in enumerate(operators, start=1):
        values = np.column_stack([operator, centre - operator @ centre]).ravel().round(8) + 0.0  # no minus zero
        rows.append(f"{number} 'point symmetry operation' " + " ".join(f"{value:.8f}" for value in values))
    columns = [f"matrix[{i}][{j}]" if j < 4 else f"vector[{i}]" for i in (1, 2, 3) for j in (1, 2, 3, 4)]
    names = "".join(f"_pdbx_struct_oper_list.{column}\n" for column in ("id", "type", *columns))
    listed = "1" if len(operators) == 1 else f"1-{len(operators)}"
    return (
        "_pdbx_struct_assembly.id 1\n_pdbx_struct_assembly.details author_defined_assembly\n"
        "_pdbx_struct_assembly.method_details ?\n_pdbx_struct_assembly.oligomeric_details ?\n"
        f"_pdbx_struct_assembly.oligomeric_count {len(operators)}\n#\n"
        "_pdbx_struct_assembly_gen.assembly_id 1\n"
        f"_pdbx_struct_assembly_gen.oper_expression '({listed})'\n"
        "_pdbx_struct_assembly_gen.asym_id_list A\n#\n"
        f"loop_\n{names}" + "\n".join(rows) + "\n#\n"
    )
