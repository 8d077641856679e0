"""Scales, residuals and groups of particles whose truth is known."""

import dataclasses

import numpy as np
import pytest

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.optics_table import OpticsGroup
from gem_plugin.io.particles import Particles
from gem_plugin.map_slices import MapSlices
from gem_plugin.monitor import SilentMonitor
from gem_plugin.particle_results import caveat, check_residuals, particle_groups, particle_results
from gem_plugin.phantom import random_particles
from gem_plugin.prediction import Imaging, predicted_transforms
from gem_plugin.reconstruction import ParticleResults
from gem_plugin.render import as_tensors, choose_render_box, in_voxels
from gem_plugin.report.front_page import MAX_STATEMENT_LINES, TEXT_WIDTH_IN
from gem_plugin.report.layout import STATEMENT_PT, wrap
from gem_plugin.statement import Evidence, make_claim

N, COUNT, GROUPS = 24, 60, 3
SCALES = np.linspace(0.5, 1.5, COUNT)
SIGMA = 0.02
PLANE = conventions.half_plane(N, N / 2 - 0.5)


@pytest.fixture(scope="module")
def gaussians() -> Gaussians:
    random = np.random.default_rng(0)
    return Gaussians(
        random.uniform(-5, 5, (30, 3)).astype(np.float32),
        np.log(random.uniform(0.8, 1.5, (30, 3))).astype(np.float32),
        np.tile(np.array([1, 0, 0, 0], np.float32), (30, 1)),
        random.uniform(0.5, 1.5, 30).astype(np.float32),
    )


@pytest.fixture(scope="module")
def particles() -> Particles:
    made = random_particles(COUNT, OpticsGroup("one", 3.0, N, 300.0, 2.7, 0.1), seed=1)
    names = [f"group{row % GROUPS}" for row in range(COUNT)]
    return dataclasses.replace(made, table=made.table.assign(rlnGroupName=names))


def results(
    gaussians: Gaussians,
    particles: Particles,
    monkeypatch: pytest.MonkeyPatch,
    noisier: float = 1.0,
    truth: Gaussians | None = None,
    sigma: float = SIGMA,
) -> ParticleResults:
    """Images are scaled projections plus white noise; group 1's noise is `noisier` times stronger in power."""
    from gem_plugin.optics import contrast_transfer

    rotations = conventions.rotation_matrices(particles.euler_angles_deg)
    box = choose_render_box(PLANE)
    shown = in_voxels(as_tensors(truth or gaussians), box / N)
    clean = predicted_transforms(shown, rotations, PLANE, box, engine="cpu").numpy()
    random = np.random.default_rng(2)
    noise = (random.normal(size=clean.shape) + 1j * random.normal(size=clean.shape)) * sigma / np.sqrt(2)
    noise[1::GROUPS] *= np.sqrt(noisier)
    observed = SCALES[:, None] * contrast_transfer(particles, np.arange(COUNT), PLANE) * clean + noise

    def stream(_particles, _reader, indices, planes, size):  # type: ignore[no-untyped-def]
        ctf = contrast_transfer(particles, indices, planes[0]).astype(np.float32)
        images = observed[indices].astype(np.complex64)
        yield FourierBatch(indices, planes[0], 0, rotations[indices], images, ctf, ctf, indices.astype(np.uint64))

    monkeypatch.setattr("gem_plugin.particle_results.stream", stream)
    return particle_results(
        gaussians,
        particles,
        np.arange(COUNT),
        Imaging(PLANE, (PLANE,), (np.full(len(PLANE.kx), sigma**2, dtype=np.float32),), np.ones(1), (box,)),
        engine="cpu",
        n_threads=2,
        monitor=SilentMonitor(),
    )


@pytest.mark.parametrize("symmetry", ["C3", "D2", "T"])
def test_slices_of_the_map_are_the_transforms_of_the_projections(gaussians, particles, symmetry) -> None:  # type: ignore[no-untyped-def]
    """For images of the map's pixels, and of others that are stretched."""
    few = dataclasses.replace(gaussians, symmetry=symmetry, log_scales=np.maximum(gaussians.log_scales, 0.1))
    box = choose_render_box(PLANE)
    smaller = conventions.half_plane(N + 6, N / 2 - 3, 1.1)
    imaging = Imaging(
        PLANE, (PLANE, smaller), (np.ones(1, np.float32),) * 2, np.ones(2), (box, choose_render_box(smaller))
    )
    rotations = conventions.rotation_matrices(particles.euler_angles_deg[:5])
    slices = MapSlices(few, imaging, engine="cpu", n_threads=1)
    for group, plane, scale in ((0, PLANE, 1.0), (1, smaller, 1.1)):
        stretched = scale * (np.diag([1.02, 0.97, 1.0]) @ rotations if group else rotations)
        none = np.zeros((5, len(plane.kx)), np.complex64)
        batch = FourierBatch(np.arange(5), plane, group, stretched, none, none.real, none.real, np.zeros(5, np.uint64))
        drawn = predicted_transforms(
            as_tensors(few), imaging.views(batch), plane, imaging.render_boxes_px[group], engine="cpu", cutoff_sigmas=6
        ).numpy()
        difference = np.linalg.norm(slices.transforms(batch) - drawn) / np.linalg.norm(drawn)
        assert difference < 2e-3  # a footprint of six widths here, of four in the map


