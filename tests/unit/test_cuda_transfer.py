"""The kernels of cuda/transfer.cu, run thread after thread: the host's batches, made on the device."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gem_plugin.conventions import centring_phases, half_plane
from gem_plugin.dataset import FourierBatch, fourier_batch, stream
from gem_plugin.device_batches import DeviceBatch, DeviceBatches
from gem_plugin.device_stream import stream_to_device
from gem_plugin.io.mtf import DetectorResponse
from gem_plugin.io.optics_table import CtfState, OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.noise_substitution import NoiseSubstitution
from gem_plugin.ops import cuda_compare, cuda_transfer
from gem_plugin.ops.cuda_transfer import PointPlaces
from gem_plugin.optics import contrast_transfer, phase_coefficients, phase_planes
from gem_plugin.phantom import random_particles
from gem_plugin.prediction import negative_log_likelihood, spectrum_places
from tests.cuda_shim.emulator import EmulatedGpu

pytestmark = pytest.mark.usefixtures("emulated_gpu")

CPU = torch.device("cpu")
COUNT = 6
TOLERANCE = 1e-6  # of the largest; worst measured 3e-7
PLAIN = OpticsGroup("one", 1.7, 24, 300.0, 2.7, 0.1)
SHEARED = dataclasses.replace(
    PLAIN,
    beam_tilt_mrad=(0.4, -0.3),
    odd_zernike=(0.1, -0.2, 3.0, 1.0, 0.5, -2.0),
    even_zernike=(0.2, 0.4, -3.0, 5.0, 2.0, 10.0),
    magnification=(1.02, 0.03, -0.01, 0.97),
)
RESPONSES = tuple(DetectorResponse(np.linspace(0, 0.6, 7), np.linspace(1, end, 7)) for end in (0.3, 0.8))


def particles_of(optics: OpticsGroup = PLAIN, **changes: object) -> Particles:
    """Particles far from their box's centre and far out of focus: hundreds of turns."""
    particles = random_particles(COUNT, optics, seed=1)
    random = np.random.default_rng(2)
    numbers = {
        "shifts_in_angstroms": random.uniform(-60, 60, (COUNT, 2)),
        "defocus_u_in_angstroms": random.uniform(5e3, 6e4, COUNT),
        "defocus_v_in_angstroms": random.uniform(5e3, 6e4, COUNT),
        "defocus_angle_deg": random.uniform(-180, 180, COUNT),
        "phase_shift_deg": random.uniform(0, 180, COUNT),
        "ctf_bfactor_in_angstroms2": random.uniform(-20, 60, COUNT),
        "ctf_scale": random.uniform(-1, 2, COUNT),
    }
    return dataclasses.replace(particles, **{**numbers, **changes})


def with_two_groups() -> Particles:
    second = dataclasses.replace(SHEARED, box_size_px=20, pixel_size_in_angstroms=2.0, ctf_state="phase-flipped")
    return particles_of(
        optics_groups=(PLAIN, second),
        group_of_particle=np.ones(COUNT, dtype=np.int32),
        detector_responses=RESPONSES,
    )


CASES: dict[str, Callable[[], Particles]] = {
    **{
        state: lambda state=state: particles_of(dataclasses.replace(PLAIN, ctf_state=state))  # type: ignore[misc]
        for state in ("plain", "phase-flipped", "premultiplied", "corrected")
    },
    "odd box": lambda: particles_of(dataclasses.replace(PLAIN, box_size_px=21)),
    "aberrations": lambda: particles_of(SHEARED),
    "intact to the first peak": lambda: particles_of(
        dataclasses.replace(PLAIN, ctf_is_intact_to_first_peak=True), defocus_u_in_angstroms=np.full(COUNT, 3000.0),
        defocus_v_in_angstroms=np.full(COUNT, 2500.0), phase_shift_deg=np.zeros(COUNT),
    ),
    "detectors, another box": with_two_groups,
    "scales and norms": lambda: particles_of(
        group_scale=np.linspace(0.5, 2, COUNT), norm_factor=np.linspace(1.5, 0.7, COUNT)
    ),
    "premultiplied and scaled": lambda: particles_of(
        dataclasses.replace(PLAIN, ctf_state="premultiplied"), group_scale=np.linspace(0.5, 2, COUNT)
    ),
    "random phases": lambda: particles_of(noise_substitution=NoiseSubstitution(5.0, 7)),
}  # fmt: skip


