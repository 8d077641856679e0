"""The held-out score against known truth, and the choice of steps."""

import numpy as np

from gem_plugin.fsc import Shells
from gem_plugin.masks import soft_mask
from gem_plugin.phantom import density, make_phantom
from gem_plugin.stopping import (
    FEWEST_SHARE,
    MORE_DATA_MORE_STEPS,
    PATIENCE,
    HeldOutScore,
    StepChoice,
    most_steps_of_the_quarter,
)

N = 48


def quarters(noise: float, seed: int = 0, signal: float = 1.0):  # type: ignore[no-untyped-def]
    truth = density(make_phantom(N, 1))
    rng = np.random.default_rng(seed)
    a, b = (signal * truth + noise * truth.std() * rng.normal(size=truth.shape) for _ in range(2))
    return truth, a.astype(np.float32), b.astype(np.float32)


def test_the_score_falls_as_noise_of_the_fitted_quarter_is_taken_up() -> None:
    truth, a, b = quarters(2.0)
    score = HeldOutScore(a, b, soft_mask(truth, 20), N // 2 - 1)
    scores = [score((1 - share) * truth + share * a) for share in (0.0, 0.3, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 0.2


def test_the_score_rises_as_detail_is_found() -> None:
    truth, a, b = quarters(2.0)
    score = HeldOutScore(a, b, soft_mask(truth, 20), N // 2 - 1)
    shells = np.arange(N // 2 + 1)
    scores = [score(Shells(N).filter(truth, 1.0 / (1 + np.exp((shells - cut) / 1.0)))) for cut in (6, 12, 18, 40)]
    assert scores == sorted(scores)


def test_quarters_of_noise_are_not_meaningful() -> None:
    truth, a, b = quarters(1.0, signal=0.0)
    assert not HeldOutScore(a, b, soft_mask(truth, 20), N // 2 - 1).is_meaningful
    truth, a, b = quarters(1.0)
    assert HeldOutScore(a, b, soft_mask(truth, 20), N // 2 - 1).is_meaningful


def test_the_half_gets_more_steps_than_the_quarters_best() -> None:
    choice = StepChoice([], [])
    ended = [
        choice.record(5 * (i + 1), score) for i, score in enumerate([0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.5, 0.4])
    ]
    assert ended.index(True) == 5 + PATIENCE
    assert choice.for_the_half(100) == round(MORE_DATA_MORE_STEPS * 30)
    assert choice.for_the_half(40) == 40
    assert choice.for_the_half(40, most_share=0.75) == 30
    assert choice.for_the_half(100, least_share=0.5) == 50
    assert StepChoice([5, 10], [0.9, 0.1]).for_the_half(100) == round(FEWEST_SHARE * 100)


def test_the_quarters_fit_ends_where_the_half_can_get_no_more_steps() -> None:
    for schedule in (20, 40, 300, 307):
        most = most_steps_of_the_quarter(schedule, 0.75)
        best_last, best_later = (StepChoice([most, step], [0.1, 0.2]) for step in (most, schedule))
        given = [one.for_the_half(schedule, most_share=0.75) for one in (best_last, best_later)]
        assert given == 2 * [round(0.75 * schedule)]
        assert StepChoice([most - 2], [0.1]).for_the_half(schedule, most_share=0.75) < given[0]
