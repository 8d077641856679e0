"""What a half chooses: how many fits are averaged, and their steps."""

from gem_plugin.config import ReconstructionConfig
from gem_plugin.half_fits import COLLAPSED_FEWEST_STEPS, _steps_of_the_half
from gem_plugin.half_problem import FEWEST_FITS, FITTED_ONCE, MOST_FITS, choose_n_fits
from gem_plugin.stopping import FEWEST_SHARE, StepChoice


def test_few_gaussians_are_fitted_more_often() -> None:
    chosen = [choose_n_fits(n) for n in (1, 3_000, 20_000, 25_000, 30_000, 150_000)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == MOST_FITS > FEWEST_FITS == chosen[-1]
    assert choose_n_fits(FITTED_ONCE // 2) == 4


def test_a_collapsed_fit_is_not_stopped_before_its_fine_shells_have_moved() -> None:
    early, late = StepChoice([2, 4], [0.9, 0.1]), StepChoice([2, 16], [0.1, 0.9])
    assert _steps_of_the_half(early, 40, ReconstructionConfig()) == COLLAPSED_FEWEST_STEPS
    assert _steps_of_the_half(late, 40, ReconstructionConfig()) == 24
    assert _steps_of_the_half(early, 300, ReconstructionConfig(fit="images")) == round(FEWEST_SHARE * 300)
