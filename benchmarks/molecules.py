"""What is simulated: four molecules of known structure, each with a truth as it is and one with solvent around it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from score import MASK_BLUR_PX, MASK_THRESHOLD, load_map, save_map
from simulate import map_of_model

PIXEL_SIZE_IN_ANGSTROMS = 1.5
SOLVENT_SHARE = 0.05  # of the mean density of the molecule
SOLVENT_BLUR_IN_ANGSTROMS = 6.0  # standard deviation


@dataclass(frozen=True)
class Molecule:
    """A molecule, its box and its point group in RELION's orientation."""

    name: str
    title: str
    model: str  # in the data folder
    box_size_px: int
    symmetry: str = "C1"

    @property
    def keeps_origin(self) -> bool:
        """Whether the model's origin is its symmetry centre."""
        return self.symmetry != "C1"

    def plain_truth(self, data: Path, scratch: Path) -> NDArray[np.float32]:
        """Return the map [z, y, x]; that of a symmetric molecule is averaged over its group by RELION."""
        path = data / self.model
        if path.suffix == ".mrc":
            return load_map(path)[0].astype(np.float32)
        truth = map_of_model(path, self.box_size_px, PIXEL_SIZE_IN_ANGSTROMS, keep_origin=self.keeps_origin)
        return truth if self.symmetry == "C1" else symmetrised(truth, self.symmetry, scratch)


MOLECULES = (
    Molecule("cxcr4", "CXCR4 complex (PDB 8ZPM)", "models/cxcr4_C1_96px_1.5A.mrc", 96),
    Molecule("30S", "30S ribosomal subunit (PDB 1XNR)", "models/1xnr_30S_asymmetric.cif.gz", 160),
    Molecule("5a1a", "beta-galactosidase (PDB 5A1A)", "models/5a1a_pose_frame_D2.cif.gz", 144, "D2"),
    Molecule("3c91", "20S proteasome (PDB 3C91)", "models/3c91_20S_proteasome_D7.pdb.gz", 128, "D7"),
)
BY_NAME = {molecule.name: molecule for molecule in MOLECULES}


def symmetrised(volume: NDArray[np.float32], symmetry: str, scratch: Path) -> NDArray[np.float32]:
    """Average a map over a point group with relion_image_handler."""
    scratch.mkdir(parents=True, exist_ok=True)
    plain, averaged = scratch / "plain.mrc", scratch / "averaged.mrc"
    save_map(plain, volume, PIXEL_SIZE_IN_ANGSTROMS)
    command = ["relion_image_handler", "--i", str(plain), "--o", str(averaged), "--sym", symmetry]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load_map(averaged)[0].astype(np.float32)


def with_solvent(volume: NDArray[np.floating], pixel_size_in_angstroms: float) -> NDArray[np.float32]:
    """Return the density above its solvent, which is negative in places: where a positive model cannot follow.

    The molecule is where the map, blurred by 2 px, is above 5 % of its maximum, as in the scoring mask. Solvent of
    5 % of the molecule's mean density fills an envelope of it, blurred by 6 A, and is subtracted.
    """
    blurred = gaussian_filter(volume.astype(np.float64), MASK_BLUR_PX)
    inside = blurred > MASK_THRESHOLD * blurred.max()
    envelope = gaussian_filter(inside.astype(np.float64), SOLVENT_BLUR_IN_ANGSTROMS / pixel_size_in_angstroms)
    return np.asarray(volume - SOLVENT_SHARE * volume[inside].mean() * envelope, dtype=np.float32)
