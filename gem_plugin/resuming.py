"""Fits and results of a half set as arrays, for checkpoints, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.fit import GaussianFit
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.reconstruction import FitHistory, HalfResult, ParticleResults

Arrays = dict[str, NDArray[Any]]
Kept = Mapping[str, NDArray[Any]]

_GAUSSIANS = ("centres_px", "log_scales", "quaternions", "amplitudes")
_HISTORY = ("step", "loss", "box_size_px", "held_out_score", "n_gaussians")
_OF_PARTICLES = (
    *("indices", "scale", "normalised_residual", "group_counts", "group_residual", "band_first_shell"),
    *("band_last_shell", "shell_residual"),
)


def fit_arrays(fit: GaussianFit, step: int) -> Arrays:
    """A fit after so many steps, with all from which the next one follows."""
    state = {f"state_{index:03d}": tensor.cpu().numpy() for index, tensor in enumerate(fit.state())}
    return {"step": np.array(step), "position": np.array(fit.term.position), **state}


def resume(fit: GaussianFit, kept: Kept) -> int:
    """Go on where `fit_arrays` left a fit of the same start; return the steps that it had taken."""
    names = sorted(name for name in kept if name.startswith("state_"))
    fit.restore([torch.from_numpy(np.array(kept[name])) for name in names])
    fit.term.go_to(int(kept["position"]))
    return int(kept["step"])


def gaussian_arrays(fits: Sequence[Gaussians]) -> Arrays:
    """Finished fits."""
    return {
        f"fit{number}_{field}": np.asarray(getattr(one, field))
        for number, one in enumerate(fits)
        for field in (*_GAUSSIANS, "symmetry")
    }


def gaussians_of(kept: Kept) -> list[Gaussians]:
    """What `gaussian_arrays` was given, read from among others."""
    n_fits = sum(name.endswith("_amplitudes") for name in kept)
    return [
        Gaussians(
            symmetry=str(kept[f"fit{number}_symmetry"]),
            **{field: kept[f"fit{number}_{field}"] for field in _GAUSSIANS},
        )
        for number in range(n_fits)
    ]


def result_arrays(result: HalfResult) -> Arrays:
    """A half set's results."""
    particles = result.particles
    return {
        **gaussian_arrays([result.gaussians]),
        "numbers": np.array([result.half_set, result.n_particles]),
        "gaussian_map": result.gaussian_map,
        "model_free_map": result.model_free_map,
        "quarter_maps": np.stack(result.quarter_maps),
        "noise_power": result.noise_power,
        "digest_rows": result.image_digests[0],
        "digests": result.image_digests[1],
        "unseen_share": np.array(result.unseen_share),
        "group_names": np.array(particles.group_names, dtype=np.str_),
        **{f"history_{field}": np.asarray(getattr(result.history, field)) for field in _HISTORY},
        **{f"particles_{field}": np.asarray(getattr(particles, field)) for field in _OF_PARTICLES},
    }


def result_from(kept: Kept) -> HalfResult:
    """What `result_arrays` was given."""
    half_set, n_particles = (int(number) for number in kept["numbers"])
    names = tuple(str(name) for name in kept["group_names"])
    return HalfResult(
        half_set=half_set,
        n_particles=n_particles,
        gaussians=gaussians_of(kept)[0],
        gaussian_map=kept["gaussian_map"],
        model_free_map=kept["model_free_map"],
        quarter_maps=(kept["quarter_maps"][0], kept["quarter_maps"][1]),
        noise_power=kept["noise_power"],
        history=FitHistory(**{field: kept[f"history_{field}"] for field in _HISTORY}),
        particles=ParticleResults(group_names=names, **{field: kept[f"particles_{field}"] for field in _OF_PARTICLES}),
        image_digests=(kept["digest_rows"], kept["digests"]),
        unseen_share=float(kept["unseen_share"]),
    )
