"""Simulated RELION projects with a known truth: particles made by relion_project, plus white noise.

``python benchmarks/simulate.py MODEL_OR_MAP OUTDIR`` writes ``truth.mrc``, ``particles.mrcs`` and ``particles.star``.
Poses are uniform over the sphere, in-plane shifts normal with 2 px, defoci 0.8-2.2 um with 300 A astigmatism, 300 kV;
the noise is white, of unit variance, and the signal is scaled to the asked ratio of variances. Half sets alternate.
"""

import argparse
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from poses import Poses, draw_poses
from score import load_map, save_map

VOLTAGE_KV = 300.0
SPHERICAL_ABERRATION_MM = 2.7
AMPLITUDE_CONTRAST = 0.1
ATOMIC_B_FACTOR = 60.0
STACK = "particles.mrcs"
IMAGES_PER_BATCH = 256

OPTICS_COLUMNS = (
    "OpticsGroupName",
    "OpticsGroup",
    "Voltage",
    "SphericalAberration",
    "AmplitudeContrast",
    "ImagePixelSize",
    "ImageSize",
    "ImageDimensionality",
)
PARTICLE_COLUMNS = (
    "ImageName",
    "AngleRot",
    "AngleTilt",
    "AnglePsi",
    "OriginXAngst",
    "OriginYAngst",
    "DefocusU",
    "DefocusV",
    "DefocusAngle",
    "OpticsGroup",
    "RandomSubset",
    "MicrographName",
    "GroupNumber",
)


@dataclass(frozen=True)
class SimulatedProject:
    """Where a simulated project lies; paths in it are relative to `directory`."""

    directory: Path
    table: Path
    truth: Path


def map_of_model(
    path: Path, box_size_px: int, pixel_size_in_angstroms: float, *, keep_origin: bool = False
) -> NDArray[np.float32]:
    """Compute the electron-scattering map [z, y, x] of an atomic model.

    The mean of its atoms lies at the box centre, or its own origin does.
    """
    import gemmi  # a test dependency: needed for atomic models only

    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    structure.remove_waters()
    structure.remove_alternative_conformations()
    model = structure[0]
    atoms = [site.atom for site in model.all()]
    positions = np.array([atom.pos.tolist() for atom in atoms])
    edge = box_size_px * pixel_size_in_angstroms
    shift = edge / 2 - (0.0 if keep_origin else positions.mean(axis=0))
    if np.abs(positions + shift - edge / 2).max() > edge / 2 - 8 * pixel_size_in_angstroms:
        raise SystemExit(f"{path}: the model does not fit into a box of {edge:.0f} A")
    for atom, position in zip(atoms, positions + shift, strict=True):
        atom.pos = gemmi.Position(*position)
        atom.b_iso = ATOMIC_B_FACTOR
        atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    structure.cell = gemmi.UnitCell(edge, edge, edge, 90, 90, 90)
    structure.spacegroup_hm = "P1"
    density = gemmi.DensityCalculatorE()
    density.d_min = 2 * pixel_size_in_angstroms
    density.rate = 1.0
    density.set_grid_cell_and_spacegroup(structure)
    density.grid.set_size(box_size_px, box_size_px, box_size_px)
    density.put_model_density_on_grid(model)
    return np.ascontiguousarray(np.array(density.grid, copy=True).astype(np.float32).transpose(2, 1, 0))


def fourier_crop(volume: NDArray[np.floating], box_size_px: int) -> NDArray[np.float32]:
    """Resample a map onto a smaller even box of the same edge length; sums along a ray are kept per pixel area.

    The map's values are scaled so that the density at a point stays the same; the caller's pixel size grows by the
    ratio of the boxes.
    """
    n = volume.shape[0]
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume)))
    low = n // 2 - box_size_px // 2
    window = slice(low, low + box_size_px)
    cropped = spectrum[window, window, window] * (box_size_px / n) ** 3
    cropped[0], cropped[:, 0], cropped[:, :, 0] = 0, 0, 0  # the Nyquist planes have lost their mates
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(cropped)).real).astype(np.float32)


