"""What is said before the fit, and how loudly."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gem_plugin.config import ReconstructionConfig
from gem_plugin.image_checks import prepare_images
from gem_plugin.io.images import ImageReader
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.phantom import random_particles
from tests.unit.small_project import write_mrc

COUNT, BOX = 40, 32


class Said:
    """Keeps notes and warnings apart."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def stage(self, name: str, total: int, unit: str) -> None: ...

    def advance(self, done: int, **figures: float) -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def particles(tmp_path: Path) -> Particles:
    """Normalised noise, every particle on a micrograph of its own."""
    stack = tmp_path / "x.mrcs"
    write_mrc(stack, np.random.default_rng(0).normal(size=(COUNT, BOX, BOX)).astype(np.float32))
    found = random_particles(COUNT, OpticsGroup("one", 2.0, BOX, 300.0, 2.7, 0.1), seed=0)
    table = pd.DataFrame(
        {
            "rlnMicrographName": [f"{i}.mrc" for i in range(COUNT)],
            "rlnCoordinateX": ["100"] * COUNT,
            "rlnCoordinateY": ["100"] * COUNT,
            "rlnMicrographPixelSize": ["2.0"] * COUNT,
        }
    )
    return dataclasses.replace(found, table=table, stack_paths=(stack,), shifts_in_angstroms=np.zeros((COUNT, 2)))


def neighbours_at(particles: Particles, distance_px: int) -> Particles:
    """The first two, of different halves, on one micrograph."""
    table = particles.table.copy()
    table.loc[1, "rlnMicrographName"] = table.loc[0, "rlnMicrographName"]
    table.loc[1, "rlnCoordinateX"] = str(100 + distance_px)
    return dataclasses.replace(particles, table=table)


def test_good_images_pass_in_silence(particles: Particles) -> None:
    said = Said()
    assert prepare_images(particles, ReconstructionConfig(), 25.0, said) is particles
    assert (said.notes, said.warnings) == ([], [])


def test_neighbours_are_noted_and_copies_warned_of(particles: Particles) -> None:
    said = Said()
    prepare_images(neighbours_at(particles, 15), ReconstructionConfig(), 25.0, said)
    assert (len(said.notes), len(said.warnings)) == (1, 0)
    assert "2 of 40 particles" in said.notes[0]
    prepare_images(neighbours_at(particles, 1), ReconstructionConfig(), 25.0, said)
    assert (len(said.notes), len(said.warnings)) == (1, 1)
    assert "picked twice" in said.warnings[0]


@pytest.mark.parametrize("invert", [None, False, True])
def test_the_option_turns_the_images_over_and_nothing_else_does(particles: Particles, invert: bool | None) -> None:
    prepared = prepare_images(particles, ReconstructionConfig(invert_contrast=invert), 25.0, Said())
    with ImageReader(particles) as before, ImageReader(prepared) as after:
        rows = np.array([3, 1])
        np.testing.assert_array_equal(after.read(rows), (-1 if invert else 1) * before.read(rows))
