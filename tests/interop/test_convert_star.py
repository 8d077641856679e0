"""Tables of RELION 3.0: relion_convert_star is the judge."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.io.star import StarTable
from gem_plugin.io.tables import read_particle_tables
from tests.unit.small_project import table_text

N = 300


@pytest.mark.relion
def test_tables_of_relion_3_0_are_converted_as_relion_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    columns: dict[str, list[object]] = {
        "rlnVoltage": rng.choice([200, 300], N).tolist(),
        "rlnSphericalAberration": rng.choice([1.4, 2.7], N).tolist(),
        "rlnAmplitudeContrast": [0.1] * N,
        "rlnBeamTiltX": rng.choice([0, 0.5], N).tolist(),
        "rlnBeamTiltY": [-0.25] * N,
        "rlnDetectorPixelSize": [5] * N,
        "rlnMagnification": rng.choice([37369.207, 40000.0], N).tolist(),
        "rlnImageName": [f"{number:06d}@a.mrcs" for number in range(1, N + 1)],
    }
    for name in ("OriginX", "OriginY", "OriginXPrior", "AngleRot", "AngleTilt", "AnglePsi", "DefocusU", "DefocusV"):
        columns[f"rln{name}"] = [f"{value:.6f}" for value in rng.normal(scale=20, size=N)]
    old, new = tmp_path / "old.star", tmp_path / "new.star"
    old.write_text(table_text("", columns).replace("# version 30001\n", ""))
    subprocess.run(["relion_convert_star", "--i", old, "--o", new], check=True, capture_output=True)
    ours, theirs = read_particle_tables(old), read_particle_tables(new)
    assert len(ours.optics) == 16
    assert_same(ours.optics, theirs.optics)
    assert_same(ours.particles, theirs.particles)


def assert_same(ours: StarTable, theirs: StarTable) -> None:
    assert set(ours.frame.columns) == set(theirs.frame.columns)
    for column in ours.frame.columns:
        if column in ("rlnImageName", "rlnOpticsGroupName"):
            assert list(ours.texts(column)) == list(theirs.texts(column))
        else:  # RELION prints six decimals, of negative numbers five
            np.testing.assert_allclose(ours.numbers(column), theirs.numbers(column), rtol=1e-6, atol=6e-6)
