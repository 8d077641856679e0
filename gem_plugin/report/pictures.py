"""Slices and projections of the map beside the model-free map's, filtered alike."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gem_plugin.fsc import Shells
from gem_plugin.reconstruction import Map, Reconstruction
from gem_plugin.report.layout import BODY_PT, SMALL_PT, add_axes, add_text

CELL_IN, GAP_IN = 1.52, 0.07
GROUP_GAP_IN = 0.22  # between the slices and the projections
LABELS_IN = 0.62  # room for the labels of the rows
HEADINGS_IN = 0.42  # room for the headings of the columns
BEHIND_LABEL = {"facecolor": "black", "edgecolor": "none", "pad": 0.8}
# One row of pictures an axis of view: the array axis cut or summed, its name, then the axes across and up.
VIEWS = ((0, "z", "x", "y"), (1, "y", "x", "z"), (2, "x", "y", "z"))


def draw_pictures(page: Figure, reconstruction: Reconstruction, left: float, top: float) -> float:
    """Draw three slices and three projections of both maps; return the height in inches of their lower edge."""
    first, second = reconstruction.halves
    mean = (first.model_free_map + second.model_free_map) / np.float32(2)
    model_free = Shells(len(mean)).filter(mean, reconstruction.curve.filter_weight)
    window = _window(reconstruction.mask)
    maps = (reconstruction.combined_map, model_free)
    _headings(page, left, top)
    for row, (axis, normal, across, up) in enumerate(VIEWS):
        bottom = top - HEADINGS_IN - (row + 1) * CELL_IN - row * GAP_IN
        add_text(page, left, bottom + CELL_IN / 2 + 0.06, f"along {normal}", BODY_PT, bold=True)
        add_text(page, left, bottom + CELL_IN / 2 - 0.08, f"{across} →  {up} ↑", SMALL_PT)
        slices = [np.take(volume, len(volume) // 2, axis=axis)[window, window] for volume in maps]
        projections = [volume.sum(axis=axis)[window, window] for volume in maps]
        outline = np.take(reconstruction.mask, len(reconstruction.mask) // 2, axis=axis)[window, window]
        for column, pictures in ((0, slices), (2, projections)):
            limits = _grey_limits(pictures)
            for offset, picture in enumerate(pictures):
                axes = add_axes(page, _column_left(left, column + offset), bottom, CELL_IN, CELL_IN)
                _show(axes, picture, limits)
                if column == 0:
                    _draw_outline(axes, outline)
                if row == 0 and column + offset == 0:
                    _scale_bar(axes, len(picture), reconstruction.pixel_size_in_angstroms)
    return top - HEADINGS_IN - 3 * CELL_IN - 2 * GAP_IN


def _column_left(left: float, column: int) -> float:
    return left + LABELS_IN + column * (CELL_IN + GAP_IN) + (GROUP_GAP_IN if column >= 2 else 0.0)


def _headings(page: Figure, left: float, top: float) -> None:
    for column, group in ((0, "Central slices"), (2, "Projections")):
        add_text(page, _column_left(left, column), top - 0.14, group, BODY_PT + 0.5, bold=True)
    for column, name in enumerate(("Gaussians, both halves", "model-free, same filter") * 2):
        add_text(page, _column_left(left, column), top - 0.33, name, BODY_PT)


def _window(mask: Map) -> slice:
    """Return the centred range of voxels that holds the mask with some solvent around it."""
    n, centre = len(mask), len(mask) // 2
    inside = np.argwhere(mask > 0.01)
    if not len(inside):
        return slice(0, n)
    reach = int(1.25 * np.abs(inside - centre).max()) + 2
    return slice(max(centre - reach, 0), min(centre + reach + 1, n))


def _grey_limits(pictures: list[NDArray[np.float32]]) -> tuple[float, float]:
    """Return one black and one white for pictures that are to be compared."""
    values = np.concatenate([picture.ravel() for picture in pictures])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.8])
    return float(low), float(high) if high > low else float(low) + 1.0


def _show(axes: Axes, picture: NDArray[np.float32], limits: tuple[float, float]) -> None:
    axes.imshow(
        picture, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", interpolation="nearest", aspect="auto"
    )
    axes.set_axis_off()


def _draw_outline(axes: Axes, outline: NDArray[np.float32]) -> None:
    if outline.min() < 0.5 < outline.max():
        axes.contour(outline, levels=[0.5], colors="white", linewidths=0.5, linestyles="dotted")


def _scale_bar(axes: Axes, n_pixels: int, pixel_size_in_angstroms: float) -> None:
    width = n_pixels * pixel_size_in_angstroms
    steps = np.array([1, 2, 5])[None, :] * 10.0 ** np.arange(-1, 5)[:, None]
    length = float(steps[steps <= 0.4 * width].max(initial=0.1))
    axes.plot([0.06, 0.06 + length / width], [0.07, 0.07], transform=axes.transAxes, color="white", linewidth=2)
    label = f"bar: {length:g} Å"
    axes.text(0.06, 0.1, label, transform=axes.transAxes, color="white", fontsize=SMALL_PT, bbox=BEHIND_LABEL)
