"""A small synthetic reconstruction and its odd cousins, for tests of what is made from one."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gem_plugin.gaussians.model import Gaussians
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

BOX, PIXEL = 32, 1.5
N_PARTICLES = 200
STATEMENT = "Resolution 4.37 Å: where the cross-validated correlation less one standard error crosses 0.5."
TITLE = "External/job012"
COMMAND = "gem-external --o External/job012/ --in_parts Refine3D/job011/run_data.star --cost $5 --name $x_{1}$ --j 4"


def synthetic_curve() -> ResolutionCurve:
    shells = np.arange(BOX // 2 + 1)
    with np.errstate(divide="ignore"):
        resolution = BOX * PIXEL / shells
    first = np.array([1, 4, 7, 10, 13])
    c_full = np.array([0.99, 0.95, 0.82, 0.45, np.nan])
    return ResolutionCurve(
        first_shell=first,
        last_shell=first + 2,
        band_resolution_in_angstroms=BOX * PIXEL / (first + 1.0),
        c_full=c_full,
        c_full_standard_error=np.array([0.004, 0.01, 0.03, 0.06, np.nan]),
        c_full_resampled_error=np.array([0.005, 0.009, 0.034, 0.05, np.nan]),
        c_full_randomised=np.array([np.nan, np.nan, 0.02, -0.03, np.nan]),
        c_full_randomised_error=np.array([np.nan, np.nan, 0.02, 0.05, np.nan]),
        band_model_free_fsc=np.array([0.97, 0.8, 0.45, 0.1, 0.01]),
        band_model_free_correlation=np.array([0.99, 0.94, 0.79, 0.43, 0.14]),
        n_independent=np.array([40.0, 130.0, 300.0, 500.0, 900.0]),
        is_measurable=np.isfinite(c_full),
        shell_resolution_in_angstroms=resolution,
        plain_half_map_fsc=1.0 - 0.02 * shells,
        model_free_fsc=np.exp(-((shells / 8.0) ** 2)),
        postprocess=PostProcessCurves(
            unmasked=np.exp(-((shells / 6.0) ** 2)),
            masked=np.exp(-((shells / 8.0) ** 2)),
            randomised=np.where(shells < 4, np.exp(-((shells / 8.0) ** 2)), 0.05),
            corrected=np.exp(-((shells / 8.0) ** 2)) - np.where(shells < 6, 0, 0.04),
            from_shell=4,
        ),
        filter_weight=np.where(shells < 11, 1.0 - 0.04 * shells, 0.0),
        resolution_in_angstroms=4.37,
        is_claimed=True,
        crosses_before_nyquist=True,
        statement=STATEMENT,
    )


def synthetic_half(half_set: int, density: NDArray[np.float32], n_gaussians: int = 500) -> HalfResult:
    random = np.random.default_rng(half_set)
    n_steps = 60
    steps = np.arange(n_steps)
    held_out = np.where(steps % 10 == 0, 0.3 - 1e-4 * (steps - 40.0) ** 2, np.nan)
    return HalfResult(
        half_set=half_set,
        n_particles=1000 + half_set,
        gaussians=Gaussians(
            centres_px=random.normal(0, 4, (n_gaussians, 3)).astype(np.float32),
            log_scales=random.normal(0.2, 0.25, (n_gaussians, 3)).astype(np.float32),
            quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (n_gaussians, 1)),
            amplitudes=random.gamma(3, 1, n_gaussians).astype(np.float32),
        ),
        gaussian_map=density,
        model_free_map=density + random.normal(0, 0.3 * density.std(), density.shape).astype(np.float32),
        quarter_maps=(density, density),
        noise_power=800 * (1 + np.exp(-np.arange(BOX // 2 + 1) / 3.0)),
        image_digests=(np.zeros(0, np.int64), np.zeros(0, np.uint64)),
        unseen_share=0.0,
        history=FitHistory(
            step=steps,
            loss=-120 * (1 - np.exp(-steps / 12.0)) + half_set,
            box_size_px=np.where(steps < 20, BOX // 2, BOX),
            held_out_score=held_out,
            n_gaussians=np.where(steps < 30, n_gaussians // 2, n_gaussians),
        ),
        particles=ParticleResults(
            indices=np.arange(half_set - 1, N_PARTICLES, 2),
            scale=random.normal(1, 0.3, N_PARTICLES // 2),
            normalised_residual=random.normal(1, 0.05, N_PARTICLES // 2),
            group_names=("1", "2"),
            group_counts=np.array([N_PARTICLES // 2 - 3, 3]),
            group_residual=np.array([[1.0, 1.01], [1.1, 1.3]]),
            band_first_shell=np.array([1, 2]),
            band_last_shell=np.array([1, BOX // 2]),
            shell_residual=np.linspace(0.8, 1.2, BOX // 2 + 1),
        ),
    )


def synthetic_particles() -> ParticleList:
    random = np.random.default_rng(5)
    angles = np.stack([random.uniform(-180, 180, N_PARTICLES), random.normal(90, 20, N_PARTICLES) % 180], axis=1)
    return ParticleList(
        names=tuple(f"{i + 1:06d}@Extract/job008/Micrographs/movie_{i // 20:03d}.mrcs" for i in range(N_PARTICLES)),
        view_angles_deg=angles,
        optics_group_names=("opticsGroup1", "opticsGroup2"),
        optics_group=(np.arange(N_PARTICLES) // 3) % 2,
    )


def synthetic_viewing(density: NDArray[np.float32]) -> ViewingMaps:
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    inverse_square = (np.arange(BOX // 2 + 1) / (BOX * PIXEL)) ** 2
    plot = GuinierPlot(
        inverse_square_in_per_angstrom2=inverse_square,
        log_amplitude=5 - 60 * inverse_square + 0.1 * np.cos(np.arange(BOX // 2 + 1)),
        is_fitted=(inverse_square > 0.01) & (inverse_square < 0.055),
        slope=-60.0,
        intercept=5.0,
        correlation=-0.99,
    )
    return ViewingMaps(
        unfiltered=density,
        sharpened=2 * density,
        sharpening=Sharpening(-240.0, plot, "Sharpened by a B-factor fitted to the Guinier plot."),
        locally_filtered=density,
        local_resolution=LocalResolution(
            in_angstroms=np.where(x**2 + y**2 + z**2 < 144, 4.5 + 0.02 * (x**2 + y**2), 0).astype(np.float32),
            window_radius_in_angstroms=9.0,
            statement="Local resolution by the same measure in sliding windows.",
        ),
    )


def synthetic_reconstruction() -> Reconstruction:
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    density = np.zeros((BOX, BOX, BOX), np.float32)
    for cx, cy, cz, width in ((3, 0, 0, 2.0), (-4, 2, 1, 1.5), (0, -4, 3, 1.2), (1, 5, -4, 1.8)):
        density += np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * width**2)).astype(np.float32)
    radius = np.sqrt(x**2 + y**2 + z**2)
    return Reconstruction(
        box_size_px=BOX,
        pixel_size_in_angstroms=PIXEL,
        halves=(synthetic_half(1, density), synthetic_half(2, density)),
        combined_map=density,
        calibrated_half_maps=(density, density),
        mask=np.clip((11 - radius) / 3, 0, 1).astype(np.float32),
        mask_origin="made from the model-free map, 5 px soft edge",
        curve=synthetic_curve(),
        viewing=synthetic_viewing(density),
        particle_list=synthetic_particles(),
        symmetry="C1",
        settings={"Gaussians a half": "500, chosen from the data", "optimiser": "Adam", "steps": "60, held out"},
        warnings=("Background standard deviation of the images is 1.31, outside 0.8 to 1.2.",),
    )


def changed(reconstruction: Reconstruction, **of_curve: object) -> Reconstruction:
    return dataclasses.replace(reconstruction, curve=dataclasses.replace(reconstruction.curve, **of_curve))


def with_noise_control(reconstruction: Reconstruction) -> Reconstruction:
    curve = reconstruction.curve
    control = NoiseControl(
        beyond_in_angstroms=8.0,
        from_shell=6,
        first_shell=curve.first_shell,
        last_shell=curve.last_shell,
        band_resolution_in_angstroms=curve.band_resolution_in_angstroms,
        c_full=np.array([0.99, 0.6, 0.03, -0.05, np.nan]),
        c_full_error=np.array([0.01, 0.02, 0.04, 0.08, np.nan]),
        is_beyond=np.array([False, False, True, True, False]),
        shell_resolution_in_angstroms=curve.shell_resolution_in_angstroms,
        plain_half_map_fsc=np.where(np.arange(BOX // 2 + 1) < 6, 1.0, 0.4),
        model_free_fsc=np.where(np.arange(BOX // 2 + 1) < 6, 0.9, 0.02),
        true_half_map_fsc=np.linspace(1, 0, BOX // 2 + 1),
        is_alarming=False,
        statement="Noise control: nothing is found where there is nothing.",
    )
    return dataclasses.replace(reconstruction, noise_control=control)


def without_gaussians(reconstruction: Reconstruction) -> Reconstruction:
    first, second = reconstruction.halves
    empty = synthetic_half(1, first.gaussian_map, n_gaussians=0).gaussians
    nothing = FitHistory(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    return dataclasses.replace(
        reconstruction,
        halves=(
            dataclasses.replace(first, gaussians=empty, history=nothing, noise_power=np.zeros(BOX // 2 + 1)),
            dataclasses.replace(second, gaussians=empty, history=nothing, noise_power=np.full(BOX // 2 + 1, np.nan)),
        ),
        combined_map=np.zeros_like(reconstruction.combined_map),
        settings={},
        warnings=(),
    )


def unclaimed(reconstruction: Reconstruction) -> Reconstruction:
    nothing = np.full(5, np.nan)
    plot = reconstruction.viewing.sharpening.plot
    no_line = dataclasses.replace(plot, is_fitted=np.zeros_like(plot.is_fitted), slope=np.nan, intercept=np.nan)
    viewing = dataclasses.replace(
        reconstruction.viewing,
        sharpening=Sharpening(None, no_line, "The map is not sharpened, because no resolution is claimed for it."),
        local_resolution=LocalResolution(
            np.zeros_like(reconstruction.mask), 9.0, "There is no local resolution, because none is claimed at all."
        ),
    )
    return changed(
        dataclasses.replace(reconstruction, viewing=viewing),
        c_full=nothing,
        c_full_standard_error=nothing,
        is_measurable=np.zeros(5, bool),
        filter_weight=np.zeros(BOX // 2 + 1),
        resolution_in_angstroms=None,
        is_claimed=False,
        crosses_before_nyquist=False,
        statement="No resolution is claimed: the first band cannot be told from noise.",
    )


def wordy(reconstruction: Reconstruction) -> Reconstruction:
    return dataclasses.replace(
        changed(reconstruction, statement=STATEMENT + " " + "The poses were not refined in separate halves. " * 12),
        mask_origin="/a/very/long/path/" + "folder_without_a_break_" * 12 + "/mask.mrc, as given",
        settings={f"setting {i}": "a choice made from the data and told at length " * 3 for i in range(40)},
        warnings=tuple(f"Warning {i}: " + "something that the user should know " * 8 for i in range(14)),
    )


CASES: dict[str, Callable[[], Reconstruction]] = {
    "usual": synthetic_reconstruction,
    "no resolution claimed": lambda: unclaimed(synthetic_reconstruction()),
    "not crossed before Nyquist": lambda: changed(
        synthetic_reconstruction(), resolution_in_angstroms=None, crosses_before_nyquist=False
    ),
    "noise control": lambda: with_noise_control(synthetic_reconstruction()),
    "no Gaussians, no signal, nothing recorded": lambda: without_gaussians(unclaimed(synthetic_reconstruction())),
    "long texts": lambda: wordy(synthetic_reconstruction()),
}
