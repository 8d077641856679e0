"""CtfRefine on the calibrated pair: it must find wrong defoci as well as with relion_reconstruct's own half maps.

Both pairs go through PostProcess with one mask, as in a project: CtfRefine takes the half maps, the mask and the FSC
from its star file. Polish is not run here: it needs movies.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from gem_plugin.io.maps import write_map
from gem_plugin.masks import soft_mask
from gem_plugin.phantom import density, make_phantom
from relion_external.job import main
from tests.interop import simulated

pytestmark = [pytest.mark.relion, pytest.mark.slow]

BOX, N_PARTICLES = 64, 500
SIGNAL_TO_NOISE = 0.2
ERROR_IN_ANGSTROMS = 700.0
PAIR = ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc")
REFINED = "refined.star"  # the table with the right defoci, of which the maps are made
WRONG = "wrong.star"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[simulated.Project, NDArray[np.float64]]:
    """Particles on the scale of the images' noise, and a table with wrong defoci."""
    directory = tmp_path_factory.mktemp("ctf_refine")
    columns = simulated.random_columns(N_PARTICLES, seed=21, astigmatism=0.0)
    made = simulated.project(directory, density(make_phantom(BOX, 5)).astype(np.float32), columns)
    simulated.add_white_noise(made, SIGNAL_TO_NOISE, seed=22)
    shutil.copy(made.table, directory / REFINED)
    error = np.random.default_rng(23).normal(0, ERROR_IN_ANGSTROMS, N_PARTICLES)
    wrong = {**columns, "DefocusU": columns["DefocusU"] + error, "DefocusV": columns["DefocusV"] + error}
    simulated.write_table(directory / WRONG, wrong, stack=made.stack.name, box_size_px=BOX)
    mask = soft_mask(made.truth, 0.45 * BOX)
    write_map(directory / "mask.mrc", mask, simulated.PIXEL_SIZE_IN_ANGSTROMS)
    return made, columns["DefocusU"]


def remaining_error(directory: Path, name: str, true: NDArray[np.float64]) -> float:
    """Have CtfRefine fit the defoci with the half maps in a folder; the typical error that is left, in Angstrom."""
    post = directory / name / "PostProcess"
    post.mkdir()
    words = ["--i", f"{name}/{PAIR[0]}", "--mask", "mask.mrc", "--o", f"{name}/PostProcess/postprocess"]
    simulated.run(directory, "relion_postprocess", *words)
    (directory / name / "CtfRefine").mkdir()
    words = ["--i", WRONG, "--f", f"{name}/PostProcess/postprocess.star", "--o", f"{name}/CtfRefine/"]
    words += ["--fit_defocus", "--fit_mode", "fpfff", "--kmin_defocus", "20", "--j", "1"]
    simulated.run(directory, "relion_ctf_refine", *words)
    refined = starfile.read(directory / name / "CtfRefine/particles_ctf_refine.star", always_dict=True)["particles"]
    refined = refined.sort_values("rlnImageName")
    found = (refined["rlnDefocusU"].astype(float) + refined["rlnDefocusV"].astype(float)).to_numpy() / 2
    return float(np.median(np.abs(found - true)))


def test_defocus_errors_are_no_worse_than_with_relions_maps(
    project: tuple[simulated.Project, NDArray[np.float64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, true = project
    directory = made.directory
    monkeypatch.chdir(directory)
    (directory / "relion").mkdir()
    for half, name in enumerate(PAIR, start=1):
        words = ["--i", REFINED, "--o", f"relion/{name}", "--ctf", "--subset", str(half), "--skip_gridding"]
        simulated.run(directory, "relion_reconstruct", *words)
    assert main(["--o", "ours/", "--in_parts", REFINED, "--in_mask", "mask.mrc", "--j", "2"]) == 0
    ours, relions = (remaining_error(directory, name, true) for name in ("ours", "relion"))
    before = 0.6745 * ERROR_IN_ANGSTROMS  # the median of |error|
    assert relions < 0.8 * before, "the test must have something to find"
    assert ours < 1.02 * relions
