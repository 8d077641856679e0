"""The fit of one half: it climbs the likelihood, all 11 numbers move, and it stops when told."""

from dataclasses import replace

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.dataset import fourier_batch
from gem_plugin.divergence import DivergedError
from gem_plugin.errors import JobAborted
from gem_plugin.fit import FitSettings, FitState, GaussianFit, stochastic_settings
from gem_plugin.fsc import fourier_shell_correlation
from gem_plugin.gaussians.start import place_gaussians, start_density
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.model_free import solve_model_free
from gem_plugin.normal_equations import Accumulator, NormalEquations, Operator
from gem_plugin.phantom import make_phantom, random_particles, simulate_images
from gem_plugin.render import gaussian_map

N = 32
SETTINGS = FitSettings(40, 40, smallest_scale_voxels=0.6)


@pytest.fixture(scope="module")
def half() -> tuple[NormalEquations, np.ndarray, np.ndarray]:
    """Equations, start density and truth of 600 noisy particles."""
    particles = random_particles(600, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    simulated = simulate_images(make_phantom(N, 0), particles, snr=0.05, seed=2)
    plane = conventions.half_plane(N, N / 2 - 0.5)
    sums = []
    for part in (np.arange(0, 600, 2), np.arange(1, 600, 2)):
        accumulator = Accumulator(plane, np.full(len(plane.kx), N * N, dtype=np.float32), 2)
        accumulator.add(fourier_batch(particles, simulated.images[part], part, plane))
        sums.append(accumulator.finish())
    start = start_density((solve_model_free(sums[0], 14, 2), solve_model_free(sums[1], 14, 2)), 14)
    return sums[0] + sums[1], start.density, simulated.truth


def fit_of(half, settings: FitSettings = SETTINGS, engine: str = "cpu", n: int = 250) -> GaussianFit:  # type: ignore[no-untyped-def]
    start = place_gaussians(half[1], n, np.random.default_rng(0))
    term = CollapsedTerm(half[0], engine=engine, n_threads=2, coarse_box=24)
    return GaussianFit(term, start, settings, double=engine == "reference")


def test_the_fit_beats_the_model_free_map(half) -> None:  # type: ignore[no-untyped-def]
    states: list[FitState] = []
    found = gaussian_map(fit_of(half, n=500).run(states.append), N, N, engine="cpu")
    assert states[-1].loss < states[10].loss
    ours = fourier_shell_correlation(found, half[2])[1:15].mean()
    plain = fourier_shell_correlation(solve_model_free(half[0], 14, 2), half[2])[1:15].mean()
    assert ours > plain + 0.03
    # the loss that is reported is that of the map
    assert Operator(half[0], 1).loss_and_gradient(found)[0] < states[-1].loss * 0.999


def test_all_eleven_numbers_move(half) -> None:  # type: ignore[no-untyped-def]
    fit = fit_of(half)
    before = fit.gaussians()
    after = fit.run(lambda state: None)
    for name in ("centres_px", "log_scales", "quaternions", "amplitudes"):
        moved = np.abs(getattr(after, name) - getattr(before, name)).reshape(len(before), -1)
        assert np.median(moved.min(axis=1)) > 1e-3, name
    assert (after.log_scales.max(axis=1) - after.log_scales.min(axis=1)).mean() > 0.1  # anisotropic
    assert np.all(after.amplitudes >= 0)


def test_coarse_box_comes_first(half) -> None:  # type: ignore[no-untyped-def]
    boxes: list[int] = []
    fit_of(half).run(lambda state: boxes.append(state.box_size_px))
    assert boxes[0] == 24
    assert boxes[-1] == N
    assert boxes == sorted(boxes)


def test_data_that_want_less_than_nothing_begin_with_next_to_nothing(half) -> None:  # type: ignore[no-untyped-def]
    """As noise can; amplitudes too large for the likelihood would diverge."""
    unwanted = replace(half[0], right_side=-half[0].right_side)
    term = CollapsedTerm(unwanted, engine="cpu", n_threads=2, coarse_box=24)
    heavy = place_gaussians(1000 * half[1], 250, np.random.default_rng(0))
    fit = GaussianFit(term, heavy, SETTINGS)
    assert 0 < term.best_scale(fit.unit()) <= 1.001  # of amplitudes that were scaled already
    states: list[FitState] = []
    fit.run(states.append)
    loss = Operator(unwanted, 1).loss_and_gradient(gaussian_map(fit.gaussians(), N, N, engine="cpu"))[0]
    assert states[0].loss < 2.5
    assert loss < states[0].loss


def test_the_greyscale_is_the_datas(half) -> None:  # type: ignore[no-untyped-def]
    found = gaussian_map(fit_of(half).run(lambda state: None), N, N, engine="cpu")
    operator = Operator(half[0], 1)
    scale = np.vdot(found, operator.right_side) / np.vdot(found, operator.apply(found))
    assert abs(scale - 1) < 0.02


def test_engines_fit_alike(half) -> None:  # type: ignore[no-untyped-def]
    """Ten steps from one start: the reference engine ends where the CPU engine does.

    Small steps: round Gaussians have no orientation yet, and large steps would make much of its rounding.
    """
    short = stochastic_settings(10, 10)
    cpu = gaussian_map(fit_of(half, short, n=60).run(lambda state: None), N, N, engine="cpu")
    oracle = gaussian_map(fit_of(half, short, "reference", n=60).run(lambda state: None), N, N, engine="reference")
    assert np.linalg.norm(cpu - oracle) < 2e-3 * np.linalg.norm(oracle)


def test_a_callback_can_stop_the_fit(half) -> None:  # type: ignore[no-untyped-def]
    steps: list[int] = []

    def stop_at_five(state: FitState) -> None:
        steps.append(state.step)
        if state.step == 5:
            raise JobAborted("asked to stop")

    with pytest.raises(JobAborted):
        fit_of(half).run(stop_at_five)
    assert steps == [1, 2, 3, 4, 5]


def test_the_same_seed_gives_the_same_gaussians(half) -> None:  # type: ignore[no-untyped-def]
    first, second = (fit_of(half).run(lambda state: None) for _ in range(2))
    np.testing.assert_array_equal(first.centres_px, second.centres_px)
    np.testing.assert_array_equal(first.amplitudes, second.amplitudes)


def test_divergence_is_said(half) -> None:  # type: ignore[no-untyped-def]
    broken = NormalEquations(np.full_like(half[0].right_side, np.nan), half[0].spectrum, half[0].n_particles)
    with pytest.raises(DivergedError, match="diverged at step 1"):
        fit_of((broken, half[1], half[2])).run(lambda state: None)


def test_a_fit_goes_on_from_a_state_as_if_nothing_had_been(half) -> None:  # type: ignore[no-untyped-def]
    expected = fit_of(half).run(lambda state: None)
    first, other = fit_of(half), fit_of(half)

    def stop(state: FitState) -> None:
        if state.step == 17:
            raise JobAborted("enough")

    with pytest.raises(JobAborted):
        first.run(stop)
    kept = first.state()
    first.run(lambda state: None, first_step=17)  # what was kept is a copy
    other.restore(kept)
    found = other.run(lambda state: None, first_step=17)
    for name in ("centres_px", "log_scales", "quaternions", "amplitudes"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