def test_particles_of_a_point_group_are_compared_as_they_are_without(  # type: ignore[no-untyped-def]
    gaussians, particles, monkeypatch
) -> None:
    whole = as_tensors(dataclasses.replace(gaussians, symmetry="D2"))
    spelled_out = Gaussians(*(part.numpy() for part in whole))
    found = [
        results(one, particles, monkeypatch, truth=spelled_out, sigma=0.3)
        for one in (dataclasses.replace(gaussians, symmetry="D2"), spelled_out)
    ]
    for field in ("scale", "normalised_residual", "group_residual"):  # a ball is cut off in the map, a disc in an image
        np.testing.assert_allclose(getattr(found[0], field), getattr(found[1], field), rtol=5e-3)


def test_scales_and_residuals_are_the_simulated_ones(gaussians, particles, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = results(gaussians, particles, monkeypatch)
    np.testing.assert_allclose(found.scale, SCALES, atol=0.02)
    n_points = 2 * PLANE.weight.sum()
    assert np.all(np.abs(found.normalised_residual - 1) < 6 * np.sqrt(2 / n_points))
    assert abs(found.normalised_residual.mean() - 1) < 6 * np.sqrt(2 / n_points / COUNT)
    assert np.all(np.abs(found.shell_residual[2:-1] - 1) < 0.15)
    assert check_residuals(found, PLANE) == []


def test_a_group_with_other_noise_is_named(gaussians, particles, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = results(gaussians, particles, monkeypatch, noisier=1.8)
    assert found.group_names == ("group0", "group1", "group2")
    np.testing.assert_array_equal(found.group_counts, [20, 20, 20])
    assert np.all(np.abs(found.group_residual[1] - 1.8) < 0.25)
    assert np.all(np.abs(found.group_residual[[0, 2]] - 1) < 0.15)
    (sentence,) = check_residuals(found, PLANE)
    assert "1 of 3 group(s)" in sentence
    assert "group1" in sentence


def test_where_all_groups_depart_no_micrograph_is_blamed(gaussians, particles, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = results(gaussians, particles, monkeypatch)
    everywhere = dataclasses.replace(found, group_residual=found.group_residual * 2)
    (sentence,) = check_residuals(everywhere, PLANE)
    assert "most groups" in sentence
    assert "poses" in sentence
    assert check_residuals(dataclasses.replace(found, group_residual=found.group_residual / 2), PLANE) == []


def test_the_resolution_is_qualified_where_most_groups_are_not_explained(gaussians, particles, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = results(gaussians, particles, monkeypatch)
    one = dataclasses.replace(found, group_residual=found.group_residual * np.array([[1], [1], [2]]))
    two = dataclasses.replace(found, group_residual=found.group_residual * np.array([[1], [2], [2]]))
    assert caveat([found, found], PLANE) == ""
    assert caveat([one, one], PLANE) == ""
    for pair in ([found, two], [two, found]):
        assert "signal that the map does not explain" in caveat(pair, PLANE)


def test_the_longest_statement_and_its_caution_stand_on_page_one_in_full(gaussians, particles, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = results(gaussians, particles, monkeypatch)
    beware = caveat([dataclasses.replace(found, group_residual=found.group_residual * 2)] * 2, PLANE)
    evidence = Evidence(
        np.array([0.9, 0.3]), np.array([2.0, 3.0]), np.array([True, False]), 15, 32, 300.0, True, False, False
    )
    for one in (evidence, dataclasses.replace(evidence, shares_noise=True)):
        lines = wrap(make_claim(one).sentence + beware, TEXT_WIDTH_IN, STATEMENT_PT, bold=True)
        assert len(lines) <= MAX_STATEMENT_LINES


def test_groups_follow_the_table(particles: Particles) -> None:
    names, index = particle_groups(particles)
    assert names == ("group0", "group1", "group2")
    np.testing.assert_array_equal(index[:4], [0, 1, 2, 0])
    bare = dataclasses.replace(particles, table=particles.table.iloc[:, :0])
    names, index = particle_groups(bare)
    assert len(names) == 1
    assert not index.any()
