"""Section of benchmarks/gpu.py: particles a second into b and T, from the host's memory and from a cached file."""

import os
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_clock import Parts, busiest_kernels, summary, timed
from gpu_problem import some_particles
from gpu_session import Session
from gpu_stack import write_stack

from gem_plugin.conventions import HalfPlane, half_plane
from gem_plugin.device_batches import DeviceBatches
from gem_plugin.normal_equations import Accumulator
from gem_plugin.render import choose_render_box

CASES = (  # box, particles a call
    (256, 1024),
    (256, 256),
    (256, 2048),
    (128, 4096),
    (128, 1024),
    (384, 512),
    (384, 1024),
)
FILE_CASE = (256, 16384)  # box, particles
REPEATS = 5
SHARED_CYCLES_A_POINT = 19 + 36  # of a multiprocessor, for T and b: gem_plugin/ops/cuda_spread.py
Json = dict[str, Any]


def accumulate(session: Session, ceilings: Json, cycles_per_second: float) -> Json:
    """All cases, in both types of pixels, each with its parts and its floor."""
    rows = session.figures["cases"] = []
    for box, count in ((12, 5),) if session.is_dry else CASES:
        for dtype in (torch.float16, torch.float32):
            what = f"box {box}, {count} particles a call, {dtype}"
            if session.fits(what, 12 * (box / 256) ** 3 + 2):
                with session.attempt(what):
                    session.forget_peak()
                    row = _case(session, box, count, dtype, ceilings, cycles_per_second)
                    finish = _finish(session, half_plane(box, box / 2), 1 if session.is_dry else 3)
                    rows.append({**row, "finish": finish, "peak_gb": session.peak_gb()})
    box, count = (12, 6) if session.is_dry else FILE_CASE
    if session.fits("from a file", 25):
        with session.attempt("from a file"):
            session.figures["from_a_cached_file"] = _from_file(session, box, count)
    return {}


def _accumulator(plane: HalfPlane, engine: str) -> Accumulator:
    noise = np.ones(len(plane.kx), dtype=np.float32)
    return Accumulator(plane, noise, 1, choose_render_box(plane), engine=engine)


def _case(session: Session, box: int, count: int, dtype: torch.dtype, ceilings: Json, cycles_per_second: float) -> Json:
    plane = half_plane(box, box / 2)
    particles = some_particles(2 * count, box)
    indices = cycle((np.arange(count), np.arange(count, 2 * count)))
    images = session.pinned(torch.randn(count, box, box, device=session.device).to(dtype).cpu())
    makes = DeviceBatches(particles, (plane,), session.device)
    accumulator = _accumulator(plane, session.engine)

    def step() -> None:
        accumulator.add(makes.batch(images, next(indices)))

    repeats = 1 if session.is_dry else REPEATS
    whole = timed(session.clock, step, repeats)
    copy = timed(session.clock, lambda: images.to(session.device, non_blocking=True), repeats)
    row: Json = {
        "box_size_px": box,
        "render_box_px": choose_render_box(plane),
        "pixels": str(dtype).removeprefix("torch."),
        "particles_a_call": count,
        "points_a_particle": len(plane.kx),
        "particles_per_second": 1e3 * count / whole["median_ms"],
        "whole": whole,
        "copy_to_device": copy,
        "parts": _parts(session, step, repeats),
        "floor_ms": floors(box, count, dtype.itemsize, len(plane.kx), ceilings, cycles_per_second),
    }
    if not session.is_dry:
        row["profile"] = busiest_kernels(step, 3)
    return row


def _parts(session: Session, step: Callable[[], None], repeats: int) -> Json:
    """What a call is made of."""
    parts = Parts(session.clock)
    parts.watch("torch.fft", "rfft2", "transforms of images")
    parts.watch("gem_plugin.device_batches", "centre_images", "centring")
    parts.watch("gem_plugin.device_batches", "ctf_of_points", "CTFs")
    parts.watch("gem_plugin.device_batches", "digests_of", "digests")
    parts.watch(
        "gem_plugin.ops.cuda_spread:CudaGrid",
        "add",
        lambda grid, *_: "spread b" if grid.sums.is_complex() else "spread T",
    )
    with parts:
        for _ in range(repeats):
            step()
            parts.turn()
    return {**parts.medians(first=0), **({"not_found": parts.not_found} if parts.not_found else {})}


def floors(box: int, count: int, pixel_bytes: int, points: int, ceilings: Json, cycles_per_second: float) -> Json:
    """Milliseconds that a call cannot be faster than, part by part, by the ceilings that were measured.

    Bytes: each array of a part read once, and its result written once. Spreading: the cycles of shared memory that
    `gem_plugin.ops.cuda_spread` counts for each point, over all multiprocessors.
    """
    per_ms = ceilings["copy_on_device"]["gb_per_second"] * 1e6
    image, spectrum = 4 * box**2, 4 * box * (box + 2)
    moved = {
        "float32 pixels": (pixel_bytes + 4) * box**2,
        "transforms of images": image + spectrum,
        "centring": spectrum + 8 * points,
        "CTFs": 4 * points,
        "digests": image,
    }
    floor = {name: count * size / per_ms for name, size in moved.items()}
    floor["copy_to_device"] = count * pixel_bytes * box**2 / (ceilings["pinned_to_device"]["gb_per_second"] * 1e6)
    floor["spread b and T"] = count * points * SHARED_CYCLES_A_POINT / cycles_per_second * 1e3
    return floor


def _finish(session: Session, plane: HalfPlane, repeats: int) -> Json:
    """The transforms at the end, of accumulators that are made outside of the time; the first does not count."""
    times = []
    for _ in range(repeats + 1):
        accumulator = _accumulator(plane, session.engine)
        session.clock.wait()
        first = session.clock.mark()
        accumulator.finish()
        last = session.clock.mark()
        session.clock.wait()
        times.append(session.clock.ms_between(first, last))
    return summary(times[1:])


def _from_file(session: Session, box: int, count: int) -> Json:
    """The pass over the particles as a job does it: read by threads, sent, accumulated."""
    from gem_plugin.device_stream import batch_size_for, reading_threads, stream_to_device
    from gem_plugin.io.images import ReaderPool

    plane = half_plane(box, box / 2)
    stack = Path(session.scratch) / "accumulated.mrcs"
    block = np.random.default_rng(5).normal(size=(min(count, 1024), box, box)).astype(np.float16)
    write_stack(stack, box, count, (block[: min(len(block), count - at)] for at in range(0, count, len(block))))
    particles = some_particles(count, box, stack)
    a_call = 4 if session.is_dry else batch_size_for((plane,), session.device)
    threads = reading_threads(len(os.sched_getaffinity(0)), 2 * a_call * box**2)
    session.forget_peak()
    accumulator = _accumulator(plane, session.engine)

    def read_all() -> None:
        with ReaderPool(particles) as readers:
            everyone = np.arange(count)
            for batch in stream_to_device(particles, readers, everyone, (plane,), a_call, session.device, threads):
                accumulator.add(batch)

    times = timed(session.clock, read_all, 1 if session.is_dry else 3, warm_up=1)
    stack.unlink()
    return {
        "box_size_px": box,
        "pixels": "float16",
        "particles": count,
        "particles_a_call": a_call,
        "reading_threads": threads,
        "particles_per_second": 1e3 * count / times["median_ms"],
        "whole": times,
        "peak_gb": session.peak_gb(),
    }
