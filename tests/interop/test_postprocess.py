"""RELION's PostProcess as the reader of our calibrated half maps: it must find the resolution that we state."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gem_plugin.calibrated import calibrated_pair
from gem_plugin.io.maps import write_map
from gem_plugin.local_curve import choose_radius_px, measure_locally
from gem_plugin.masks import soft_mask
from gem_plugin.model_free import support_sphere
from gem_plugin.phase_randomisation import corrected_fsc, postprocess_curves
from gem_plugin.reconstruction import ResolutionCurve
from gem_plugin.resolution import resolution_curve
from tests.interop import simulated

pytestmark = pytest.mark.relion

BOX = 64
PIXEL = simulated.PIXEL_SIZE_IN_ANGSTROMS
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Halves:
    """Gaussian half maps with a shared bias, as a fit of smooth positive blobs makes them, and linear ones without."""

    gaussian: tuple[Map, Map]
    model_free: tuple[Map, Map]
    mask: Map
    curve: ResolutionCurve
    calibrated: tuple[Map, Map]


@pytest.fixture(scope="module")
def halves() -> Halves:
    random = np.random.default_rng(4)
    truth = simulated.blobs(BOX, seed=8)
    white = [random.normal(size=truth.shape) for _ in range(3)]
    noise = [0.35 * truth.std() * (white[i] + 2 * (white[i] - gaussian_filter(white[i], 1.0))) for i in (0, 1)]
    model_free = tuple((truth + n).astype(np.float32) for n in noise)
    mask, sphere = soft_mask(gaussian_filter(truth, 1.0), 0.45 * BOX), support_sphere(BOX, 0.45 * BOX)
    # the fit keeps a little of each half's noise, blurs the detail, and both halves invent the same detail instead
    invented = 0.25 * truth.std() * mask * (white[2] - gaussian_filter(white[2], 1.0))
    gaussian = tuple((gaussian_filter(truth, 0.6) + 0.15 * n + invented).astype(np.float32) for n in noise)
    curve = resolution_curve(
        gaussian, model_free, mask, sphere, PIXEL, last_shell=BOX // 2 - 1, half_sets_are_refined=True
    )
    local = measure_locally(gaussian, model_free, mask, curve, choose_radius_px(curve, mask), 1)
    return Halves(gaussian, model_free, mask, curve, calibrated_pair(gaussian, model_free, mask, curve, local))


def postprocess(directory: Path, pair: tuple[Map, Map], mask: Map) -> float:
    """The resolution in Angstrom that RELION states; it takes the pixel size from the maps' headers.

    RELION sets the mask aside where the curve of the whole box reaches further: maps whose solvent correlates fail.
    """
    for half, volume in enumerate(pair, start=1):
        write_map(directory / f"run_half{half}_class001_unfil.mrc", volume, PIXEL, "a half map")
    write_map(directory / "mask.mrc", mask, PIXEL)
    (directory / "PostProcess").mkdir()
    command = ["relion_postprocess", "--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc"]
    said = simulated.run(directory, *command, "--o", "PostProcess/postprocess")
    assert "Skip masking" not in said, said
    found = re.search(r"FINAL RESOLUTION:\s*([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def shell_of(resolution_in_angstroms: float) -> float:
    return BOX * PIXEL / resolution_in_angstroms


def test_postprocess_of_the_calibrated_pair_agrees_with_the_stated_resolution(halves: Halves, tmp_path: Path) -> None:
    stated = halves.curve.resolution_in_angstroms
    assert stated is not None
    assert halves.curve.crosses_before_nyquist
    assert shell_of(postprocess(tmp_path, halves.calibrated, halves.mask)) == pytest.approx(shell_of(stated), abs=2)


def test_postprocess_of_the_pure_pair_would_be_false(halves: Halves, tmp_path: Path) -> None:
    """Without the calibration RELION's tools would state a far better resolution: the test above can fail."""
    stated = halves.curve.resolution_in_angstroms
    assert stated is not None
    assert shell_of(postprocess(tmp_path, halves.gaussian, halves.mask)) > shell_of(stated) + 4


def test_calibration_leaves_the_mean_map_alone_inside_the_mask(halves: Halves) -> None:
    inside = halves.mask > 0.999
    calibrated, pure = (sum(pair)[inside] / 2 for pair in (halves.calibrated, halves.gaussian))
    difference = np.std(calibrated - pure) / np.std(pure)
    assert difference < 0.1
    assert np.std(halves.calibrated[0][inside] - halves.gaussian[0][inside]) > 3 * difference * np.std(pure)


def test_our_postprocess_curves_are_those_of_relion(halves: Halves, tmp_path: Path) -> None:
    """Unmasked and masked to the digits that RELION prints; random phases are others, so those agree on average."""
    random = np.random.default_rng(5)
    v1, v2 = ((v + 0.5 * v.std() * random.normal(size=v.shape)).astype(np.float32) for v in halves.model_free)
    ours, _ = postprocess_curves((v1, v2), halves.mask, np.random.default_rng(1))
    postprocess(tmp_path, (v1, v2), halves.mask)
    theirs = starfile.read(tmp_path / "PostProcess/postprocess.star", always_dict=True)["fsc"]
    np.testing.assert_allclose(theirs["rlnFourierShellCorrelationUnmaskedMaps"], ours.unmasked, atol=2e-4)
    np.testing.assert_allclose(theirs["rlnFourierShellCorrelationMaskedMaps"], ours.masked, atol=2e-4)
    randomised = theirs["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"].to_numpy()
    assert ours.from_shell is not None
    assert 3 < ours.from_shell < 20
    np.testing.assert_allclose(randomised[: ours.from_shell - 3], ours.randomised[: ours.from_shell - 3], atol=0.02)
    beyond = slice(ours.from_shell + 3, BOX // 2)
    assert abs(randomised[beyond].mean() - ours.randomised[beyond].mean()) < 0.08
    corrected = theirs["rlnFourierShellCorrelationCorrected"].to_numpy()
    kept = slice(0, ours.from_shell + 2)
    np.testing.assert_allclose(corrected[kept], ours.corrected[kept], atol=2e-4)
    np.testing.assert_allclose(corrected_fsc(ours.masked, randomised, ours.from_shell), corrected, atol=2e-3)
