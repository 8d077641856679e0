"""RELION's reconstruction of the phantom's images must be the phantom: geometry, CTF, shifts and greyscale at once."""

import subprocess

import numpy as np
import pytest

from gem_plugin.conventions import shell_indices
from gem_plugin.io.maps import read_map
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import write_particles
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from relion_external.demo import with_tables, write_stack

pytestmark = pytest.mark.relion


def test_relion_reconstructs_the_phantom_from_its_noise_free_images(tmp_path):
    optics = OpticsGroup("opticsGroup1", 2.0, 48, 300.0, 2.7, 0.1)
    particles = random_particles(600, optics, 1)
    simulated = simulate_images(make_phantom(48, 1), particles, snr=None)
    write_stack(tmp_path / "particles.mrcs", simulated.images, 2.0)
    write_particles(
        with_tables(particles, (tmp_path / "particles.mrcs").relative_to(tmp_path)), tmp_path / "parts.star"
    )
    command = ["relion_reconstruct", "--i", "parts.star", "--o", "map.mrc", "--ctf", "--pad", "2", "--skip_gridding"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    transforms = [np.fft.rfftn(data).ravel() for data in (read_map(tmp_path / "map.mrc").data, simulated.truth)]
    shells = shell_indices(48).ravel()
    cross, theirs, ours = (
        np.bincount(shells, (a * b.conj()).real)[1:20] for a, b in (transforms, transforms[:1] * 2, transforms[1:] * 2)
    )
    assert (cross / np.sqrt(theirs * ours)).min() > 0.98
    assert cross.sum() / ours.sum() == pytest.approx(1.0, abs=0.02)
