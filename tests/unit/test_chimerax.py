"""The ChimeraX script opens each result under the number by which it is then shown."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin.reconstruction import Reconstruction
from relion_external.chimerax import chimerax_script, contour_level, palette
from relion_external.file_names import ALL_RESULTS, MASK
from tests.unit.synthetic import BOX, synthetic_reconstruction


def commands(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def opened(text: str) -> dict[str, str]:
    """Number of each opened file as ChimeraX counts, in a fresh window."""
    names = [words[1] for words in commands(text) if words[0] == "open"]
    return {name: f"#{number}" for number, name in enumerate(names, start=1)}


def with_local_resolution(reconstruction: Reconstruction, local: NDArray[np.float32]) -> Reconstruction:
    viewing = reconstruction.viewing
    places = dataclasses.replace(viewing.local_resolution, in_angstroms=local)
    return dataclasses.replace(reconstruction, viewing=dataclasses.replace(viewing, local_resolution=places))


def with_symmetry(reconstruction: Reconstruction, symmetry: str) -> Reconstruction:
    first, second = (
        dataclasses.replace(half, gaussians=dataclasses.replace(half.gaussians, symmetry=symmetry))
        for half in reconstruction.halves
    )
    return dataclasses.replace(reconstruction, halves=(first, second))


@pytest.mark.parametrize("mask_was_given", [True, False])
def test_everything_that_is_opened_is_a_result_in_the_same_folder(mask_was_given: bool) -> None:
    numbers = opened(chimerax_script(synthetic_reconstruction(), mask_was_given=mask_was_given))
    assert set(numbers) <= set(ALL_RESULTS)
    assert (MASK in numbers) != mask_was_given
    assert {
        "run_class001.mrc",
        "gem_sharpened.mrc",
        "gem_half1.mrc",
        "model_free_half2.mrc",
        "gem_half2_gaussians.cif",
    } <= set(numbers)


def test_only_the_sharpened_map_is_shown_at_first_and_each_map_at_its_own_level() -> None:
    reconstruction = synthetic_reconstruction()
    reconstruction = dataclasses.replace(reconstruction, combined_map=3 * reconstruction.combined_map)
    text = chimerax_script(reconstruction, mask_was_given=False)
    numbers = opened(text)
    (hide,) = [words for words in commands(text) if words[0] == "hide"]
    assert sorted(hide[1].strip("#").split(",")) == sorted(n.strip("#") for n in numbers.values() if n != "#1")
    levels = {words[1]: float(words[words.index("level") + 1]) for words in commands(text) if words[0] == "volume"}
    assert numbers["gem_sharpened.mrc"] == "#1"
    assert levels[numbers["run_class001.mrc"]] == pytest.approx(3 * levels[numbers["gem_half1.mrc"]], rel=1e-4)
    assert levels["#1"] == pytest.approx(2 * levels[numbers["gem_half1.mrc"]], rel=1e-4), "as it was made"
    assert levels[numbers[MASK]] == 0.5


def test_a_level_draws_the_molecule_and_not_the_box() -> None:
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    ball = 1 / (1 + np.exp(np.sqrt(x**2 + y**2 + z**2) - 8))
    noisy = (ball + np.random.default_rng(0).normal(0, 0.05, ball.shape)).astype(np.float32)
    mask = (x**2 + y**2 + z**2 < 12**2).astype(np.float32)
    enclosed = (noisy > contour_level(noisy, mask)).sum() / (ball > 0.5).sum()
    assert 0.8 < enclosed < 1.5, "the edge of the ball is at 0.5"
    assert contour_level(np.zeros_like(noisy), mask) == 0


def test_local_resolution_colours_the_map_over_the_range_under_the_mask() -> None:
    reconstruction = synthetic_reconstruction()
    local = np.full((BOX, BOX, BOX), 99.0, np.float32)
    inside = reconstruction.mask > 0.5
    local[inside] = np.linspace(4, 8, inside.sum())
    text = chimerax_script(with_local_resolution(reconstruction, local), mask_was_given=False)
    (colour,) = [words for words in commands(text) if words[:2] == ["color", "sample"]]
    assert colour[2:5] == ["#1", "map", opened(text)["gem_locres.mrc"]]
    stops = [stop.split(",") for stop in colour[6].split(":")]
    at = [float(value) for value, _ in stops]
    assert at == pytest.approx([4.08, 5.04, 6.0, 6.96, 7.92], abs=0.03)
    assert palette(np.full_like(local, 5.0), reconstruction.mask).startswith("5.00,"), "alike everywhere"
    nowhere = with_local_resolution(reconstruction, np.zeros_like(local))
    text = chimerax_script(nowhere, mask_was_given=False)
    assert "color sample" not in text, "no claim, no colours"
    assert "gem_locres.mrc" not in opened(text)


def test_symmetry_mates_are_named_and_no_gaussians_are_no_file_to_open() -> None:
    reconstruction = synthetic_reconstruction()
    text = chimerax_script(with_symmetry(reconstruction, "D2"), mask_was_given=True)
    assert f"sym {opened(text)['gem_half2_gaussians.cif']} assembly 1" in text
    assert "assembly" not in chimerax_script(reconstruction, mask_was_given=True)
    none = dataclasses.replace(reconstruction.halves[0].gaussians, amplitudes=np.empty(0, np.float32))
    halves = tuple(dataclasses.replace(half, gaussians=none) for half in reconstruction.halves)
    text = chimerax_script(dataclasses.replace(reconstruction, halves=halves), mask_was_given=True)
    assert not any(name.endswith(".cif") for name in opened(text))
