"""RELION's LocalRes as the reader of the calibrated pair, and PostProcess as the judge of our B-factor."""

from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from gem_plugin.calibrated import calibrated_pair
from gem_plugin.io.maps import write_map
from gem_plugin.local_resolution import crossing_shells
from gem_plugin.sharpening import guinier_plot
from tests.interop import simulated
from tests.unit.test_local_resolution import PIXEL, Halves, Map, N, local_truth
from tests.unit.test_local_resolution import simulated as simulated_halves

pytestmark = pytest.mark.relion


@pytest.fixture(scope="module")
def halves() -> Halves:
    return simulated_halves(blurred=True, invented=0.5)


def write_pair(directory: Path, pair: tuple[Map, Map], mask: Map) -> None:
    for half, volume in enumerate(pair, start=1):
        write_map(directory / f"run_half{half}_class001_unfil.mrc", volume, PIXEL, "a half map")
    write_map(directory / "mask.mrc", mask, PIXEL)


def local_shells(directory: Path, pair: tuple[Map, Map], mask: Map) -> NDArray[np.float64]:
    """Fourier shell of RELION's local resolution at each voxel, nan where there is none."""
    (directory / "out").mkdir(parents=True)
    write_pair(directory, pair, mask)
    words = ["--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc", "--locres", "--o", "out/relion"]
    simulated.run(directory, "relion_postprocess", *words)
    found = simulated.read_volume(directory / "out/relion_locres.mrc")
    return np.divide(N * PIXEL, found, out=np.full(found.shape, np.nan), where=found > 0)


def test_local_resolution_of_the_pair_is_no_finer_than_the_truth_and_of_the_pure_halves_it_is(
    halves: Halves, tmp_path: Path
) -> None:
    pair = calibrated_pair(halves.gaussian, halves.model_free, halves.mask, halves.curve, halves.local)
    true = halves.local.windows.at_voxels(crossing_shells(local_truth(halves), halves.local.bands))
    found = local_shells(tmp_path / "pair", pair, halves.mask)
    falsely = local_shells(tmp_path / "pure", halves.gaussian, halves.mask)
    side = np.broadcast_to(np.arange(N) - N // 2, (N, N, N))
    inside = halves.mask > 0.9
    band = float(halves.curve.last_shell[0] - halves.curve.first_shell[0] + 1)
    assert np.mean(found[inside] > true[inside] + band) < 0.05
    print(
        np.nanpercentile((found - true)[inside], [5, 50, 95]), np.nanpercentile((falsely - true)[inside], [5, 50, 95])
    )
    sharp, blurred = (np.nanmedian(found[inside & part]) for part in (side > 6, side < -6))
    assert sharp > blurred + 1


def test_our_b_factor_is_that_of_postprocess(halves: Halves, tmp_path: Path) -> None:
    """On maps with one mean, without weighting by the FSC, the two programs draw the same Guinier plot."""
    volume = halves.mean
    noise = 0.5 * volume.std() * np.random.default_rng(4).normal(size=volume.shape).astype(np.float32)
    write_pair(tmp_path, (volume + noise, volume - noise), halves.mask)  # PostProcess wants an FSC that falls
    words = ["--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc", "--o", "post/process", "--auto_bfac"]
    (tmp_path / "post").mkdir()
    simulated.run(tmp_path, "relion_postprocess", *words, "--skip_fsc_weighting", "--autob_highres", "4.5")
    tables = starfile.read(tmp_path / "post/process.star", always_dict=True)
    plot = guinier_plot(volume, PIXEL, 4.5)
    theirs = tables["general"]
    assert 4 * plot.slope == pytest.approx(float(theirs["rlnBfactorUsedForSharpening"]), rel=0.03)
