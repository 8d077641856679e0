"""Tables that real programs wrote: each is read, or refused in the right words.

The files are not part of the project; small copies of the dialects are in test_tables.py.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.particles import read_particles
from gem_plugin.io.supported import refuse_other_kinds
from gem_plugin.io.tables import read_particle_tables

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not there")

# file: optics groups, particles, words of the notes
READ = {
    "star_dialects/optics_zernike_magmat.star": (1, 1, []),
    "star_dialects/relion1_no_optics_6496_betagal.star": (1, 6496, ["RELION 3.0 or older", "3.54 Angstrom"]),
    "star_dialects/relion30_17_particles.star": (2, 17, ["2 optics groups, pixel size 1.338 Angstrom; rlnOriginX"]),
    "star_dialects/relion31_17_particles.star": (2, 17, []),
    "star_dialects/relion31_5_particles.star": (1, 5, []),
    "star_dialects/relion31_six_optics_groups.star": (6, 139, ["rlnCtfBfactor (0), rlnCtfScalefactor (1)"]),
    "star_dialects/relion31_v2.star": (1, 5, []),
    "star_dialects/relion5_particles.star": (1, 17, []),
    "relion31_tutorial/Refine3D/job029/run_data.star": (1, 4501, []),
    "relion31_tutorial/CtfRefine/job022/particles_ctf_refine_head.star": (1, 6, []),
    "relion31_tutorial/CtfRefine/job023/particles_ctf_refine.star": (1, 4501, []),
}
REFUSED = {
    "star_dialects/relion5_subtomogram_run_data_head.star": "tilt series or subtomograms (rlnTomoName)",
    "star_dialects/relion5_external_job.star": "found data_job, data_joboptions_values.",
    "relion31_tutorial/Class2D/job008/job.star": "is not a STAR file that can be read: line 84 has 12 values under 11",
    "relion31_tutorial/Refine3D/job029/job.star": "is not a STAR file that can be read: line 103 has 12 values under",
    "relion31_tutorial/CtfRefine/job023/job.star": "found data_job, data_joboptions_values, data_joboptions_full_",
    "relion31_tutorial/PostProcess/job030/job.star": "found data_job, data_joboptions_values, data_joboptions_full_",
    "relion31_tutorial/PostProcess/job030/postprocess.star": "found data_general, data_fsc, data_guinier.",
    "relion31_tutorial/Refine3D/job029/run_it018_optimiser.star": "found data_optimiser_general",
    "relion31_tutorial/Refine3D/job029/run_model.star": "found data_model_general, data_model_classes, ",
    "relion31_tutorial/Refine3D/job029/job_pipeline.star": "found data_pipeline_general",
    "relion31_tutorial/default_pipeline.star": "found data_pipeline_general",
}


def test_every_file_is_judged_here() -> None:
    found = [*DATA.glob("star_dialects/*.star"), *DATA.glob("relion31_tutorial/**/*.star")]
    assert {str(path.relative_to(DATA)) for path in found} == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_real_tables_are_read(name: str) -> None:
    n_groups, n_particles, words = READ[name]
    tables = read_particle_tables(DATA / name)
    refuse_other_kinds(tables.particles, tables.optics)
    assert (len(tables.optics), len(tables.particles)) == (n_groups, n_particles)
    for word in words:
        assert word in " ".join(tables.notes)
    assert bool(words) == bool(tables.notes)
    groups = set(tables.particles.integers("rlnOpticsGroup").tolist())
    assert groups == set(tables.optics.integers("rlnOpticsGroup").tolist())
    assert np.all(tables.optics.numbers("rlnVoltage") >= 100)
    assert np.all(tables.optics.numbers("rlnImagePixelSize") < 4)
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
        assert np.ptp(tables.particles.numbers(column)) > 0 or n_particles == 1
    assert np.all(tables.particles.numbers("rlnDefocusU") > 1000)


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_words(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(REFUSED[name])) as caught:
        read_particles(DATA / name, project_directory=DATA / "star_dialects")
    assert "\n" not in str(caught.value)
