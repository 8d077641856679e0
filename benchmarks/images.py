"""Noise-free images: made once for all cells that show the same particles, deleted when the last of them is done."""

import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from grid import POSE_ERRORS, Cell
from molecules import BY_NAME, PIXEL_SIZE_IN_ANGSTROMS, with_solvent
from poses import draw_poses, with_errors
from reference import Reference, blurred_reference, exact_reference
from score import Volume, load_map, mask_from_truth, save_map
from simulate import STACK, add_noise, project_images, write_table

ERRORS_STREAM = 1  # pose errors are drawn from a stream of their own: poses and noise are the same without them
REFERENCE_IMAGES = {"C1": 8000}
REFERENCE_IMAGES_SYMMETRIC = 4000  # each of them serves in all its symmetric poses


class ImageShop:
    """Truths, images and references of the grid, in one folder; safe to use from several threads."""

    def __init__(self, data: Path, directory: Path, cells: Iterable[Cell], n_reference_images: int | None) -> None:
        self._data = data
        self._directory = directory
        self._wanted = Counter(cell.images for cell in cells)
        self._n_reference_images = n_reference_images
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def truth(self, molecule: str, kind: str) -> Path:
        """Return one of a molecule's truths as a file."""
        path = self._directory / "truth" / f"{molecule}_{kind}.mrc"
        with self._locked(path.name):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                volume = BY_NAME[molecule].plain_truth(self._data, self._directory / "scratch" / path.stem)
                if kind == "solvent":
                    volume = with_solvent(volume, PIXEL_SIZE_IN_ANGSTROMS)
                part = path.with_suffix(".part.mrc")
                save_map(part, volume, PIXEL_SIZE_IN_ANGSTROMS)
                part.rename(path)
        return path

    def make_project(self, cell: Cell, directory: Path) -> Path:
        """Put the stack and the particle table of a cell into a project folder; return the table's name."""
        truth = self.truth(cell.molecule, cell.truth)
        box = BY_NAME[cell.molecule].box_size_px
        random = np.random.default_rng(cell.seed)
        poses = draw_poses(random, cell.n_particles, PIXEL_SIZE_IN_ANGSTROMS)
        images = self._images_directory(cell)
        with self._locked(images.name):
            clean = project_images(truth, poses, images, PIXEL_SIZE_IN_ANGSTROMS, box)
        directory.mkdir(parents=True, exist_ok=True)
        add_noise(clean, directory / STACK, cell.signal_to_noise, random)
        if cell.column == "errors":
            errors_random = np.random.default_rng([cell.seed, ERRORS_STREAM])
            poses = with_errors(poses, POSE_ERRORS, errors_random, PIXEL_SIZE_IN_ANGSTROMS)
        table = directory / "particles.star"
        write_table(table, PIXEL_SIZE_IN_ANGSTROMS, box, poses)
        return Path(table.name)

    def reference(self, cell: Cell) -> Reference:
        """Return what the cell's maps are compared with."""
        truth = self.truth(cell.molecule, cell.truth)
        if cell.column != "errors":
            return exact_reference(truth)
        symmetry = BY_NAME[cell.molecule].symmetry
        n_images = self._n_reference_images or REFERENCE_IMAGES.get(symmetry, REFERENCE_IMAGES_SYMMETRIC)
        directory = self._directory / "references" / f"{cell.molecule}_n{n_images}"
        with self._locked(f"reference {directory.name}"):
            return blurred_reference(truth, directory, POSE_ERRORS, n_images, symmetry)

    def scoring_mask(self, cell: Cell) -> Volume:
        """Return the mask under which a molecule is scored in every column: made from its truth without solvent."""
        return mask_from_truth(load_map(self.truth(cell.molecule, "plain"))[0])

    def release(self, cell: Cell) -> None:
        """Say that a cell is done with its images."""
        with self._lock:
            self._wanted[cell.images] -= 1
            is_last = self._wanted[cell.images] <= 0
        if is_last:
            shutil.rmtree(self._images_directory(cell), ignore_errors=True)

    def _images_directory(self, cell: Cell) -> Path:
        return self._directory / "images" / "_".join(str(part) for part in cell.images)

    def _locked(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks[name]
