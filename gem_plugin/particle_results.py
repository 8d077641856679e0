"""What the finished Gaussians say of each particle and of each group of particles of one half set."""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gem_plugin.conventions import HalfPlane
from gem_plugin.dataset import FourierBatch, read_order, stream
from gem_plugin.device_batches import DeviceBatch
from gem_plugin.device_likelihood import DeviceLikelihood
from gem_plugin.device_stream import stream_to_device
from gem_plugin.gaussians.model import Gaussians
from gem_plugin.io.images import ReaderPool
from gem_plugin.io.particles import Particles
from gem_plugin.map_slices import MapSlices
from gem_plugin.monitor import Monitor
from gem_plugin.ops import engines
from gem_plugin.ops.compare import compare_transforms
from gem_plugin.ops.replicate import Tensors
from gem_plugin.prediction import Imaging, projection_spectra, spectrum_places
from gem_plugin.reconstruction import ParticleResults
from gem_plugin.render import as_tensors
from gem_plugin.team import SOLO, Team

GROUP_COLUMNS = ("rlnGroupName", "rlnGroupNumber", "rlnMicrographName")  # the first that is there names the groups
PARTICLES_PER_BATCH = 100
TOLERATED = 0.2  # of the assumed noise power, before a spectrum is called wrong
SIGNIFICANCE = 5.0  # standard errors
UNEXPLAINED_SHARE = 0.5  # of the groups: with more, the map is to blame and not they
N_BANDS = 8  # of shells, in which a group's few particles are judged


