"""Neighbours of one micrograph in different halves, counted against all pairs one by one."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.neighbours import Neighbours, count_neighbours, neighbours_of, neighbours_sentence
from gem_plugin.phantom import random_particles

OPTICS = OpticsGroup("one", 4.0, 32, 300.0, 2.7, 0.1)


def brute_force(micrograph: np.ndarray, position: np.ndarray, half: np.ndarray, diameter: float) -> tuple[int, int]:
    near = same = 0
    for i in range(len(half)):
        is_other = (micrograph == micrograph[i]) & (half != half[i])
        distance = np.linalg.norm(position[is_other] - position[i], axis=1)
        near += bool((distance < diameter).any())
        same += bool((distance < 0.1 * diameter).any())
    return near, same


@pytest.mark.parametrize("seed", range(4))
def test_the_count_is_that_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    micrograph = rng.integers(0, 7, 300)
    position = rng.uniform(0, 3000, (300, 2))
    position[:20] = position[20:40] + rng.normal(0, 5, (20, 2))
    micrograph[:20] = micrograph[20:40]
    half = rng.integers(1, 3, 300).astype(np.int8)
    found = count_neighbours(micrograph, position, half, 120.0)
    assert (found.n_near, found.n_same) == brute_force(micrograph, position, half, 120.0)
    assert found.n_same > 0
    assert found.n_near > found.n_same
    assert count_neighbours(micrograph, position, np.ones(300, np.int8), 120.0) == Neighbours(0, 0)
    assert count_neighbours(np.arange(300), position, half, 120.0) == Neighbours(0, 0)


def table_of_pair(distance_px: float, **columns: list[str]) -> Particles:
    """Two particles of one micrograph, half sets 1 and 2, and one on another micrograph."""
    table = {
        "rlnMicrographName": ["a.mrc", "a.mrc", "b.mrc"],
        "rlnCoordinateX": ["100.0", f"{100 + distance_px}", "100.0"],
        "rlnCoordinateY": ["50.0", "50.0", "50.0"],
        "rlnOpticsGroup": ["1", "1", "1"],
    }
    particles = random_particles(3, OPTICS, seed=0)
    return dataclasses.replace(
        particles,
        table=pd.DataFrame(table | columns),
        optics_table=pd.DataFrame({"rlnOpticsGroup": ["1"], "rlnMicrographOriginalPixelSize": ["2.0"]}),
        shifts_in_angstroms=np.zeros((3, 2)),
    )


def test_coordinates_are_in_the_micrographs_pixels_not_in_the_images() -> None:
    """49 pixels of 2 Angstrom are nearer than 100 Angstrom, 51 are not; of 4 Angstrom neither would be."""
    assert neighbours_of(table_of_pair(49), 100.0) == Neighbours(2, 0)
    assert neighbours_of(table_of_pair(51), 100.0) == Neighbours(0, 0)
    assert neighbours_of(table_of_pair(4), 100.0) == Neighbours(2, 2)


def test_a_binned_micrographs_own_pixel_size_wins() -> None:
    assert neighbours_of(table_of_pair(49, rlnMicrographPixelSize=["4.0"] * 3), 100.0) == Neighbours(0, 0)


def test_the_particle_is_where_its_refined_origin_puts_it() -> None:
    """An origin is added to the image to centre it, so the particle lies at the coordinates less the origin."""
    particles = table_of_pair(60)
    towards = dataclasses.replace(particles, shifts_in_angstroms=np.array([[-15.0, 0], [15.0, 0], [0, 0]]))
    apart = dataclasses.replace(particles, shifts_in_angstroms=np.array([[15.0, 0], [-15.0, 0], [0, 0]]))
    assert neighbours_of(towards, 100.0) == Neighbours(2, 0)
    assert neighbours_of(apart, 130.0) == Neighbours(0, 0)


@pytest.mark.parametrize("column", ["rlnCoordinateX", "rlnMicrographName"])
def test_a_table_without_places_tells_nothing(column: str) -> None:
    particles = table_of_pair(4)
    assert neighbours_of(dataclasses.replace(particles, table=particles.table.drop(columns=column)), 100.0) is None
    assert neighbours_of(dataclasses.replace(particles, optics_table=pd.DataFrame()), 100.0) is None


def test_places_that_are_no_numbers_count_for_nothing() -> None:
    assert neighbours_of(table_of_pair(4, rlnCoordinateY=["50.0", "nan", "50"]), 100.0) == Neighbours(0, 0)


def test_the_sentence_has_the_numbers() -> None:
    assert neighbours_sentence(Neighbours(0, 0), 100, 120.0) == ""
    said = neighbours_sentence(Neighbours(12, 2), 100, 120.0)
    assert "12 of 100 particles" in said
    assert "120 Angstrom" in said
    assert "2 lie within 10%" in said
    assert "--remove_duplicates 12)" in said
    apart = neighbours_sentence(Neighbours(12, 0), 100, 120.0)
    assert "12 of 100 particles" in apart
    assert "twice" not in apart
