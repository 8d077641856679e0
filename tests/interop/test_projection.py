"""RELION's projector and CTF as judges of our forward model: rotation, shift, CTF, greyscale, every sign of them."""

import dataclasses
from pathlib import Path

import finufft
import numpy as np
import pytest
from numpy.typing import NDArray

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch, fourier_batch
from gem_plugin.io.particles import Particles
from gem_plugin.optics import contrast_transfer
from tests.interop import simulated

pytestmark = pytest.mark.relion

FINEST = 0.4  # cycles/px, up to which RELION's interpolation and ours must agree
LARGEST_ERROR = 0.02  # relative L2 in any shell; measured: 0.0065


def all_indices(particles: Particles) -> NDArray[np.int64]:
    return np.arange(len(particles))


def predict(volume: NDArray[np.float32], batch: FourierBatch, plane: conventions.HalfPlane) -> NDArray[np.complex128]:
    """The data term's model of the centred images: CTF x the map's transform, evaluated exactly on each slice."""
    points = conventions.slice_points(batch.slices, plane).astype(np.float64).reshape(3, -1)
    radians = points * (2 * np.pi / volume.shape[0])
    z, y, x = (np.ascontiguousarray(axis) for axis in radians[::-1])
    slices = finufft.nufft3d2(z, y, x, volume.astype(np.complex128), isign=-1, eps=1e-9)
    return slices.reshape(batch.ctf.shape) * batch.ctf


def shell_errors(ours: NDArray[np.complex128], theirs: NDArray[np.complex64], plane: conventions.HalfPlane) -> NDArray:
    """|ours - theirs| / |theirs| in each shell, over all images."""
    weight = np.broadcast_to(plane.weight, ours.shape).ravel()
    shell = np.broadcast_to(plane.shell, ours.shape).ravel()

    def power(values: NDArray) -> NDArray:
        return np.bincount(shell, weights=weight * np.abs(values.ravel()) ** 2)[1:]

    return np.sqrt(power(ours - theirs) / power(theirs))


def slope(ours: NDArray[np.complex128], theirs: NDArray[np.complex64], plane: conventions.HalfPlane) -> float:
    """Regression of RELION's values on ours."""
    return float(np.sum(plane.weight * (ours.conj() * theirs).real) / np.sum(plane.weight * np.abs(ours) ** 2))


@pytest.fixture(scope="module", params=[64, 90])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> simulated.Project:
    box = request.param
    return simulated.project(
        tmp_path_factory.mktemp(f"box{box}"), simulated.blobs(box, seed=3), simulated.random_columns(50, seed=11)
    )


def test_projections_agree_with_relion_project(project: simulated.Project) -> None:
    particles = project.particles()
    plane = conventions.half_plane(project.truth.shape[0], FINEST * project.truth.shape[0])
    batch = fourier_batch(particles, project.images(), all_indices(particles), plane)
    ours = predict(project.truth, batch, plane)
    errors = shell_errors(ours, batch.observed, plane)
    assert errors.max() <= LARGEST_ERROR, np.round(errors, 3)
    assert slope(ours, batch.observed, plane) == pytest.approx(1.0, abs=0.01)


def flipped_defocus_angle(particles: Particles) -> Particles:
    return dataclasses.replace(particles, defocus_angle_deg=-particles.defocus_angle_deg)


def flipped_shift(particles: Particles) -> Particles:
    return dataclasses.replace(particles, shifts_in_angstroms=-particles.shifts_in_angstroms)


def swapped_shift(particles: Particles) -> Particles:
    return dataclasses.replace(particles, shifts_in_angstroms=particles.shifts_in_angstroms[:, ::-1])


def shifts_in_pixels(particles: Particles) -> Particles:
    shifts = particles.shifts_in_angstroms * particles.optics.pixel_size_in_angstroms
    return dataclasses.replace(particles, shifts_in_angstroms=shifts)


def inverse_rotation(particles: Particles) -> Particles:
    return dataclasses.replace(particles, euler_angles_deg=-particles.euler_angles_deg[:, ::-1])


def overfocus(particles: Particles) -> Particles:
    u, v = particles.defocus_u_in_angstroms, particles.defocus_v_in_angstroms
    return dataclasses.replace(particles, defocus_u_in_angstroms=-u, defocus_v_in_angstroms=-v)


