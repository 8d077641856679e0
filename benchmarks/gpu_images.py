"""Section of benchmarks/gpu.py: `--fit images`, images a second through whole steps, and what a step is made of."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_clock import Mark, Parts, busiest_kernels, intervals
from gpu_problem import GAUSSIANS_TOLD, some_gaussians, some_particles
from gpu_session import Session
from gpu_stack import write_stack

from gem_plugin.conventions import half_plane
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.device_likelihood import DeviceLikelihood
from gem_plugin.fit import DataTerm, FitState, GaussianFit, stochastic_settings
from gem_plugin.ops.replicate import Tensors
from gem_plugin.prediction import Imaging
from gem_plugin.render import choose_render_box

CASES = ((256, 30_000, 100), (256, 30_000, 512), (256, 30_000, 1024), (128, 30_000, 1024), (384, 30_000, 256))
PROFILED = (256, 30_000, 512)
STACK_CASE = (256, 30_000, 4096)  # box, Gaussians, images
STEPS = 12
Json = dict[str, Any]


class PinnedImages:
    """A data term of the fit whose images lie in memory from which the GPU copies: no disk, no reader."""

    def __init__(self, session: Session, box: int, a_step: int) -> None:
        plane = half_plane(box, box / 2)
        render_box = choose_render_box(plane)
        noise = np.full(len(plane.kx), float(box) ** 2, dtype=np.float32)
        self.imaging = Imaging(plane, (plane,), (noise,), np.ones(1), (render_box,))
        self.voxels_per_px = render_box / box
        self.device = session.device
        self.radius_px = box / 2
        self.n_particles = a_step
        self._makes = DeviceBatches(some_particles(2 * a_step, box), (plane,), session.device)
        self._likelihood = DeviceLikelihood(self.imaging, session.engine)
        self._images = session.pinned(torch.randn(2 * a_step, box, box, device=session.device).half().cpu())
        self._a_step = a_step
        self._turn = 0

    def box_size_at(self, step: int, schedule_steps: int) -> int:
        """As for every data term of the fit."""
        return max(self.imaging.render_boxes_px)

    def backward(self, unit: Tensors, step: int, schedule_steps: int) -> float:
        """Add the gradients of the next images; return their loss."""
        loss = self._likelihood.loss(unit, self._next())
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def best_scale(self, unit: Tensors) -> float:
        """The amplitudes are left as they are."""
        return 1.0

    def _next(self) -> Any:
        self._turn = 1 - self._turn
        part = np.arange(self._turn * self._a_step, (self._turn + 1) * self._a_step)
        return self._makes.batch(self._images[part[0] : part[-1] + 1], part)


def image_steps(session: Session) -> Json:
    """Steps on images in pinned memory, and on images of a cached file as a job reads them."""
    figures = session.figures
    figures["gaussians"] = GAUSSIANS_TOLD
    rows = figures["from_pinned_memory"] = []
    for box, count, a_step in ((12, 20, 3),) if session.is_dry else CASES:
        what = f"box {box}, {a_step} images a step"
        if not session.fits(what, 8):
            continue
        with session.attempt(what):
            session.forget_peak()
            term = PinnedImages(session, box, a_step)
            times = _run(session, term, box, count)
            rows.append(_row(box, count, a_step, times, session.peak_gb()))
            if (box, count, a_step) == PROFILED or session.is_dry:
                figures["profile"] = {"images_a_step": a_step, **_profile(session, term, box, count)}
    if session.fits("images of a file", 20):
        with session.attempt("images of a file"):
            figures["from_a_cached_file"] = _from_file(session)
    return {}


def _row(box: int, count: int, a_step: int, times: Json, peak_gb: float | None) -> Json:
    return {
        "box_size_px": box,
        "n_gaussians": count,
        "images_a_step": a_step,
        "images_per_second": 1e3 * a_step / times["median_ms"],
        "microseconds_an_image": 1e3 * times["median_ms"] / a_step,
        "step": times,
        "peak_gb": peak_gb,
    }


def _fit(term: DataTerm, box: int, count: int, steps: int) -> GaussianFit:
    return GaussianFit(term, some_gaussians(count, box), stochastic_settings(steps, steps))


def _run(session: Session, term: DataTerm, box: int, count: int) -> Json:
    marks: list[Mark] = []
    steps = 3 if session.is_dry else STEPS
    _fit(term, box, count, steps).run(lambda state: marks.append(session.clock.mark()))
    return intervals(session.clock, marks)


def _profile(session: Session, term: DataTerm, box: int, count: int) -> Json:
    parts = Parts(session.clock)
    parts.watch("gem_plugin.device_batches:DeviceBatches", "batch", "images sent, transformed, CTFs")
    parts.watch("gem_plugin.device_likelihood:DeviceLikelihood", "_spectra", "project and transform")
    parts.watch("gem_plugin.device_likelihood", "likelihood_of_spectra", "compare")
    parts.watch("gem_plugin.ops.cuda_project", "gather", "gather")
    parts.watch("gem_plugin.ops.project", "_parameter_gradients", "chain rule")
    parts.watch("gem_plugin.adam:Adam", "step", "optimiser")
    marks: list[Mark] = []

    def on_step(state: FitState) -> None:
        marks.append(session.clock.mark())
        parts.turn()

    fit = _fit(term, box, count, 3 if session.is_dry else STEPS)
    with parts:
        fit.run(on_step)
    whole, found = intervals(session.clock, marks), parts.medians()
    # the rest: the backward transform, softplus, clamps, autograd's own work, waits between parts
    rest = whole["median_ms"] - sum(part["ms"] for part in found.values())
    profile: Json = {"step": whole, "parts": found, "rest_ms": rest, "not_found": parts.not_found}
    if not session.is_dry:
        steps = 4
        some = _fit(term, box, count, steps)
        profile["kernels_of_4_steps"] = busiest_kernels(lambda: some.run(lambda state: None), 2)
    return profile


def _from_file(session: Session) -> Json:
    """The data term of a job, with its own number of images a step; the file is in memory after its first pass."""
    from gem_plugin.image_term import PARTICLES_PER_STEP, ImageTerm

    box, count, n_images = (12, 20, 6) if session.is_dry else STACK_CASE
    stack = Path(session.scratch) / "fitted.mrcs"
    random = np.random.default_rng(5)
    block = random.normal(size=(min(n_images, 1024), box, box)).astype(np.float16)
    write_stack(stack, box, n_images, (block[: n_images - at] for at in range(0, n_images, len(block))))
    particles, imaging = some_particles(n_images, box, stack), PinnedImages(session, box, 2).imaging
    a_step = 3 if session.is_dry else PARTICLES_PER_STEP
    session.forget_peak()
    everyone = np.arange(n_images)
    steps = 4 if session.is_dry else 2 * n_images // a_step  # two epochs: caches are filled in the first
    marks: list[Mark] = []
    with ImageTerm(
        particles, everyone, imaging, engine=session.engine, generator=random, particles_per_step=a_step
    ) as term:
        _fit(term, box, count, steps).run(lambda state: marks.append(session.clock.mark()))
    stack.unlink()
    return _row(box, count, a_step, intervals(session.clock, marks, steps // 2), session.peak_gb())
