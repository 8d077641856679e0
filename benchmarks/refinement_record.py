"""Whether what a refinement wrote beside its particles makes better maps: scales of groups, norms of images, noise.

``python benchmarks/refinement_record.py DATA`` needs the RELION project ``refine3d_313`` in the folder DATA. It makes
the map without Gaussians of each half set with and without each of them, and prints the mean FSC to the truth under
the project's mask, and how the model's noise compares with that measured outside the particle.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from score import load_map

from gem_plugin.conventions import half_plane
from gem_plugin.dataset import stream
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles, read_particles
from gem_plugin.io.star import read_tables
from gem_plugin.model_free import solve_model_free
from gem_plugin.monitor import SilentMonitor
from gem_plugin.noise import measure_noise_of_groups
from gem_plugin.normal_equations import Accumulator

RADIUS_IN_ANGSTROMS = 115.0
Spectrum = NDArray[np.float64]


def model_noise(path: Path, box_size_px: int) -> Spectrum:
    """Mean over the groups of a model, as the power of a Fourier coefficient; RELION keeps that of its real part."""
    tables = [table for name, table in read_tables(path).items() if "rlnSigma2Noise" in table and name[-1].isdigit()]
    return np.asarray(np.mean([table.numbers("rlnSigma2Noise") for table in tables], axis=0) * 2 * box_size_px**4)


def measured_noise(particles: Particles, half_set: int) -> Spectrum:
    """As the job measures it."""
    radius_px = RADIUS_IN_ANGSTROMS / particles.optics.pixel_size_in_angstroms
    indices, seed = np.flatnonzero(particles.half_set == half_set), np.random.SeedSequence(0)
    with ImageReader(particles) as reader:
        return measure_noise_of_groups(particles, reader, indices, radius_px, seed, SilentMonitor())[0].power


def half_map(particles: Particles, half_set: int, noise: Spectrum) -> NDArray[np.floating]:
    """The map without Gaussians."""
    plane = half_plane(particles.optics.box_size_px, particles.optics.box_size_px / 2 - 0.5)
    accumulator = Accumulator(plane, noise[plane.shell].astype(np.float32), 1)
    with ImageReader(particles) as reader:
        for batch in stream(particles, reader, np.flatnonzero(particles.half_set == half_set), (plane,), 500):
            accumulator.add(batch)
    radius_px = RADIUS_IN_ANGSTROMS / particles.optics.pixel_size_in_angstroms
    return solve_model_free(accumulator.finish(), radius_px, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the project")
    project = parser.parse_args().data / "refine3d_313"
    truth, mask = (load_map(project / name)[0] for name in ("truth.mrc", "MaskCreate/job006/mask.mrc"))
    everything = read_particles(project / "Refine3D/job005/run_data.star", project_directory=project)
    of_model = model_noise(project / "Refine3D/job005/run_model.star", everything.optics.box_size_px)
    nothing = replace(everything, group_scale=None, norm_factor=None)
    ratio = of_model[1:] / measured_noise(nothing, 1)[1 : len(of_model)]
    print(f"the model's noise is {ratio.min():.2f} to {ratio.max():.2f} of that outside the particle\n")
    print("mean FSC to the truth  half 1   half 2")
    for name, particles in (
        ("as the table says", nothing),
        ("group scales", replace(everything, norm_factor=None)),
        ("norm corrections", replace(everything, group_scale=None)),
        ("both", everything),
    ):
        for noise_name in ("measured", "model's"):
            fscs = []
            for half_set in (1, 2):
                noise = of_model if noise_name == "model's" else measured_noise(particles, half_set)
                found = half_map(particles, half_set, noise)
                fscs.append(fourier_shell_correlation(truth * mask, found * mask)[1:].mean())
            print(f"{fscs[0]:29.4f} {fscs[1]:8.4f}  {name}, {noise_name} noise", flush=True)


if __name__ == "__main__":
    main()