def particle_results(
    gaussians: Gaussians,
    particles: Particles,
    indices: NDArray[np.int64],
    imaging: Imaging,
    *,
    engine: str,
    n_threads: int,
    monitor: Monitor,
    team: Team = SOLO,
    owner: int = 0,
) -> ParticleResults:
    """Project Gaussians onto every particle's image and compare.

    On the CPU, the projections of a model with a point group are slices of its map (`gem_plugin.map_slices`).

    With X the CTF-multiplied projection, Y the image and sigma^2 the assumed noise power, a particle's scale is
    <X, Y> / <X, X>, the least-squares factor on X, and its normalised residual the mean of |scale X - Y|^2 / sigma^2
    over the Fourier points used: 1 where projection and noise are right.

    Parameters
    ----------
    gaussians : of this half, lengths in pixels
    indices : [m] this half's particles
    imaging : of this half
    n_threads : of the projections' transforms
    team : whose members compare some particles each
    owner : the member whose results are those of all particles
    """
    plane = imaging.plane
    names, group_of = particle_groups(particles)
    sums = _ShellSums(len(names), plane.box_size_px // 2 + 1)
    scale, residual = np.zeros(len(particles)), np.zeros(len(particles))
    done = 0
    own = team.share(read_order(particles, indices))
    with (
        ReaderPool(particles) as readers,
        contextlib.closing(  # before the readers of the threads that read ahead
            _compared(
                gaussians, particles, readers, own, imaging, engine=engine, n_threads=n_threads, n_shells=sums.n_shells
            )
        ) as compared,
    ):
        for batch, fitted, left in compared:
            scale[batch.indices] = fitted
            residual[batch.indices] = left.sum(axis=1) / batch.plane.weight.sum()
            sums.add(left, batch.plane, group_of[batch.indices])
            done += len(batch.indices)
            monitor.advance(min(done * team.size, len(indices)))
    team.sum_at(owner, (scale, residual, *sums.arrays))
    bands = _bands(plane)
    return ParticleResults(
        indices=indices,
        scale=scale[indices],
        normalised_residual=residual[indices],
        group_names=names,
        group_counts=sums.counts,
        group_residual=np.stack([sums.group_means(band) for band in bands], axis=1),
        band_first_shell=np.array([band[0] for band in bands]),
        band_last_shell=np.array([band[-1] for band in bands]),
        shell_residual=sums.shell_means(),
    )


def _compared(
    gaussians: Gaussians,
    particles: Particles,
    readers: ReaderPool,
    indices: NDArray[np.int64],
    imaging: Imaging,
    *,
    engine: str,
    n_threads: int,
    n_shells: int,
) -> Generator[tuple[FourierBatch | DeviceBatch, NDArray[np.float64], NDArray[np.float64]], None, None]:
    """Batch after batch of particles and what `_compare` says of it, by the engine's own means."""
    if gaussians.symmetry != "C1" and engine == "cpu":
        slices = MapSlices(gaussians, imaging, engine=engine, n_threads=n_threads)
        for batch in stream(particles, readers.reader(), indices, imaging.planes, PARTICLES_PER_BATCH):
            yield batch, *_compare_slices(slices.transforms(batch), batch, imaging, n_shells)
        return
    whole = as_tensors(gaussians, device=engines.device_of(engine))
    if engines.uses_cuda_kernels(engine):
        likelihood = DeviceLikelihood(imaging, engine)
        device = likelihood.device
        for there in stream_to_device(
            particles, readers, indices, imaging.planes, PARTICLES_PER_BATCH, device, n_threads
        ):
            yield there, *likelihood.compare(whole, there, n_shells)
        return
    for batch in stream(particles, readers.reader(), indices, imaging.planes, PARTICLES_PER_BATCH):
        yield batch, *_compare(whole, batch, imaging, engine, n_threads, n_shells)


def _compare(
    whole: Tensors, batch: FourierBatch, imaging: Imaging, engine: str, n_threads: int, n_shells: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each particle's scale, [m], and what is left of its image over the noise, summed in the map's shells, [m, s]."""
    box = imaging.render_boxes_px[batch.group]
    spectra = projection_spectra(whole, imaging.views(batch), box, engine=engine, n_threads=n_threads)
    return _compare_at(spectra, spectrum_places(batch.plane, box), batch, imaging, n_shells)


def _compare_slices(
    transforms: NDArray[Any], batch: FourierBatch, imaging: Imaging, n_shells: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`_compare` with the projections' transforms [m, points] at hand."""
    n = transforms.shape[1]
    places = np.zeros(n, dtype=np.int64), np.arange(n), np.ones(n, dtype=np.float32)
    return _compare_at(transforms[:, None], places, batch, imaging, n_shells)


def _compare_at(
    spectra: NDArray[Any],
    places: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
    batch: FourierBatch,
    imaging: Imaging,
    n_shells: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    plane = batch.plane
    observed, ctf = batch.plain()
    ctf = ctf * np.float32(imaging.greyscale[batch.group])
    strengths = plane.weight / imaging.noise_power[batch.group].astype(np.float64)
    shell = np.minimum(plane.map_shell, n_shells - 1)
    fitted, left = np.empty(len(batch.indices)), np.zeros((len(batch.indices), n_shells))
    compare_transforms(spectra, *places, ctf, observed, strengths, shell, fitted, left)
    return fitted, left


def particle_groups(particles: Particles) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the groups, and each particle's index among them; one group where the table names none."""
    for column in GROUP_COLUMNS:
        if column in particles.table.columns:
            names, index = np.unique(particles.table[column].astype(str).to_numpy(), return_inverse=True)
            return tuple(str(name) for name in names), index.astype(np.int64)
    return ("all particles",), np.zeros(len(particles), dtype=np.int64)


def check_residuals(results: ParticleResults, plane: HalfPlane) -> list[str]:
    """Sentences about groups whose residual is more than the noise that was assumed.

    Less is no fault of theirs: a few particles' noise can be fitted.
    """
    first, last = results.band_first_shell, results.band_last_shell
    used = results.group_counts > 0
    ratios, departures = results.group_residual[used], _departures(results, plane)
    wrong = (departures > TOLERATED).any(axis=1)
    if not wrong.any():
        return []
    group, band = np.unravel_index(int(np.argmax(departures)), departures.shape)
    name = [name for name, is_used in zip(results.group_names, used, strict=True) if is_used][group]
    most = f"{ratios[group, band]:.2f} times the assumed power in Fourier shells {first[band]} to {last[band]}"
    if wrong.mean() > UNEXPLAINED_SHARE:
        return [
            f"most groups of particles have residuals beyond the noise that was assumed (at most {most}): the images"
            " hold signal that the map does not explain; errors of the poses or CTFs do that"
        ]
    return [
        f"{int(wrong.sum())} of {len(ratios)} group(s) of particles have residuals beyond the noise that was assumed;"
        f" the furthest is group {name}, {most}: a bad micrograph? See gem_residuals.star"
    ]


def caveat(results: Sequence[ParticleResults], plane: HalfPlane) -> str:
    """What has to stand beside the resolution if either half set's images are not explained; empty if they are.

    Half maps that agree cannot show it: errors of poses and CTFs may be the same in both.
    """
    if not any((_departures(one, plane) > TOLERATED).any(axis=1).mean() > UNEXPLAINED_SHARE for one in results):
        return ""
    return "; beware: most groups of images hold signal that the map does not explain, a fault both halves may share"


def _departures(results: ParticleResults, plane: HalfPlane) -> NDArray[np.float64]:
    """What the residuals of groups that have particles are beyond the noise and its chance, [groups, bands]."""
    points = np.array(
        [
            2 * plane.weight[(plane.shell >= first) & (plane.shell <= last)].sum()
            for first, last in zip(results.band_first_shell, results.band_last_shell, strict=True)
        ]
    )
    used = results.group_counts > 0
    errors = np.sqrt(2 / (points * results.group_counts[used][:, None]))
    return np.asarray(results.group_residual[used] - 1 - SIGNIFICANCE * errors)


def _bands(plane: HalfPlane) -> list[NDArray[np.int64]]:
    shells = np.unique(plane.shell)
    return [band for band in np.array_split(shells, N_BANDS) if len(band)]


class _ShellSums:
    """Residual power summed by group and shell of the map."""

    def __init__(self, n_groups: int, n_shells: int) -> None:
        self.n_shells = n_shells
        self.counts = np.zeros(n_groups, dtype=np.int64)  # particles of each group
        self._sums = np.zeros((n_groups, n_shells))
        self._points = np.zeros((n_groups, n_shells))

    def add(self, left: NDArray[np.float64], plane: HalfPlane, groups: NDArray[np.int64]) -> None:
        """Add particles' sums [m, shells] to those of the groups [m]."""
        shell = np.minimum(plane.map_shell, self.n_shells - 1)
        np.add.at(self._sums, groups, left)
        np.add.at(self._points, groups, np.bincount(shell, weights=plane.weight, minlength=self.n_shells))
        np.add.at(self.counts, groups, 1)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All that is summed, for other processes to add to."""
        return self.counts, self._sums, self._points

    def group_means(self, band: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean over a band of shells, [groups]."""
        return _mean(self._sums[:, band].sum(axis=1), self._points[:, band].sum(axis=1))

    def shell_means(self) -> NDArray[np.float64]:
        """Mean over all particles, [shells]."""
        return _mean(self._sums.sum(axis=0), self._points.sum(axis=0))


def _mean(total: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0))
