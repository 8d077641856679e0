"""The likelihood of a half set image by image, as a data term of the fit: GEM's own way (arXiv 2509.25075, section 3).

Each step draws a few particles. It is the independent check of the collapsed term, and cheaper where few particles
lie in a huge box.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.dataset import FourierBatch, by_group, fourier_batch, read_order
from gem_plugin.device_batches import DeviceBatch, DeviceBatches, host_tensor
from gem_plugin.device_likelihood import DeviceLikelihood
from gem_plugin.image_cache import ImageCache
from gem_plugin.io.images import ImageReader
from gem_plugin.io.particles import Particles
from gem_plugin.ops import engines
from gem_plugin.ops.replicate import Tensors, replicate
from gem_plugin.prediction import Imaging, negative_log_likelihood, predicted_transforms, weights
from gem_plugin.symmetry import NO_SYMMETRY, PointGroup

PARTICLES_PER_STEP = 100

Batch = FourierBatch | DeviceBatch


class ImageTerm:
    """The negative log-likelihood of minibatches, scaled to the whole half set; a context that keeps stacks open.

    Parameters
    ----------
    indices : particles of the half set
    imaging : of this half
    generator : the half's own; draws the minibatches, each particle once in an epoch
    group : of which the Gaussians are those of one asymmetric unit
    scratch : a folder for images that fit into no memory
    tell : is told where images are kept
    """

    def __init__(
        self,
        particles: Particles,
        indices: NDArray[np.int64],
        imaging: Imaging,
        *,
        engine: str,
        generator: np.random.Generator,
        group: PointGroup = NO_SYMMETRY,
        particles_per_step: int = PARTICLES_PER_STEP,
        scratch: Path | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.voxels_per_px = max(imaging.render_boxes_px) / imaging.plane.box_size_px
        self.n_particles = len(indices)
        self._particles = particles
        self._imaging = imaging
        self._weights = [
            weights(plane, power) for plane, power in zip(imaging.planes, imaging.noise_power, strict=True)
        ]
        self._engine = engine
        self.device = engines.device_of(engine)
        self._on_device: tuple[DeviceBatches, DeviceLikelihood] | None = None
        if engines.uses_cuda_kernels(engine):
            makes = DeviceBatches(particles, imaging.planes, self.device)
            self._on_device = makes, DeviceLikelihood(imaging, engine)
        self._group = group
        self._draws = _minibatches(indices, min(particles_per_step, len(indices)), generator)
        self._reader = ImageReader(particles)
        try:
            self._cache = ImageCache(particles, indices, self._reader, self.device, scratch, tell)
        except BaseException:
            self._reader.close()
            raise
        self.position = 0  # minibatches used
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._next = self._worker.submit(self._load)

    def __enter__(self) -> "ImageTerm":
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._reader.close()

    @property
    def radius_px(self) -> float:
        """Half the edge of the images."""
        return self._imaging.plane.box_size_px / 2

    def box_size_at(self, step: int, schedule_steps: int) -> int:
        """Pixels on an axis of the projections; the same in every step."""
        return max(self._imaging.render_boxes_px)

    def backward(self, unit: Tensors, step: int, schedule_steps: int) -> float:
        """Add the gradients of the next minibatch; return its loss scaled to the half set, less a constant."""
        batches = self._minibatch()
        count = sum(len(batch.indices) for batch in batches)
        loss = self._loss(unit, batches) * (self.n_particles / count)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def best_scale(self, unit: Tensors) -> float:
        """The factor on all amplitudes that minimises the loss of one minibatch."""
        batches = self._minibatch()
        with torch.no_grad():
            loss, doubled = (float(self._loss((*unit[:3], factor * unit[3]), batches)) for factor in (1, 2))
        # with a factor f the loss is q f^2 - c f, so loss = q - c and doubled = 4 q - 2 c
        quadratic = (doubled - 2 * loss) / 2
        return (quadratic - loss) / (2 * quadratic) if quadratic > 0 else 1.0

    def _loss(self, unit: Tensors, batches: list[Batch]) -> torch.Tensor:
        whole = replicate(*unit, self._group.operators)
        loss = torch.zeros((), dtype=unit[0].dtype, device=self.device)
        for batch in batches:
            if isinstance(batch, DeviceBatch):
                assert self._on_device is not None
                loss = loss + self._on_device[1].loss(whole, batch)
                continue
            box = self._imaging.render_boxes_px[batch.group]
            views = self._imaging.views(batch)
            predicted = predicted_transforms(whole, views, batch.plane, box, engine=self._engine)
            predicted = predicted * float(self._imaging.greyscale[batch.group])
            loss = loss + negative_log_likelihood(predicted, batch, self._weights[batch.group])
        return loss

    def go_to(self, position: int) -> None:
        """Leave out minibatches, as if they had been used, until so many have been."""
        if position > self.position:
            self._next.result()
            for _ in range(position - self.position - 1):
                next(self._draws)
            self._next = self._worker.submit(self._load)
            self.position = position

    def _minibatch(self) -> list[Batch]:
        self.position += 1
        batches = self._next.result()
        self._next = self._worker.submit(self._load)  # read while this one is used
        return batches

    def _load(self) -> list[Batch]:
        chunk = read_order(self._particles, next(self._draws))
        return [self._batch(part) for part in by_group(self._particles, chunk)]

    def _batch(self, part: NDArray[np.int64]) -> Batch:
        images = self._cache.read(part)
        if isinstance(images, torch.Tensor) or self._on_device is not None:
            assert self._on_device is not None
            there = images if isinstance(images, torch.Tensor) else host_tensor(images, self.device)
            return self._on_device[0].batch(there, part)
        images = images.astype(np.float32, copy=False)
        return fourier_batch(self._particles, images, part, self._imaging.planes[self._group_of(part)])

    def _group_of(self, part: NDArray[np.int64]) -> int:
        return int(self._particles.group_of_particle[part[0]])


def _minibatches(indices: NDArray[np.int64], size: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffle, deal out, and begin again; a remainder waits for the next epoch's shuffle."""
    while True:
        shuffled = generator.permutation(indices)
        for start in range(0, len(shuffled) - size + 1, size):
            yield shuffled[start : start + size]
