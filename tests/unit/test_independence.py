"""Half sets that share images, or noise, or leave directions unseen."""

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.errors import InputError
from gem_plugin.fsc import Shells, correlation
from gem_plugin.independence import refuse_shared_images, shares_noise, unseen_share, views_sentences

N = 32
N_BAND = np.full(4, 400.0)


def test_an_image_in_both_halves_is_named_whatever_its_stack() -> None:
    rows = (np.array([0, 2, 4]), np.array([1, 3, 5]))
    first, second = np.array([11, 12, 13], np.uint64), np.array([21, 12, 23], np.uint64)
    refuse_shared_images((first, np.array([21, 22, 23], np.uint64)), rows)
    with pytest.raises(InputError, match=r"1 images .* particle 3 .* particle 4"):
        refuse_shared_images((first, second), rows)


def fscs(signal: float, copied: float) -> tuple[np.ndarray, np.ndarray]:
    """Half-map and quarter-map FSC in bands of random maps, a share of the second half's noise being the first's."""
    generator = np.random.default_rng(1)
    shells = Shells(N)
    truth = signal * generator.normal(size=(N, N, N))
    quarters = [[truth + generator.normal(size=truth.shape) for _ in range(2)] for _ in range(2)]
    noise = [quarter - truth for quarter in quarters[0]]
    quarters[1] = [
        truth + copied * old + np.sqrt(1 - copied**2) * (new - truth)
        for old, new in zip(noise, quarters[1], strict=True)
    ]

    def bands(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        x, y = shells.transform(a), shells.transform(b)
        sums = [
            f.reshape(4, 4).sum(axis=1)
            for f in (shells.cross_power(x, y)[1:], shells.power(x)[1:], shells.power(y)[1:])
        ]
        return correlation(*sums)

    halves = [(a + b) / 2 for a, b in quarters]
    return bands(*halves), np.mean([bands(*pair) for pair in quarters], axis=0)


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0, 3.0])
def test_independent_halves_agree_as_their_quarters_predict(signal: float) -> None:
    assert not shares_noise(*fscs(signal, 0.0), N_BAND)


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0])
def test_shared_noise_is_noticed(signal: float) -> None:
    assert shares_noise(*fscs(signal, 0.8), N_BAND)


def weight_of(widest_deg: float) -> np.ndarray:
    """Weight of views up to an angle from the z axis."""
    generator = np.random.default_rng(2)
    axis = np.fft.fftfreq(N, 1 / N)
    kz, ky, kx = np.meshgrid(axis, axis, np.arange(N // 2 + 1), indexing="ij")
    weight = np.zeros(kz.shape)
    for _ in range(600):
        tilt = np.arccos(generator.uniform(np.cos(np.deg2rad(widest_deg)), 1))
        turn = generator.uniform(0, 2 * np.pi)
        view = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
        weight += np.abs(kx * view[0] + ky * view[1] + kz * view[2]) < 0.5
    return weight


def test_missing_views_are_measured_and_said() -> None:
    assert conventions.shell_indices(N).shape == weight_of(90).shape
    every_side, cone = unseen_share(weight_of(90), 15), unseen_share(weight_of(30), 15)
    assert every_side < 0.02
    assert 0.35 < cone < 0.6  # directions nearer than 60 degrees to the axis: half of them
    assert not views_sentences(every_side)
    assert "preferred orientation" in views_sentences(cone)[0]
