"""Our distances against SciPy's."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from gem_plugin.distance import distance_px


@pytest.mark.parametrize("share", [0.001, 0.05, 0.6])
def test_distances_are_those_of_scipy(share: float) -> None:
    inside = np.random.default_rng(3).random((13, 17, 20)) < share
    inside[4, 5, 6] = True
    np.testing.assert_allclose(distance_px(inside), distance_transform_edt(~inside), rtol=1e-6)


def test_nothing_is_infinitely_far() -> None:
    assert np.isinf(distance_px(np.zeros((4, 4, 4), dtype=bool))).all()
    assert not distance_px(np.ones((4, 4, 4), dtype=bool)).any()
