"""Section of benchmarks/gpu.py: a step of the collapsed fit, over boxes and numbers of Gaussians, and its parts."""

from typing import Any

from gpu_clock import Mark, Parts, busiest_kernels, intervals
from gpu_problem import GAUSSIANS_TOLD, some_equations, some_gaussians
from gpu_session import Session

from gem_plugin.collapsed_term import CollapsedTerm
from gem_plugin.fit import FitSettings, FitState, GaussianFit

BOXES = (256, 128, 384, 512)  # the one with a target first
COUNTS = (50_000, 10_000, 100_000, 300_000)
PROFILED = (256, 50_000)
STEPS = 14
Json = dict[str, Any]


def collapsed_steps(session: Session, ceilings: Json) -> Json:
    """All cases; a box's b and T are made once."""
    figures = session.figures
    rows = figures["cases"] = []
    figures["gaussians"] = GAUSSIANS_TOLD
    for box in (12,) if session.is_dry else BOXES:
        if not session.fits(f"box {box}", 3 + 20 * (box / 512) ** 3):
            continue
        with session.attempt(f"box {box}"):
            _box(session, box, ceilings, rows)
    return {}


def _box(session: Session, box: int, ceilings: Json, rows: list[Json]) -> None:
    equations = some_equations(box, session.engine, 20 if session.is_dry else 2000)
    session.forget_peak()
    term = CollapsedTerm(equations, engine=session.engine, n_threads=1)
    for count in (30,) if session.is_dry else COUNTS:
        what = f"box {box}, {count} Gaussians"
        if not session.fits(what, 1 + 4 * (box / 512) ** 3):
            continue
        with session.attempt(what):
            rows.append(_case(session, term, box, count, ceilings))
            if (box, count) == PROFILED or session.is_dry:
                session.figures["profile"] = _profile(session, term, box, count)


def _fit(term: CollapsedTerm, box: int, count: int, steps: int) -> GaussianFit:
    return GaussianFit(term, some_gaussians(count, box), FitSettings(steps, steps))


def _case(session: Session, term: CollapsedTerm, box: int, count: int, ceilings: Json) -> Json:
    session.forget_peak()
    steps = 3 if session.is_dry else STEPS
    marks: list[Mark] = []
    _fit(term, box, count, steps).run(lambda state: marks.append(session.clock.mark()))
    return {
        "box": box,
        "n_gaussians": count,
        **intervals(session.clock, marks),
        "peak_gb": session.peak_gb(),
        "floor_of_ffts_ms": fft_bytes(box) / (ceilings["copy_on_device"]["gb_per_second"] * 1e6),
    }


def fft_bytes(n: int) -> float:
    """What T v must move at least, for data up to Nyquist: each pass over an axis reads its input, writes its result.

    Maps have n^3 numbers; padded axes have 2 n and, along x, n + 1 complex ones.
    """
    volume, lines = 4.0 * n**3, 8.0 * n * n * (n + 1)
    planes, spectrum = 8.0 * n * 2 * n * (n + 1), 4.0 * (2 * n) ** 2 * (n + 1)
    return (volume + lines) + (lines + planes) + (planes + spectrum + planes) + (planes + lines) + (lines + volume)


def _profile(session: Session, term: CollapsedTerm, box: int, count: int) -> Json:
    """The parts of a step by events within it, and its kernels by torch's profiler."""
    parts = Parts(session.clock)
    parts.watch("gem_plugin.ops.voxelize", "footprint_shape", "shapes of Gaussians")
    parts.watch("gem_plugin.ops.cuda_voxelize", "footprints", "shapes of Gaussians")
    parts.watch("gem_plugin.ops.cuda_voxelize", "draw", "draw")
    parts.watch("gem_plugin.map_operators:_OnDevice", "loss_and_gradient", "FFTs, T and the loss")
    parts.watch("gem_plugin.ops.cuda_voxelize", "gather", "gather")
    parts.watch("gem_plugin.ops.voxelize", "parameter_gradients", "chain rule")
    parts.watch("gem_plugin.adam:Adam", "step", "optimiser")
    marks: list[Mark] = []

    def on_step(state: FitState) -> None:
        marks.append(session.clock.mark())
        parts.turn()

    fit = _fit(term, box, count, 3 if session.is_dry else STEPS)
    with parts:
        fit.run(on_step)
    whole = intervals(session.clock, marks)
    found = parts.medians()
    rest = whole["median_ms"] - sum(part["ms"] for part in found.values())
    profile: Json = {
        "box": box,
        "n_gaussians": count,
        "step": whole,
        "parts": found,
        "rest_ms": rest,  # softplus, clamps, autograd's own work, waits between parts
        "not_found": parts.not_found,
    }
    if not session.is_dry:
        steps = 5
        some = _fit(term, box, count, steps)
        profile["kernels_of_a_step"] = _for_a_step(busiest_kernels(lambda: some.run(lambda state: None), 2), steps)
    return profile


def _for_a_step(profile: Json, steps: int) -> Json:
    """From figures of some steps to those of one."""
    kernels = [{"name": k["name"], "ms": k["ms"] / steps, "calls": k["calls"] / steps} for k in profile["kernels"]]
    busy = profile["busy_ms"]
    return {**profile, "busy_ms": None if busy is None else busy / steps, "kernels": kernels}
