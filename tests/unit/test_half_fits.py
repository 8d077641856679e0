"""How many fits of a half are averaged."""

from gem_plugin.half_problem import FEWEST_FITS, FITTED_ONCE, MOST_FITS, choose_n_fits


def test_few_gaussians_are_fitted_more_often() -> None:
    chosen = [choose_n_fits(n) for n in (1, 3_000, 20_000, 25_000, 30_000, 150_000)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == MOST_FITS > FEWEST_FITS == chosen[-1]
    assert choose_n_fits(FITTED_ONCE // 2) == 4
