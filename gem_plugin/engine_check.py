"""A GPU's answers beside the CPU engine's, on a problem of a second, before anything is entrusted to it."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch
from gem_plugin.map_operators import map_operator
from gem_plugin.normal_equations import Accumulator, NormalEquations
from gem_plugin.ops import engines, project, voxelize

BOX = 20
N_GAUSSIANS, N_VIEWS = 30, 4
TOLERANCE = 1e-3  # of the largest value; both engines compute in float32

Answers = dict[str, torch.Tensor]


def engine_fault(engine: str) -> str | None:
    """What a GPU gets wrong, in words; None if its answers are the CPU's.

    Parameters
    ----------
    engine : such as "cuda:0"
    """
    found = {**_drawn(engine), **_accumulated(engine)}
    for name, expected in {**_drawn("cpu"), **_accumulated("cpu")}.items():
        error = float((found[name] - expected).abs().max() / expected.abs().max())
        if not error < TOLERANCE:  # true for NaN
            return f"{name}: on {engine} and on the CPU they differ by {error:.1e} of the largest value"
    return None


def _drawn(engine: str) -> Answers:
    """Maps and images of some Gaussians, and the gradients of their products with random ones."""
    generator = torch.Generator().manual_seed(1)
    device = engines.device_of(engine)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    values = (random(N_GAUSSIANS, 3) * 4, 0.2 * random(N_GAUSSIANS, 3), random(N_GAUSSIANS, 4), random(N_GAUSSIANS))
    weights = random(BOX, BOX, BOX), random(N_VIEWS, BOX, BOX)
    answers: Answers = {}
    for what, weight in zip(("map", "images"), weights, strict=True):
        centres, widths, turns, amplitudes = (value.clone().to(device).requires_grad_() for value in values)
        parameters = centres, widths, turns, amplitudes
        if what == "map":
            grid = voxelize(centres, widths, turns, amplitudes, BOX, engine=engine)
        else:
            grid = project(centres, widths, turns, amplitudes, _rotations(), BOX, engine=engine)
        (grid * weight.to(device)).sum().backward()  # type: ignore[no-untyped-call]
        answers[f"the Gaussians' {what}"] = grid.detach().cpu()
        for name, parameter in zip(("centres", "widths", "orientations", "amplitudes"), parameters, strict=True):
            if parameter.grad is not None:
                answers[f"gradients of the {what} in {name}"] = parameter.grad.cpu()
    return answers


def _accumulated(engine: str) -> Answers:
    """The arrays b and T of some random images, and T applied to b."""
    random = np.random.default_rng(2)
    plane = conventions.half_plane(BOX, BOX / 2 - 0.5)
    shape = N_VIEWS, len(plane.kx)
    observed = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    ctf = random.normal(size=shape).astype(np.float32)
    indices, digests = np.arange(N_VIEWS), np.zeros(N_VIEWS, dtype=np.uint64)
    accumulator = Accumulator(plane, np.ones(len(plane.kx), dtype=np.float32), 1, engine=engine)
    accumulator.add(FourierBatch(indices, plane, 0, _rotations(), observed, ctf, ctf, digests))
    sums: NormalEquations = accumulator.finish()
    operator = map_operator(sums, engine, 1)
    return {
        "sums of images": torch.from_numpy(sums.right_side),
        "sums of transfer functions": torch.from_numpy(sums.spectrum),
        "products of maps and sums": operator.apply(operator.right_side).cpu(),
    }


def _rotations() -> NDArray[np.float64]:
    quaternions = np.random.default_rng(3).normal(size=(N_VIEWS, 4))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())
