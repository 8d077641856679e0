"""Images that were multiplied by their CTF are told from those that were not, and only a contradiction is told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.conventions import half_plane
from gem_plugin.io.optics_table import CtfState, OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.optics import contrast_transfer
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.premultiplication import premultiplication_sentences
from tests.unit.small_project import write_mrc

BOX, COUNT = 48, 40


def images_of(tmp_path: Path, *, are_multiplied: bool, snr: float = 0.1) -> Particles:
    """Noisy images on disk, of which nothing is said."""
    particles = random_particles(COUNT, OpticsGroup("one", 1.7, BOX, 300.0, 2.7, 0.1), seed=1)
    images = simulate_images(make_phantom(BOX), particles, snr=snr, seed=2).images
    if are_multiplied:
        plane, spectra = half_plane(BOX, BOX), np.fft.rfft2(images)
        multiplied = np.zeros_like(spectra)
        ctf = contrast_transfer(particles, np.arange(COUNT), plane)
        multiplied[:, plane.ky, plane.kx] = spectra[:, plane.ky, plane.kx] * ctf
        images = np.fft.irfft2(multiplied, s=(BOX, BOX), axes=(1, 2)).astype(np.float32)
    write_mrc(tmp_path / "images.mrcs", images)
    return dataclasses.replace(particles, stack_paths=(tmp_path / "images.mrcs",))


def sentences(particles: Particles, state: CtfState) -> list[str]:
    group = dataclasses.replace(particles.optics_groups[0], ctf_state=state)
    return premultiplication_sentences(dataclasses.replace(particles, optics_groups=(group,)), seed=0)


def test_plain_images_are_told_only_if_they_are_said_to_be_multiplied(tmp_path: Path) -> None:
    particles = images_of(tmp_path, are_multiplied=False)
    for state in ("plain", "phase-flipped", "corrected"):
        assert sentences(particles, state) == []
    (found,) = sentences(particles, "premultiplied")
    assert "images of optics group one have 0.9" in found or "images of optics group one have 1.0" in found
    assert "do not look multiplied by their CTF, as rlnCtfDataAreCtfPremultiplied says" in found


@pytest.mark.parametrize("state", ["plain", "phase-flipped"])
def test_multiplied_images_are_told_only_if_nothing_is_said_of_it(tmp_path: Path, state: CtfState) -> None:
    particles = images_of(tmp_path, are_multiplied=True)
    assert sentences(particles, "premultiplied") == []
    (found,) = sentences(particles, state)
    assert "they look multiplied by their CTF; if they are, set rlnCtfDataAreCtfPremultiplied to 1" in found


def test_images_with_more_signal_than_noise_are_not_taken_for_multiplied_ones(tmp_path: Path) -> None:
    assert sentences(images_of(tmp_path, are_multiplied=False, snr=5), "plain") == []