def write_table(path: Path, pixel_size_in_angstroms: float, box_size_px: int, poses: Poses) -> None:
    """Write a RELION 3.1 particle table; half sets alternate."""
    with path.open("w") as file:
        for block, labels in (("optics", OPTICS_COLUMNS), ("particles", PARTICLE_COLUMNS)):
            file.write(f"\n# version 30001\n\ndata_{block}\n\nloop_\n")
            file.writelines(f"_rln{label} #{i}\n" for i, label in enumerate(labels, start=1))
            if block == "optics":
                file.write(
                    f"opticsGroup1 1 {VOLTAGE_KV} {SPHERICAL_ABERRATION_MM} {AMPLITUDE_CONTRAST:.4f} "
                    f"{pixel_size_in_angstroms} {box_size_px} 2\n"
                )
        for i, row in enumerate(zip(*astuple(poses), strict=True)):
            rot, tilt, psi, x, y, defocus_u, defocus_v, angle = row
            file.write(
                f"{i + 1:06d}@{STACK} {rot:.4f} {tilt:.4f} {psi:.4f} {x:.4f} {y:.4f} {defocus_u:.2f} "
                f"{defocus_v:.2f} {angle:.3f} 1 {i % 2 + 1} mic{i // 50:03d}.mrc {i // 50 + 1}\n"
            )


def project_images(
    truth: Path, poses: Poses, directory: Path, pixel_size_in_angstroms: float, box_size_px: int, *, ctf: bool = True
) -> Path:
    """Project a map without noise with relion_project; return the stack, which appears when it is complete."""
    stack = directory / "clean.mrcs"
    if stack.exists():
        return stack
    directory.mkdir(parents=True, exist_ok=True)
    table = directory / "projected.star"
    write_table(table, pixel_size_in_angstroms, box_size_px, poses)
    command = ["relion_project", "--i", str(truth.resolve()), "--o", "projecting", "--ang", table.name]
    command += ["--angpix", str(pixel_size_in_angstroms), *(["--ctf"] if ctf else [])]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    (directory / "projecting.star").unlink(missing_ok=True)
    (directory / "projecting.mrcs").rename(stack)
    return stack


def add_noise(clean: Path, noisy: Path, signal_to_noise: float, random: np.random.Generator) -> None:
    """Write a stack with white noise of unit variance; the images are scaled to the ratio of variances, 0: none."""
    with mrcfile.open(clean, permissive=True) as source:
        images = np.asarray(source.data)
        noise_sd = images.std() / np.sqrt(signal_to_noise or 1.0)
        with mrcfile.new_mmap(noisy, images.shape, mrc_mode=2, overwrite=True) as target:
            target.voxel_size = source.voxel_size
            for start in range(0, len(images), IMAGES_PER_BATCH):
                batch = slice(start, start + IMAGES_PER_BATCH)
                signal = images[batch] if signal_to_noise else np.zeros_like(images[batch])
                target.data[batch] = (signal + random.normal(0, noise_sd, signal.shape)) / noise_sd


def simulate(
    truth: NDArray[np.float32],
    pixel_size_in_angstroms: float,
    directory: Path,
    *,
    n_particles: int,
    signal_to_noise: float,
    seed: int,
) -> SimulatedProject:
    """Make a project in `directory`, or find it there if it was finished before.

    The order of the random draws is fixed: one seed means the same poses, shifts, CTFs and noise at every
    signal-to-noise ratio (a ratio of variances before whitening; 0 makes pure noise).
    """
    project = SimulatedProject(directory, directory / "particles.star", directory / "truth.mrc")
    if project.table.exists():
        return project
    directory.mkdir(parents=True, exist_ok=True)
    save_map(project.truth, truth, pixel_size_in_angstroms)
    random = np.random.default_rng(seed)
    poses = draw_poses(random, n_particles, pixel_size_in_angstroms)
    clean = project_images(project.truth, poses, directory, pixel_size_in_angstroms, truth.shape[0])
    add_noise(clean, directory / STACK, signal_to_noise, random)
    clean.unlink()
    # last: its presence says that the project is complete
    write_table(project.table, pixel_size_in_angstroms, truth.shape[0], poses)
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_or_map", type=Path, help="a map (.mrc) or an atomic model (.cif, .pdb; may be gzipped)")
    parser.add_argument("directory", type=Path, help="where the project is made")
    parser.add_argument("--box", type=int, default=96, help="box size in pixels, of an atomic model (96)")
    parser.add_argument("--pixel-size", type=float, default=1.5, help="Angstrom, of an atomic model (1.5)")
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--snr", type=float, default=0.015, help="signal to noise, a ratio of variances (0.015)")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    pixel_size = arguments.pixel_size
    if arguments.model_or_map.suffix in (".mrc", ".map"):
        volume, pixel_size = load_map(arguments.model_or_map)
        truth = volume.astype(np.float32)
    else:
        truth = map_of_model(arguments.model_or_map, arguments.box, pixel_size)
    simulate(
        truth,
        pixel_size,
        arguments.directory,
        n_particles=arguments.particles,
        signal_to_noise=arguments.snr,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
