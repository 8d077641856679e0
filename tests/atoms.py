"""Pseudo-atoms on a map, both read by gemmi, which knows nothing of this program."""

from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray


def read_atoms(path: Path) -> list[gemmi.Atom]:
    """All atoms of assembly 1, the asymmetric unit first."""
    structure = gemmi.read_structure(str(path))
    (assembly,) = structure.assemblies
    whole = gemmi.make_assembly(assembly, structure[0], gemmi.HowToNameCopiedChain.AddNumber)
    return [atom for chain in whole for residue in chain for atom in residue]


def density_at(
    atoms: list[gemmi.Atom], map_path: Path, step_in_angstroms: tuple[float, float, float] = (0, 0, 0)
) -> NDArray[np.float64]:
    """Density of an MRC file at each atom, or a step (x, y, z) away from it."""
    step = gemmi.Position(*step_in_angstroms)
    grid = gemmi.read_ccp4_map(str(map_path), setup=True).grid
    return np.array([grid.interpolate_value(atom.pos + step, order=3) for atom in atoms])


def steps(length: float) -> list[tuple[float, float, float]]:
    """A step along each axis, both ways."""
    return [tuple(sign * length * np.eye(3)[axis]) for axis in range(3) for sign in (1, -1)]  # type: ignore[misc]
