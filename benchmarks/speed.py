"""How long a user waits beside relion_reconstruct, and how fast the two heavy parts are.

``python benchmarks/speed.py --data DATA`` runs relion_reconstruct and our job in turn on the same simulated particles,
several times, and compares wall times of the whole processes. Then it compares the CPU engine's forward and backward
pass of voxelize() with the reference engine's in float32 on the same Gaussians, times the CPU engine at a realistic
size, and counts the particles whose (b, T) are accumulated in a second. Kernels are compiled before anything is timed;
each time is the median of several. ``--pairs 0`` leaves out the whole processes, which alone need RELION and DATA.
Writes ``results/speed.json`` with the machine named; exits 1 if the CPU engine is less than 30 times faster.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from machine import write_results
from paired import MOLECULES, paired_runs
from relion_baseline import require_relion

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, not an installed version

from gem_plugin import conventions
from gem_plugin.accumulation import POINTS_PER_BATCH
from gem_plugin.dataset import fourier_batch
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.normal_equations import Accumulator
from gem_plugin.ops.voxelize import voxelize
from gem_plugin.phantom import random_particles

SMALLEST_SPEEDUP = 30.0
COMPARED = (48, 256)  # box, Gaussians: the dense reference needs memory for box^3 x Gaussians
REALISTIC = (96, 6000)
ACCUMULATED_BOXES = (64, 96, 128)
REFERENCE_REPEATS, CPU_REPEATS = 5, 21
Parameters = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def gaussians(box_size_px: int, n: int) -> Parameters:
    """Draw anisotropic Gaussians of 0.8 to 2 px within half the box, float32, ready for gradients."""
    random = np.random.default_rng(1)
    arrays = (
        random.uniform(-0.25 * box_size_px, 0.25 * box_size_px, (n, 3)),
        np.log(random.uniform(0.8, 2.0, (n, 3))),
        random.normal(size=(n, 4)),
        random.uniform(0.5, 1.5, n),
    )
    centres, scales, quaternions, amplitudes = (
        torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in arrays
    )
    return centres, scales, quaternions, amplitudes


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Return the median of some runs, after one that is not counted."""
    action()
    return statistics.median(seconds_of(action) for _ in range(repeats))


def seconds_of(action: Callable[[], object]) -> float:
    """Time one run."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def time_voxelize(box_size_px: int, n: int, engine: str, repeats: int) -> dict[str, float]:
    """Seconds of the forward pass and of the backward pass that follows it."""
    parameters = gaussians(box_size_px, n)
    weights = torch.randn((box_size_px,) * 3, generator=torch.Generator().manual_seed(2))

    def forward() -> torch.Tensor:
        return voxelize(*parameters, box_size_px, engine=engine)

    forward_seconds = median_seconds(forward, repeats)
    volumes = (forward() for _ in range(repeats + 1))
    backward_seconds = [seconds_of(functools.partial(torch.autograd.backward, v, weights)) for v in volumes]
    return {"forward": forward_seconds, "backward": statistics.median(backward_seconds[1:])}


def compare_engines() -> dict[str, Any]:
    """Time both engines on the same Gaussians."""
    box, n = COMPARED
    reference = time_voxelize(box, n, "reference", repeats=REFERENCE_REPEATS)
    cpu = time_voxelize(box, n, "cpu", repeats=CPU_REPEATS)
    speedup = {part: reference[part] / cpu[part] for part in cpu}
    print(f"voxelize, box {box}, {n} Gaussians, float32:")
    for part, factor in speedup.items():
        print(
            f"  {part:>8}: reference {reference[part]:.3f} s, cpu {cpu[part] * 1e3:.3f} ms: {factor:.0f} times faster"
        )
    large_box, large_n = REALISTIC
    large = time_voxelize(large_box, large_n, "cpu", repeats=CPU_REPEATS)
    print(
        f"  cpu, box {large_box}, {large_n} Gaussians: " + ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in large.items())
    )
    return {
        "passed": min(speedup.values()) >= SMALLEST_SPEEDUP,
        "box_size_px": box,
        "n_gaussians": n,
        "reference_seconds": reference,
        "cpu_seconds": cpu,
        "speedup": speedup,
        "repeats": {"reference": REFERENCE_REPEATS, "cpu": CPU_REPEATS},
        "realistic": {"box_size_px": large_box, "n_gaussians": large_n, "cpu_seconds": large},
    }


def accumulation_rate(box_size_px: int, n_threads: int) -> float:
    """Particles a second from images in memory to the sums of (b, T), all Fourier points to Nyquist."""
    plane = conventions.half_plane(box_size_px, box_size_px / 2)
    batch = POINTS_PER_BATCH // len(plane.kx)
    optics = OpticsGroup("optics", 1.5, box_size_px, 300.0, 2.7, 0.1)
    particles = random_particles(batch, optics, seed=1)
    images = np.random.default_rng(2).normal(size=(batch, box_size_px, box_size_px)).astype(np.float32)
    accumulator = Accumulator(plane, np.ones(len(plane.kx), dtype=np.float32), n_threads)

    def accumulate() -> None:
        accumulator.add(fourier_batch(particles, images, np.arange(batch), plane))

    return batch / median_seconds(accumulate, repeats=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with models/")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each whole program; 0: none (5)")
    parser.add_argument("--only", nargs="+", choices=MOLECULES, default=list(MOLECULES), help="molecules of the pairs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    paired = []
    if arguments.pairs:
        require_relion()
        data = arguments.data.resolve()
        paired = [paired_runs(name, data, arguments.threads, arguments.pairs) for name in arguments.only]
    numba.set_num_threads(min(arguments.threads, numba.get_num_threads()))
    torch.set_num_threads(arguments.threads)
    engines = compare_engines()
    rates = {}
    for box in ACCUMULATED_BOXES:
        rates[str(box)] = accumulation_rate(box, arguments.threads)
        print(f"accumulation, box {box}: {rates[str(box)]:.0f} particles/s", flush=True)
    figures = {"threads": arguments.threads, "paired": paired, "voxelize": engines}
    figures["accumulated_particles_per_second"] = rates
    print(f"written: {write_results('speed', figures)}")
    if not engines["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