def images_of(particles: Particles, seed: int = 3) -> NDArray[np.float32]:
    n = particles.optics_groups[particles.group_of_particle[0]].box_size_px
    return np.random.default_rng(seed).normal(size=(COUNT, n, n)).astype(np.float32)


def both(particles: Particles) -> tuple[DeviceBatch, FourierBatch]:
    planes = [half_plane(group.box_size_px, 0.45 * group.box_size_px) for group in particles.optics_groups]
    images, everyone = images_of(particles), np.arange(COUNT)
    found = DeviceBatches(particles, planes, CPU).batch(images, everyone)
    return found, fourier_batch(particles, images, everyone, planes[particles.group_of_particle[0]])


def assert_close(found: torch.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:  # type: ignore[type-arg]
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_the_hosts(case: str) -> None:
    found, expected = both(CASES[case]())
    assert_close(found.observed, expected.observed)
    assert_close(found.ctf, expected.ctf)
    assert_close(found.adjoint, expected.adjoint)
    assert (found.adjoint is found.ctf) == (expected.adjoint is expected.ctf)
    for a, b in zip(found.plain(), expected.plain(), strict=True):
        assert_close(a, b, 20 * TOLERANCE)  # the divisor goes down to a twentieth
    assert (found.observed.dtype, found.ctf.dtype) == (torch.complex64, torch.float32)
    assert np.array_equal(found.slices, expected.slices)
    assert np.array_equal(found.indices, expected.indices)
    assert (found.group, found.plane) == (expected.group, expected.plane)


@pytest.mark.parametrize("changed", ["defocus_u_in_angstroms", "shifts_in_angstroms", "ctf_bfactor_in_angstroms2"])
def test_the_comparison_notices_a_thousandth(changed: str) -> None:
    particles = particles_of()
    found, _ = both(dataclasses.replace(particles, **{changed: 1.001 * getattr(particles, changed)}))
    _, expected = both(particles)
    errors = [
        np.abs(a.numpy() - b).max() / np.abs(b).max()
        for a, b in ((found.observed, expected.observed), (found.ctf, expected.ctf))
    ]
    assert max(errors) > 100 * TOLERANCE


@pytest.mark.parametrize("optics", [PLAIN, SHEARED])
def test_in_double_ctfs_are_the_formula(optics: OpticsGroup) -> None:
    particles, plane, everyone = particles_of(optics), half_plane(24, 11), np.arange(COUNT)
    waves, of_group = phase_planes(optics, plane)
    turns = phase_coefficients(particles, everyone) / (2 * np.pi)
    bits = particles.ctf_bfactor_in_angstroms2 / 4 / np.log(2)
    transfer, adjoint = cuda_transfer.ctf_of_points(
        torch.tensor(np.concatenate([waves[:3], of_group[None] / (2 * np.pi)])),
        torch.tensor(np.column_stack([turns, bits, particles.ctf_scale])),
        torch.ones(COUNT, dtype=torch.float64),
        "plain",
        False,
        source=cuda_transfer.DOUBLE,
    )
    assert adjoint is transfer
    assert_close(transfer, contrast_transfer(particles, everyone, plane), 1e-11)


def test_in_double_centring_is_the_formula() -> None:
    plane, random = half_plane(24, 11), np.random.default_rng(4)
    spectra = torch.fft.rfft2(torch.tensor(random.normal(size=(3, 24, 24))))
    factors = torch.tensor(random.normal(size=(2, len(plane.kx))) + 0.0)
    shifts, norms = random.uniform(-9, 9, (3, 2)), np.array([1.0, 2.0, -0.5])
    found = cuda_transfer.centre_images(
        spectra,
        PointPlaces.of(torch.tensor(plane.kx), torch.tensor(plane.ky), 24, CPU),
        torch.complex(factors[0], factors[1]),
        torch.tensor(np.column_stack([-shifts / 24, norms])),
        source=cuda_transfer.DOUBLE,
    )
    phases = np.exp(-2j * np.pi / 24 * (np.outer(shifts[:, 0], plane.kx) + np.outer(shifts[:, 1], plane.ky)))
    assert np.abs(phases - centring_phases(shifts, plane)).max() < 1e-6
    at_points = spectra.numpy()[:, plane.ky, plane.kx] * (factors[0] + 1j * factors[1]).numpy()
    assert_close(found, at_points * phases * norms[:, None], 1e-12)


def test_half_precision_images_stay_what_they_are() -> None:
    particles = particles_of()
    planes, everyone = [half_plane(24, 11)], np.arange(COUNT)
    images = images_of(particles).astype(np.float16)
    makes = DeviceBatches(particles, planes, CPU)
    found, expected = makes.batch(images, everyone), makes.batch(images.astype(np.float32), everyone)
    assert torch.equal(found.observed, expected.observed)
    assert np.array_equal(found.digests, expected.digests)


def test_a_stream_is_the_hosts() -> None:
    """Two optics groups of two boxes, batches of two: the same particles in the same order, each with its images."""
    groups = np.array([0, 1, 0, 1, 1, 1], dtype=np.int32)
    particles = dataclasses.replace(with_two_groups(), group_of_particle=groups, stack_of_particle=groups)
    planes = [half_plane(24, 10), half_plane(20, 8)]
    of_boxes = {n: np.random.default_rng(n).normal(size=(COUNT, n, n)).astype(np.float32) for n in (24, 20)}

    class Reader:
        def box_size_px(self, indices: NDArray[np.int64]) -> int:
            return particles.optics_groups[groups[indices[0]]].box_size_px

        def stored_type(self, indices: NDArray[np.int64]) -> type:
            return np.float32

        def read(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
            return of_boxes[self.box_size_px(indices)][indices]

        def read_unchecked(self, images: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
            images[:] = self.read(indices)

        def reader(self) -> "Reader":
            return self

    everyone = np.arange(COUNT)
    found = list(stream_to_device(particles, Reader(), everyone, planes, 2, CPU, 1))  # type: ignore[arg-type]
    expected = list(stream(particles, Reader(), everyone, planes, 2))  # type: ignore[arg-type]
    assert [len(batch.indices) for batch in found] == [2, 2, 2]
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a.indices, b.indices)
        assert_close(a.observed, b.observed)
        assert_close(a.ctf, b.ctf)
    assert not list(stream_to_device(particles, Reader(), everyone[:0], planes, 2, CPU, 1))  # type: ignore[arg-type]


def test_equal_images_and_no_others_have_equal_digests() -> None:
    """A pixel's last bit, its sign, its place, and two pixels of equal sum all count."""
    image = torch.tensor(np.random.default_rng(5).normal(size=(17, 17))).float()
    others = [image.clone() for _ in range(6)]
    others[0][3, 4] = torch.nextafter(image[3, 4], torch.tensor(9.0))
    others[1][16, 16] *= -1
    others[2] = image.T.contiguous()
    others[3][0, 0], others[3][0, 1] = image[0, 1], image[0, 0]
    others[4][5] = others[4][5].roll(1)
    others[5][:] = 0
    digests = cuda_transfer.digests_of(torch.stack([image, *others, image]))
    assert digests[0] == digests[-1]
    assert len(set(digests.tolist())) == 7


def likelihood_case() -> tuple[torch.Tensor, FourierBatch, PointPlaces, torch.Tensor, torch.Tensor]:
    """Points for more than one block, and for every warp of it."""
    _, batch = both(particles_of(dataclasses.replace(PLAIN, box_size_px=44)))
    random = np.random.default_rng(6)
    images = torch.tensor(random.normal(size=(COUNT, 50, 50)), dtype=torch.float32)
    rows, columns, signs = spectrum_places(batch.plane, 50)
    points = PointPlaces.of(torch.tensor(batch.plane.kx), torch.tensor(batch.plane.ky), 50, CPU)
    assert torch.equal(points.places, torch.tensor(rows * 26 + columns).int())
    strengths = torch.tensor(random.uniform(0.5, 2, len(rows)), dtype=torch.float32)
    return images, batch, points, torch.tensor(signs) * 1.7, strengths


def test_the_likelihood_and_its_gradient_are_the_hosts() -> None:
    images, batch, points, factors, strengths = likelihood_case()
    results = []
    for is_fused in (True, False):
        pixels = images.clone().requires_grad_()
        spectra = torch.fft.rfft2(pixels)
        if is_fused:
            ctf, observed = torch.tensor(batch.ctf), torch.tensor(batch.observed)
            loss = cuda_compare.likelihood_of_spectra(spectra, points, factors, strengths, ctf, observed)
        else:
            rows, columns, _ = spectrum_places(batch.plane, 50)
            loss = negative_log_likelihood(spectra[:, rows, columns] * factors, batch, strengths.numpy())
        (3 * loss).backward()
        assert pixels.grad is not None
        results.append((float(loss.detach()), pixels.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert float((results[0][1] - results[1][1]).norm() / results[1][1].norm()) < 1e-6


def test_in_double_the_likelihood_is_the_formula() -> None:
    images, batch, points, factors, strengths = likelihood_case()
    spectra = torch.fft.rfft2(images.double()).requires_grad_()
    ctf, observed = torch.tensor(batch.ctf).double(), torch.tensor(batch.observed).to(torch.complex128)
    modelled = spectra.reshape(COUNT, -1)[:, points.places.long()] * factors.double() * ctf
    expected = (strengths.double() * (modelled.abs() ** 2 - 2 * (modelled * observed.conj()).real)).sum(1)
    (gradient,) = torch.autograd.grad(expected.sum(), spectra)
    losses, found = cuda_compare.compare_spectra(
        spectra.detach(), points, factors.double(), strengths.double(), ctf, observed, source=cuda_transfer.DOUBLE
    )
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)


def test_the_order_of_threads_changes_nothing(emulated_gpu: EmulatedGpu) -> None:
    images, batch, points, factors, strengths = likelihood_case()
    spectra = torch.fft.rfft2(images)
    ctf, observed = torch.tensor(batch.ctf), torch.tensor(batch.observed)
    results = []
    for emulated_gpu.reversed_order in (False, True):
        found, _ = both(particles_of())
        compared = cuda_compare.compare_spectra(spectra, points, factors, strengths, ctf, observed)
        results.append((found.observed, found.ctf, found.digest_numbers, *compared))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_points_are_no_loss_and_points_outside_are_refused() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    points = PointPlaces.of(nothing, nothing, 8, CPU)
    real, complex_ = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.complex64)
    spectra = torch.ones(2, 8, 5, dtype=torch.complex64)
    losses, gradients = cuda_compare.compare_spectra(spectra, points, real[0], real[0], real, complex_)
    assert not losses.any()
    assert not gradients.any()
    for kx, ky in ((5, 0), (-1, 0), (0, 4)):
        with pytest.raises(ValueError, match="outside the transform of a box of 8 px"):
            PointPlaces.of(torch.tensor([kx]), torch.tensor([ky]), 8, CPU)
    with pytest.raises(ValueError, match="65536 particles in one call"):
        cuda_transfer.digests_of(torch.zeros(65536, 1, 1))


@pytest.mark.parametrize("state", ["plain", "premultiplied"])
def test_no_particles_make_empty_arrays(state: CtfState) -> None:
    transfer, adjoint = cuda_transfer.ctf_of_points(
        torch.zeros(4, 5, dtype=torch.float64), torch.zeros(0, 6, dtype=torch.float64), torch.zeros(0), state, False
    )
    assert transfer.shape == adjoint.shape == (0, 5)
