"""Synthetic particles, Gaussians and normal equations of any size, made without files and what reads them."""

from pathlib import Path

import numpy as np
import torch
from poses import draw_poses

from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.map_operators import map_operator
from gem_plugin.normal_equations import NormalEquations
from gem_plugin.ops import voxelize

PIXEL_SIZE_IN_ANGSTROMS = 1.0
RADIUS = 0.3  # of the ball that holds the Gaussians, of the box's edge
WIDTH_PX = 1.0  # of Gaussians, in the mean; each axis' logarithm varies by WIDTH_SPREAD
WIDTH_SPREAD = 0.25
GAUSSIANS_TOLD = f"in a ball of radius {RADIUS} of the box, {WIDTH_PX} voxels wide (logarithm +- {WIDTH_SPREAD})"


def some_particles(n: int, box_size_px: int, stack: Path = Path("particles.mrcs"), seed: int = 1) -> Particles:
    """Particles of one optics group, the images of one stack in their order."""
    poses = draw_poses(np.random.default_rng(seed), n, PIXEL_SIZE_IN_ANGSTROMS)
    return Particles(
        table=None,  # type: ignore[arg-type]
        optics_table=None,  # type: ignore[arg-type]
        optics_groups=(OpticsGroup("optics", PIXEL_SIZE_IN_ANGSTROMS, box_size_px, 300.0, 2.7, 0.1),),
        group_of_particle=np.zeros(n, dtype=np.int32),
        euler_angles_deg=np.column_stack([poses.rot, poses.tilt, poses.psi]),
        shifts_in_angstroms=np.column_stack([poses.origin_x, poses.origin_y]),
        defocus_u_in_angstroms=poses.defocus_u,
        defocus_v_in_angstroms=poses.defocus_v,
        defocus_angle_deg=poses.defocus_angle,
        phase_shift_deg=np.zeros(n),
        ctf_bfactor_in_angstroms2=np.zeros(n),
        ctf_scale=np.ones(n),
        half_set=(1 + np.arange(n) % 2).astype(np.int8),
        half_sets_are_refined=True,
        stack_paths=(stack,),
        stack_of_particle=np.zeros(n, dtype=np.int32),
        image_in_stack=np.arange(n, dtype=np.int64),
    )


def some_gaussians(n: int, box_size_px: int, seed: int = 2) -> Gaussians:
    """Gaussians evenly in a ball, as wide as those of a fit, turned in all directions."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=(n, 3))
    direction *= (random.uniform(size=n) ** (1 / 3) / np.linalg.norm(direction, axis=1))[:, None]
    turns = random.normal(size=(n, 4))
    return Gaussians(
        (RADIUS * box_size_px * direction).astype(np.float32),
        (np.log(WIDTH_PX) + WIDTH_SPREAD * random.normal(size=(n, 3))).astype(np.float32),
        (turns / np.linalg.norm(turns, axis=1, keepdims=True)).astype(np.float32),
        random.uniform(0.5, 1.5, n).astype(np.float32),
    )


def tensors(gaussians: Gaussians, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Centres, log-scales, quaternions and amplitudes on a device."""
    arrays = gaussians.centres_px, gaussians.log_scales, gaussians.quaternions, gaussians.amplitudes
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def some_equations(box_size_px: int, engine: str, n_gaussians: int = 2000) -> NormalEquations:
    """Data up to Nyquist, whose strength falls with the frequency, of a map of Gaussians: b = T v."""
    n = box_size_px
    across = np.fft.fftfreq(2 * n, 1 / (2 * n)).astype(np.float32) ** 2
    along = np.arange(n + 1, dtype=np.float32) ** 2
    spectrum = across[:, None, None] + across[None, :, None] + along[None, None, :]
    spectrum *= 100 / n**2
    spectrum += 1
    np.reciprocal(spectrum, out=spectrum)
    empty = NormalEquations(np.zeros((n, n, n), dtype=np.float32), spectrum, 1)
    operator = map_operator(empty, engine, 1)
    volume = voxelize(*tensors(some_gaussians(n_gaussians, n, seed=7), operator.device), n, engine=engine)
    return NormalEquations(operator.apply(volume).cpu().numpy(), spectrum, 1)