@pytest.mark.parametrize(
    "mistake", [flipped_defocus_angle, flipped_shift, swapped_shift, shifts_in_pixels, inverse_rotation, overfocus]
)
def test_the_comparison_notices_a_wrong_convention(project: simulated.Project, mistake) -> None:
    particles = mistake(project.particles())
    plane = conventions.half_plane(project.truth.shape[0], FINEST * project.truth.shape[0])
    batch = fourier_batch(particles, project.images(), all_indices(particles), plane)
    assert shell_errors(predict(project.truth, batch, plane), batch.observed, plane).max() > 2 * LARGEST_ERROR


def mirrored(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(volume[::-1], 1, axis=0)  # about the centre voxel


def negated(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return -volume


def transposed(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(volume.transpose(2, 1, 0))


def one_voxel_off(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(volume, 1, axis=2)


def brighter(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return volume * np.float32(1.02)


@pytest.mark.parametrize("mistake", [mirrored, negated, transposed, one_voxel_off, brighter])
def test_the_comparison_notices_a_wrong_map(project: simulated.Project, mistake) -> None:
    particles = project.particles()
    plane = conventions.half_plane(project.truth.shape[0], FINEST * project.truth.shape[0])
    batch = fourier_batch(particles, project.images(), all_indices(particles), plane)
    ours = predict(mistake(project.truth), batch, plane)
    too_far = shell_errors(ours, batch.observed, plane).max() > LARGEST_ERROR
    assert too_far or abs(slope(ours, batch.observed, plane) - 1) > 0.01


@pytest.mark.parametrize(("seed", "is_intact"), [*((seed, False) for seed in range(6)), (0, True), (3, True)])
def test_ctf_agrees_with_relion(tmp_path: Path, seed: int, is_intact: bool) -> None:
    """A point at the box centre looks the same from everywhere: its image's transform is the CTF.

    Also where CTFs are taken to be 1 up to their first peak, as rlnDoIgnoreCtfUntilFirstPeak says in an optimiser.star.
    """
    box, n = 64, 25
    random = np.random.default_rng(seed)
    delta = np.zeros((box,) * 3, dtype=np.float32)
    delta[box // 2, box // 2, box // 2] = 1
    columns = simulated.random_columns(n, seed, astigmatism=3000.0)
    for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"):
        columns[name] = np.zeros(n)
    columns["PhaseShift"] = random.uniform(0, 180, n)
    columns["CtfBfactor"] = random.uniform(0, 100, n)
    columns["CtfScalefactor"] = random.uniform(0.6, 1.3, n)
    project = simulated.project(
        tmp_path,
        delta,
        columns,
        voltage_kv=random.choice([120.0, 200.0, 300.0]),
        spherical_aberration_mm=random.choice([0.01, 1.4, 2.7]),
        amplitude_contrast=random.choice([0.0, 0.07, 0.2]),
        more_optics=_distortions(random) if seed % 2 else {},
        words=("--ctf_intact_first_peak",) if is_intact else (),
    )
    particles = project.particles()
    plain = particles
    if is_intact:
        of_refinement = (dataclasses.replace(particles.optics_groups[0], ctf_is_intact_to_first_peak=True),)
        particles = dataclasses.replace(particles, optics_groups=of_refinement)
    plane = conventions.half_plane(box, box / 2 - 0.5)
    theirs = conventions.image_transforms(project.images(), plane)
    ours = contrast_transfer(particles, all_indices(particles), plane)
    np.testing.assert_allclose(theirs.imag, 0, atol=1e-3)
    np.testing.assert_allclose(theirs.real, ours, atol=1e-3)
    if is_intact:
        assert np.abs(contrast_transfer(plain, all_indices(plain), plane) - ours).max() > 0.5


def _distortions(random: np.random.Generator) -> dict[str, str]:
    """Symmetric aberrations of some radians at Nyquist, and a magnification of some percent."""
    nyquist = 0.5 / simulated.PIXEL_SIZE_IN_ANGSTROMS
    degrees = [0, 2, 2, 2, 4, 4, 4, 4, 4]
    terms = [random.normal() / nyquist**degree for degree in degrees]
    matrix = np.eye(2) + random.uniform(-0.03, 0.03, (2, 2))
    labels = ("MagMat00", "MagMat01", "MagMat10", "MagMat11")
    return {"EvenZernike": "[" + ",".join(f"{term:.6f}" for term in terms) + "]"} | {
        label: f"{value:.6f}" for label, value in zip(labels, matrix.ravel(), strict=True)
    }
