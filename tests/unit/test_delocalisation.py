"""The spread of the CTF against the slope of its phase, and what is said of narrow boxes."""

import dataclasses

import numpy as np
import pytest

from gem_plugin.aberrations import electron_wavelength_in_angstroms
from gem_plugin.delocalisation import delocalisation_in_angstroms, delocalisation_sentences, worst_delocalisation
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.phantom import random_particles


@pytest.mark.parametrize(("voltage", "cs"), [(300.0, 2.7), (200.0, 1.4), (100.0, 0.0)])
@pytest.mark.parametrize("defocus", [-500.0, 3000.0, 25000.0])
def test_the_spread_is_the_slope_of_the_phase(voltage: float, cs: float, defocus: float) -> None:
    wavelength = electron_wavelength_in_angstroms(voltage)
    k = np.array([0.05, 0.2, 0.4])

    def phase(at: np.ndarray) -> np.ndarray:
        return -np.pi * wavelength * defocus * at**2 + np.pi / 2 * cs * 1e7 * wavelength**3 * at**4

    slope = (phase(k + 1e-5) - phase(k - 1e-5)) / 2e-5 / (2 * np.pi)
    np.testing.assert_allclose(delocalisation_in_angstroms(defocus, k, voltage, cs), np.abs(slope), rtol=1e-4)


def particles(box_size_px: int = 128, defocus: float = 20000.0) -> Particles:
    found = random_particles(100, OpticsGroup("grid A", 1.0, box_size_px, 300.0, 2.7, 0.1), seed=0)
    values = np.full(100, defocus)
    values[:4] = 9e4  # a few that do not decide
    return dataclasses.replace(found, defocus_u_in_angstroms=values + 500, defocus_v_in_angstroms=values - 500)


def test_a_narrow_box_is_told_with_what_it_holds_and_what_would_do() -> None:
    found = worst_delocalisation(particles(), 0.25, 80.0)
    assert found is not None
    wavelength = electron_wavelength_in_angstroms(300.0)
    spread = wavelength * 20000 * 0.25 - 2.7e7 * wavelength**3 * 0.25**3
    assert found.defocus_in_angstroms == pytest.approx(20000)
    assert found.spread_in_angstroms == pytest.approx(spread, rel=1e-6)
    assert found.half_edge_in_angstroms == 64
    assert found.needed_box_px == 2 * int(np.ceil((80 + 2 * spread) / 2))
    at_limit = delocalisation_in_angstroms(20000.0, np.array([1 / found.held_in_angstroms]), 300.0, 2.7)[0]
    assert 63 < at_limit <= 64
    (said,) = delocalisation_sentences(found, 4.0)
    for words in (
        "2.00 micrometres",
        "grid A",
        f"by {spread:.0f} Angstrom",
        "(64 Angstrom)",
        f"{found.needed_box_px} px",
    ):
        assert words in said


def test_a_box_that_is_wide_enough_says_nothing() -> None:
    found = worst_delocalisation(particles(), 0.25, 80.0)
    assert found is not None
    assert worst_delocalisation(particles(found.needed_box_px), 0.25, 80.0) is None
    assert worst_delocalisation(particles(defocus=8000.0), 0.25, 80.0) is None
    assert worst_delocalisation(particles(), 0.1, 80.0) is None
    assert delocalisation_sentences(None, 4.0) == []


def test_detail_that_the_map_does_not_have_is_not_missed() -> None:
    found = worst_delocalisation(particles(), 0.25, 80.0)
    assert found is not None
    assert delocalisation_sentences(found, 2 * found.held_in_angstroms) == []
    assert delocalisation_sentences(found, found.held_in_angstroms)
    assert delocalisation_sentences(found, None)


def test_the_narrowest_group_is_named() -> None:
    wide = particles(256)
    groups = (dataclasses.replace(wide.optics_groups[0], name="grid B"), OpticsGroup("grid C", 1.0, 96, 300, 2.7, 0.1))
    both = dataclasses.replace(wide, optics_groups=groups, group_of_particle=(np.arange(100) % 2).astype(np.int32))
    found = worst_delocalisation(both, 0.25, 80.0)
    assert found is not None
    assert found.group_name == "grid C"
