"""What is claimed of a curve, and with which error."""

import dataclasses

import numpy as np

from gem_plugin.local_curve import stated_curve
from gem_plugin.statement import Evidence, make_claim, trusted_error
from tests.unit.synthetic import synthetic_reconstruction

EVIDENCE = Evidence(
    lower=np.array([0.9, 0.8, 0.3]),
    centre=np.array([4.0, 11.0, 18.0]),
    is_measurable=np.array([True, True, True]),
    last_shell=21,
    box_size_px=64,
    pixel_size_in_angstroms=2.0,
    half_sets_are_refined=True,
    is_coarse=False,
    shares_noise=False,
)


def test_the_crossing_lies_between_the_bands() -> None:
    claim = make_claim(EVIDENCE)
    assert claim.resolution_in_angstroms is not None
    np.testing.assert_allclose(claim.resolution_in_angstroms, 128 / (11 + 7 * 0.3 / 0.5))


def test_one_band_claims_no_more_than_its_middle() -> None:
    alone = dataclasses.replace(
        EVIDENCE, lower=np.array([0.99, 0.0, 0.0]), is_measurable=np.array([True, False, False])
    )
    assert make_claim(alone).resolution_in_angstroms == 128 / 4


def test_shared_noise_claims_nothing() -> None:
    claim = make_claim(dataclasses.replace(EVIDENCE, shares_noise=True))
    assert not claim.is_claimed
    assert claim.resolution_in_angstroms is None
    assert "share noise" in claim.sentence


def test_the_larger_error_is_taken_only_where_the_two_disagree() -> None:
    found = trusted_error(np.array([0.1, 0.1, 0.1, 0.1]), np.array([0.2, 0.3, 0.01, np.nan]))
    np.testing.assert_array_equal(found, [0.1, 0.3, 0.1, 0.1])


def test_the_calibrated_pair_is_made_for_the_claims_own_curve() -> None:
    curve = synthetic_reconstruction().curve
    doubtful = dataclasses.replace(curve, c_full_resampled_error=10 * curve.c_full_standard_error)
    known = curve.is_measurable & (stated_curve(doubtful) > 0) & (stated_curve(doubtful) < 1)
    assert known.any()
    expected = curve.c_full[known] - 10 * curve.c_full_standard_error[known]
    np.testing.assert_allclose(stated_curve(doubtful)[known], expected)
