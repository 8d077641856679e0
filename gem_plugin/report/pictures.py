"""Slices and projections of the map beside the model-free map's, filtered alike."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gem_plugin.fsc import Shells
from gem_plugin.reconstruction import Map, Reconstruction
from gem_plugin.report.layout import BODY_PT, MARGIN_IN, PAGE_WIDTH_IN, SMALL_PT, add_axes, add_text

GAP_IN, GROUP_GAP_IN = 0.05, 0.2  # between pictures, and between the slices and the projections
CELL_IN = (PAGE_WIDTH_IN - 2 * MARGIN_IN - 4 * GAP_IN - GROUP_GAP_IN) / 6
HEADINGS_IN, ROW_LABEL_IN = 0.34, 0.2  # room for the headings of the columns, and above each row
BEHIND_LABEL = {"facecolor": "black", "edgecolor": "none", "pad": 0.8}
# Three slices, then three projections: the array axis cut or summed, its name, then the axes across and up.
VIEWS = ((0, "z", "x", "y"), (1, "y", "x", "z"), (2, "x", "y", "z"))
ROWS = ("Gaussians, both halves", "Model-free: the mean of the same half sets' maps without Gaussians, filtered alike")


def draw_pictures(page: Figure, reconstruction: Reconstruction, left: float, top: float) -> float:
    """Draw three slices and three projections of both maps; return the height in inches of their lower edge."""
    first, second = reconstruction.halves
    mean = (first.model_free_map + second.model_free_map) / np.float32(2)
    model_free = Shells(len(mean)).filter(mean, reconstruction.curve.filter_weight)
    window = _window(reconstruction.mask)
    maps = (reconstruction.combined_map, model_free)
    _headings(page, left, top)
    bottoms = [top - HEADINGS_IN - (row + 1) * (ROW_LABEL_IN + CELL_IN) for row in range(len(maps))]
    for bottom, name in zip(bottoms, ROWS, strict=True):
        add_text(page, left, bottom + CELL_IN + 0.06, name, BODY_PT, bold=True)
    for view, (axis, *_) in enumerate(VIEWS):
        slices = [np.take(volume, len(volume) // 2, axis=axis)[window, window] for volume in maps]
        projections = [volume.sum(axis=axis)[window, window] for volume in maps]
        outline = np.take(reconstruction.mask, len(reconstruction.mask) // 2, axis=axis)[window, window]
        for column, pictures in ((view, slices), (view + len(VIEWS), projections)):
            limits = _grey_limits(pictures)
            for row, picture in enumerate(pictures):
                axes = add_axes(page, _column_left(left, column), bottoms[row], CELL_IN, CELL_IN)
                _show(axes, picture, limits)
                if column == view:
                    _draw_outline(axes, outline)
                if row == 0 and column == 0:
                    _scale_bar(axes, len(picture), reconstruction.pixel_size_in_angstroms)
    return bottoms[-1]


def _column_left(left: float, column: int) -> float:
    return left + column * (CELL_IN + GAP_IN) + (GROUP_GAP_IN - GAP_IN if column >= len(VIEWS) else 0.0)


def _headings(page: Figure, left: float, top: float) -> None:
    for first, group in ((0, "Central slices"), (len(VIEWS), "Projections")):
        add_text(page, _column_left(left, first), top - 0.14, group, BODY_PT + 0.5, bold=True)
        for view, (_, normal, across, up) in enumerate(VIEWS):
            words = f"along {normal}: {across} →  {up} ↑"
            add_text(page, _column_left(left, first + view), top - HEADINGS_IN + 0.02, words, SMALL_PT)


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
