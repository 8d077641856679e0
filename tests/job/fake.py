"""A stand-in for the science: quick, and able to misbehave on command. For the tests of the job around it.

Run as a program it is ``gem-external`` with the stand-in inside; the environment variable GEM_FAKE says what it does.
"""

import os
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gem_plugin.checkpoints import Store
from gem_plugin.config import ReconstructionConfig
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.monitor import Monitor
from gem_plugin.reconstruction import (
    FitHistory,
    GuinierPlot,
    HalfResult,
    LocalResolution,
    NoiseControl,
    ParticleList,
    ParticleResults,
    PostProcessCurves,
    Reconstruction,
    ResolutionCurve,
    Sharpening,
    ViewingMaps,
)
from gem_plugin.team import Team

STATEMENT = "The resolution is 8.00 A, said the stand-in"


@dataclass(frozen=True)
class FakePlan:
    disk_bytes: float = 3e6
    checkpoint_bytes: float = 1e6
    scratch_bytes: float = 0.0

    def lines(self) -> list[str]:
        return ["A stand-in is run, in no time."]


def plan(particles: Particles, config: ReconstructionConfig, *, n_threads: int) -> FakePlan:
    return FakePlan()


def reconstruct(
    particles: Particles,
    config: ReconstructionConfig,
    *,
    n_threads: int,
    mask: NDArray[np.float32] | None,
    reference: NDArray[np.float32] | None,
    monitor: Monitor,
    team: Team,
    store: Store,
) -> Reconstruction:
    """Half maps are the mean image of each half set, stacked; the settings tell what was passed."""
    how = os.environ.get("GEM_FAKE", "")
    behave(how, monitor)
    first = half_result(particles, 1, monitor, store)
    if how == "patient later":
        behave("patient", monitor)
    halves = first, half_result(particles, 2, monitor, store)
    box = particles.optics.box_size_px
    return Reconstruction(
        box_size_px=box,
        pixel_size_in_angstroms=particles.optics.pixel_size_in_angstroms,
        halves=(halves[0], halves[1]),
        combined_map=(halves[0].gaussian_map + halves[1].gaussian_map) / 2,
        calibrated_half_maps=(halves[0].gaussian_map * 2, halves[1].gaussian_map * 2),
        mask=np.ones((box, box, box), np.float32) if mask is None else mask,
        mask_origin="given" if mask is not None else "made",
        curve=curve(box // 2 + 1),
        particle_list=ParticleList(
            names=tuple(str(name) for name in particles.table["rlnImageName"]),
            view_angles_deg=particles.euler_angles_deg[:, :2],
            optics_group_names=("1",),
            optics_group=np.zeros(len(particles), np.int64),
        ),
        symmetry=config.sym,
        viewing=viewing(halves[0].gaussian_map),
        settings={"seed": str(config.seed), "reference": str(reference is not None), "threads": str(n_threads)},
        warnings=("the stand-in knows nothing of molecules",),
        noise_control=noise_control(config.noise_control, curve(box // 2 + 1)) if config.noise_control else None,
    )


def noise_control(beyond_in_angstroms: float, curve: ResolutionCurve) -> NoiseControl:
    return NoiseControl(
        beyond_in_angstroms=beyond_in_angstroms,
        from_shell=4,
        first_shell=curve.first_shell,
        last_shell=curve.last_shell,
        band_resolution_in_angstroms=curve.band_resolution_in_angstroms,
        c_full=curve.c_full / 11,
        c_full_error=curve.c_full / 12,
        is_beyond=np.array([False, True, True]),
        shell_resolution_in_angstroms=curve.shell_resolution_in_angstroms,
        plain_half_map_fsc=curve.model_free_fsc / 13,
        model_free_fsc=curve.model_free_fsc / 14,
        true_half_map_fsc=curve.model_free_fsc / 15,
        is_alarming=False,
        statement="Noise control: nothing, said the stand-in",
    )


def viewing(volume: NDArray[np.float32]) -> ViewingMaps:
    nothing = np.full(volume.shape[0] // 2 + 1, np.nan)
    plot = GuinierPlot(nothing, nothing, np.zeros(len(nothing), bool), np.nan, np.nan, np.nan)
    return ViewingMaps(
        unfiltered=volume * 3,
        sharpened=volume * 4,
        sharpening=Sharpening(None, plot, "the stand-in sharpens nothing"),
        locally_filtered=volume * 5,
        local_resolution=LocalResolution(volume * 6, 10.0, "the stand-in sees no place"),
    )


def write_report(reconstruction: Reconstruction, path: Path, *, title: str, command: str) -> None:
    path.write_bytes(b"%PDF-1.4\n" + f"{title}\n{command}\n{reconstruction.curve.statement}".encode())


def behave(how: str, monitor: Monitor) -> None:
    monitor.stage("Standing in", 600, "steps")
    if how == "crash":
        raise ValueError("the stand-in was told to crash")
    if how == "memory":
        raise MemoryError("Unable to allocate 99 GiB")
    if how == "stuck":
        time.sleep(60)
    if how == "patient":
        for step in range(600):
            time.sleep(0.1)
            monitor.advance(step)


def mean_image(particles: Particles, half: int, monitor: Monitor, store: Store) -> NDArray[np.float32]:
    """Read once, and then from the store."""
    kept = store.load(f"half{half}")
    if kept is not None:
        monitor.note(f"Half {half}: from the checkpoint")
        return kept["mean"]
    indices = np.flatnonzero(particles.half_set == half)
    monitor.stage(f"Half {half}: reading", len(indices), "particles")
    with ImageReader(particles) as reader:
        mean: NDArray[np.float32] = reader.read(indices).mean(axis=0)
    monitor.advance(len(indices), loss=1.0)
    store.keep(f"half{half}", {"mean": mean})
    return mean


def half_result(particles: Particles, half: int, monitor: Monitor, store: Store) -> HalfResult:
    indices = np.flatnonzero(particles.half_set == half)
    mean = mean_image(particles, half, monitor, store)
    box = particles.optics.box_size_px
    volume = np.broadcast_to(mean, (box, box, box)).astype(np.float32)
    one = np.ones(1)
    return HalfResult(
        half_set=half,
        n_particles=len(indices),
        gaussians=Gaussians(
            np.zeros((1, 3), np.float32),
            np.zeros((1, 3), np.float32),
            np.array([[1, 0, 0, 0]], np.float32),
            mean[:1, 0].astype(np.float32),
        ),
        gaussian_map=volume,
        model_free_map=volume / 2,
        quarter_maps=(volume, volume),
        noise_power=np.ones(box // 2 + 1),
        image_digests=(indices, indices.astype(np.uint64)),
        unseen_share=0.0,
        history=FitHistory(np.zeros(1, np.int64), one, np.full(1, box), one, np.ones(1, np.int64)),
        particles=ParticleResults(
            indices=indices,
            scale=half + 0.001 * indices,
            normalised_residual=10 * half + 0.001 * indices,
            group_names=("1",),
            group_counts=np.array([len(indices)]),
            group_residual=np.array([[0.9, 1.1 * half]]),
            band_first_shell=np.array([1, 2]),
            band_last_shell=np.array([1, box // 2]),
            shell_residual=np.full(box // 2 + 1, 1.0 + half),
        ),
    )


def curve(n_shells: int) -> ResolutionCurve:
    shells = np.arange(n_shells, dtype=np.float64)
    bands = np.array([0.99, 0.8, 0.3])
    with np.errstate(divide="ignore"):
        resolution = 64.0 / shells
    return ResolutionCurve(
        first_shell=np.array([1, 4, 7]),
        last_shell=np.array([3, 6, 9]),
        band_resolution_in_angstroms=np.array([32.0, 12.8, 8.0]),
        c_full=bands,
        c_full_standard_error=bands / 50,
        c_full_resampled_error=bands / 40,
        c_full_randomised=bands / 30,
        c_full_randomised_error=bands / 20,
        band_model_free_fsc=bands / 2,
        band_model_free_correlation=bands / 1.5,
        n_independent=bands * 1000,
        is_measurable=np.array([True, True, False]),
        shell_resolution_in_angstroms=resolution,
        plain_half_map_fsc=np.exp(-shells / 10),
        model_free_fsc=np.exp(-shells / 5),
        postprocess=PostProcessCurves(*(np.exp(-shells / length) for length in (6, 7, 8, 9)), from_shell=3),
        filter_weight=np.exp(-shells / 3),
        resolution_in_angstroms=8.0,
        is_claimed=True,
        crosses_before_nyquist=True,
        statement=STATEMENT,
    )


def install() -> None:
    """Put the stand-in where the science is, before that is imported: a process of its own starts quickly so."""
    replaced = {"gem_plugin.reconstruct": (plan, reconstruct), "gem_plugin.report": (write_report,)}
    for name, functions in replaced.items():
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function.__name__, function)
        sys.modules[name] = module


if __name__ == "__main__":
    from relion_external.job import main

    install()
    sys.exit(main())
