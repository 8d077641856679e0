"""A pass over some particles in parts that are kept as they are done, so that a long one need not begin again.

Parts are cut by the number of particles alone and added in their order: the sums are the same to the bit, whether the
pass was interrupted or not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.accumulation import Pass, accumulate
from gem_plugin.conventions import HalfPlane
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.run import Run

POINTS_PER_SHARD = 1_000_000_000  # of slices: some minutes of a core, and far more than its transforms take


def accumulate_kept(
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    planes: Sequence[HalfPlane],
    noise_power: Sequence[NDArray[np.float32]],
    run: Run,
    on_progress: Callable[[int], None],
    name: str,
) -> Pass:
    """`gem_plugin.accumulation.accumulate`, part after part; goes on behind those that an earlier run has done.

    Parameters
    ----------
    indices : [m] rows of the particle table, in the order in which they are read
    name : under which the sums are kept, with the list of particles in them
    """
    size = max(POINTS_PER_SHARD // max(len(plane.kx) for plane in planes), 1)
    total = _kept(run, name, indices)
    if total is not None:
        run.monitor.note(f"{len(total.rows)} of {len(indices)} particles were read before; sums from the checkpoint")
    done = 0 if total is None else len(total.rows)
    while total is None or done < len(indices):
        shard = indices[done : done + size]

        def on_part(count: int, before: int = done) -> None:
            on_progress(before + count)

        part = accumulate(particles, readers, shard, planes, noise_power, run, on_part)
        total = part if total is None else _joined(total, part)
        done += len(shard)
        run.checkpoints.keep(name, _arrays(total))
    return total


def _joined(first: Pass, second: Pass) -> Pass:
    return Pass(
        first.equations + second.equations,
        np.concatenate([first.rows, second.rows]),
        np.concatenate([first.digests, second.digests]),
    )


def _arrays(one: Pass) -> dict[str, NDArray[Any]]:
    return {
        "right_side": one.equations.right_side,
        "spectrum": one.equations.spectrum,
        "n_particles": np.array(one.equations.n_particles),
        "rows": one.rows,
        "digests": one.digests,
    }


def _kept(run: Run, name: str, indices: NDArray[np.int64]) -> Pass | None:
    """What an earlier run kept, if it is of the first of these particles."""
    kept = run.checkpoints.load(name)
    if kept is None or not np.array_equal(np.sort(kept["rows"]), np.sort(indices[: len(kept["rows"])])):
        return None
    equations = NormalEquations(kept["right_side"], kept["spectrum"], int(kept["n_particles"]))
    return Pass(equations, kept["rows"], kept["digests"])
