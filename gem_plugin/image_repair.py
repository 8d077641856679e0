"""What is done to particle images as they are read, where they are not as RELION leaves them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


@dataclass(frozen=True)
class ImageRepair:
    """Normalises images by their background, and inverts them; each image by itself."""

    backgrounds: tuple[Images | None, ...]  # of each optics group: [n, n] weight of its background; None: left alone
    is_inverting: bool = False  # multiply by -1, normalised or not

    def apply(self, images: Images, groups: NDArray[np.int32]) -> None:
        """Change images in place.

        An image whose background is constant has no noise to be scaled by and is only shifted.

        Parameters
        ----------
        images : [m, n, n]
        groups : [m] optics group of each, 0-based
        """
        for group in np.unique(groups):
            background = self.backgrounds[group]
            if background is None:
                continue
            rows = np.flatnonzero(groups == group)
            mean, deviation = background_statistics(images[rows], background)
            scale = np.where(deviation > 0, deviation, 1)
            images[rows] = (images[rows] - mean[:, None, None]) / scale[:, None, None]
        if self.is_inverting:
            np.negative(images, out=images)


def background_statistics(images: Images, background: Images) -> tuple[Images, Images]:
    """Weighted mean and standard deviation of each image's background, both [m].

    Parameters
    ----------
    images : [m, n, n]
    background : [n, n] weight of each pixel, not zero everywhere
    """
    weight = (background / background.sum(dtype=np.float64)).astype(np.float32).ravel()
    pixels = images.reshape(len(images), -1)
    mean = pixels @ weight
    deviation = np.sqrt((pixels - mean[:, None]) ** 2 @ weight)
    return mean, deviation
