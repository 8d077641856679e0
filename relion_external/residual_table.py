"""What the Gaussians say of the particles: columns of ``run_data.star`` and ``gem_residuals.star``."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gem_plugin.reconstruction import HalfResult, Reconstruction
from relion_external.star import Cell, loop_block

SCALE_COLUMN = "gemParticleScale"
RESIDUAL_COLUMN = "gemNormalisedResidual"

_GROUPS = """Residual power of each group of particles over the assumed noise power, in bands of Fourier shells.
1 where the model, the CTF and the noise are right; far above 1: look at the micrograph."""
_SHELLS = "Assumed noise power, and residual power over it, of all particles of a half set."


def particle_columns(reconstruction: Reconstruction, n_particles: int) -> dict[str, NDArray[np.float64]]:
    """Columns for the particle table, each [n_particles]."""
    scale, residual = np.full(n_particles, np.nan), np.full(n_particles, np.nan)
    for half in reconstruction.halves:
        scale[half.particles.indices] = half.particles.scale
        residual[half.particles.indices] = half.particles.normalised_residual
    return {SCALE_COLUMN: scale, RESIDUAL_COLUMN: residual}


def residual_table(reconstruction: Reconstruction) -> str:
    """Return the text of ``gem_residuals.star``."""
    resolution = reconstruction.curve.shell_resolution_in_angstroms
    groups: dict[str, list[Cell]] = {}
    shells: dict[str, list[Cell]] = {}
    for half in reconstruction.halves:
        for row in _group_rows(half):
            _append(groups, row)
        for row in _shell_rows(half, resolution):
            _append(shells, row)
    return loop_block("groups", groups, _GROUPS) + loop_block("shells", shells, _SHELLS)


def _append(columns: dict[str, list[Cell]], row: dict[str, Cell]) -> None:
    for label, value in row.items():
        columns.setdefault(label, []).append(value)


def _group_rows(half: HalfResult) -> Sequence[dict[str, Cell]]:
    found = half.particles
    return [
        {
            "rlnRandomSubset": half.half_set,
            "rlnGroupName": "_".join(name.split()),  # RELION reads no quotation marks
            "rlnGroupNrParticles": int(count),
            "gemFirstShell": int(first),
            "gemLastShell": int(last),
            "gemResidualOverNoise": float(ratio),
        }
        for name, count, ratios in zip(found.group_names, found.group_counts, found.group_residual, strict=True)
        if count
        for first, last, ratio in zip(found.band_first_shell, found.band_last_shell, ratios, strict=True)
    ]


def _shell_rows(half: HalfResult, resolution: NDArray[np.float64]) -> Sequence[dict[str, Cell]]:
    return [
        {
            "rlnRandomSubset": half.half_set,
            "rlnSpectralIndex": shell,
            "rlnAngstromResolution": float(resolution[shell]),
            "rlnSigma2Noise": float(half.noise_power[shell]),
            "gemResidualOverNoise": float(half.particles.shell_residual[shell]),
        }
        for shell in range(len(half.noise_power))
    ]
