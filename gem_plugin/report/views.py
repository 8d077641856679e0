"""From where the particles are seen."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from gem_plugin.report.layout import SECOND_LINE_PT, add_second_line, say
from gem_plugin.symmetry import PointGroup

Floats = NDArray[np.float64]

VIEWS_A_BIN = 4  # at least, on average: fewer would show chance
LEAST_ROWS, MOST_ROWS = 4, 18
TILT_TICKS_DEG = (0, 45, 90, 135, 180)


def view_directions(view_angles_deg: Floats, group: PointGroup) -> Floats:
    """Unit vectors x, y, z in the map from which particles and their symmetry mates are seen, [n x order, 3].

    Parameters
    ----------
    view_angles_deg : [n, 2] rlnAngleRot, rlnAngleTilt
    """
    rot, tilt = np.radians(view_angles_deg).T
    seen_from = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)
    return np.asarray(np.einsum("gij,nj->gni", group.operators, seen_from).reshape(-1, 3))


def views_over_uniform(directions: Floats) -> Floats:
    """Views in bins of equal solid angle, over their mean: [rows, 2 rows], rows of equal steps of cos(tilt), upwards.

    The first row is tilt 180 degrees, the last tilt 0; columns are rot from -180 to 180 degrees.
    """
    rows = int(np.clip(np.sqrt(len(directions) / VIEWS_A_BIN / 2), LEAST_ROWS, MOST_ROWS))
    rot = np.arctan2(directions[:, 1], directions[:, 0])
    counts, _, _ = np.histogram2d(
        np.clip(directions[:, 2], -1, 1), rot, bins=(rows, 2 * rows), range=((-1, 1), (-np.pi, np.pi))
    )
    return np.asarray(counts / max(counts.mean(), 1e-30))


def draw_views(axes: Axes, view_angles_deg: Floats, group: PointGroup) -> None:
    """Draw the distribution of views on an equal-area map of the sphere: dark where there are many."""
    axes.set_title("View directions", pad=SECOND_LINE_PT)
    axes.set(xlabel="rlnAngleRot (°)", ylabel="rlnAngleTilt (°)")
    if not len(view_angles_deg):
        axes.set(xticks=[], yticks=[])
        say(axes, "no particles")
        return
    density = views_over_uniform(view_directions(view_angles_deg, group))
    axes.imshow(
        density,
        cmap="Greys",
        vmin=0.0,
        vmax=float(density.max()),
        origin="lower",
        aspect="auto",
        extent=(-180, 180, -1, 1),
        interpolation="nearest",
    )
    axes.set_xticks([-180, -90, 0, 90, 180])
    axes.set_yticks(np.cos(np.radians(TILT_TICKS_DEG)), [str(tick) for tick in TILT_TICKS_DEG])
    mates = "" if group.order == 1 else f"; {group.name} mates too"
    add_second_line(axes, f"black: {density.max():.1f} × uniform{mates}")
