"""Sums and weights a shell against plain numpy, and the inverse transform that skips empty lines."""

import numpy as np
import pytest
from scipy import fft

from gem_plugin import conventions
from gem_plugin.fsc import Shells

N = 18


def test_sums_are_those_over_all_coefficients() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((2, N, N, N))
    axis = np.fft.fftfreq(N, 1 / N)
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)).astype(int)
    product = (np.fft.fftn(a) * np.fft.fftn(b).conj()).real
    shells = Shells(N)
    found = shells.cross_power(shells.transform(a), shells.transform(b))
    np.testing.assert_allclose(found, [product[shell == s].sum() for s in range(N // 2 + 1)], rtol=1e-10)
    np.testing.assert_array_equal(shells.n_coefficients, np.bincount(shell.ravel())[: N // 2 + 1])


@pytest.mark.parametrize("last", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_map_of_weighted_shells(last: int, n_threads: int) -> None:
    generator = np.random.default_rng(2)
    transform = fft.rfftn(generator.standard_normal((N, N, N)))
    weight = np.where(np.arange(N // 2 + 1) <= last, generator.random(N // 2 + 1), 0)
    whole = np.append(weight, np.zeros(N))[conventions.shell_indices(N)]
    expected = fft.irfftn(transform * whole, s=(N, N, N))
    np.testing.assert_allclose(Shells(N, n_threads).map_of(transform, weight), expected, atol=1e-12)
