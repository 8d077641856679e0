"""A reference is compared with the data in hand, sign and greyscale."""

import numpy as np
import pytest

from gem_plugin.masks import soft_mask
from gem_plugin.phantom import density, make_phantom
from gem_plugin.reference_check import check_reference, mirrored

N = 32


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    truth = density(make_phantom(N, 0))
    noise = np.random.default_rng(0).normal(size=truth.shape) * truth.std()
    return (truth + noise).astype(np.float32), truth


def test_a_good_reference_passes_in_silence(data: tuple[np.ndarray, np.ndarray]) -> None:
    assert check_reference(data[1], data[0], soft_mask(data[1], 14)) == []


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (mirrored, "hand"),
        (np.negative, "inverted"),
        (lambda v: np.roll(v, 5, axis=2), "px away"),
        (lambda v: 10 * v, "greyscale"),
        (lambda v: np.zeros_like(v), "empty"),
        (lambda v: np.random.default_rng(1).normal(size=v.shape).astype(np.float32), "resembles"),
    ],
)
def test_a_wrong_reference_is_named(data, spoil, word: str) -> None:  # type: ignore[no-untyped-def]
    sentences = check_reference(spoil(data[1]), data[0], soft_mask(data[1], 14))
    assert len(sentences) == 1
    assert word in sentences[0]


def test_mirroring_keeps_the_centre_voxel() -> None:
    volume = np.zeros((8, 8, 8), dtype=np.float32)
    volume[4, 4, 4] = 1
    volume[6, 4, 4] = 2
    assert mirrored(volume)[4, 4, 4] == 1
    assert mirrored(volume)[2, 4, 4] == 2
