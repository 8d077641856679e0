"""``gem_chimerax.cxc``: opens the results of a job in ChimeraX, each where it lies on the others.

ChimeraX reads a command file in the folder in which it lies, so names alone find the files. It numbers what is opened
from 1: the file is meant for a fresh window.
"""

import numpy as np

from gem_plugin.reconstruction import Map, Reconstruction
from gem_plugin.symmetry import point_group
from relion_external.file_names import (
    COMBINED_MAP,
    GAUSSIAN_HALF_MAPS,
    GAUSSIANS_MMCIF,
    LOCAL_RESOLUTION,
    LOCALLY_FILTERED_MAP,
    MASK,
    MODEL_FREE_HALF_MAPS,
    SHARPENED_MAP,
)

MAP_COLOUR, MASK_COLOUR = "#b8b8b8", "#80b1d3"
HALF_COLOURS = ("#d95f02", "#1b9e77")
RESOLUTION_COLOURS = ("#2166ac", "#67a9cf", "#f7f7f7", "#ef8a62", "#b2182b")  # from fine to coarse
LEVEL_OF_MEAN = 0.5  # of the mean density, weighted by density, under the mask
LEAST_SPREAD_IN_ANGSTROMS = 0.1
SPHERE_PX = 0.3  # radius at which a Gaussian is drawn


def chimerax_script(reconstruction: Reconstruction, *, mask_was_given: bool) -> str:
    """Return the text of the command file.

    Parameters
    ----------
    mask_was_given
        Whether the mask lies elsewhere, and not among the results.
    """
    mask, halves, viewing = reconstruction.mask, reconstruction.halves, reconstruction.viewing
    script = _Script()
    shown = script.open_map(SHARPENED_MAP, contour_level(viewing.sharpened, mask), MAP_COLOUR)
    hidden: list[int] = []
    for names, maps in (
        ((COMBINED_MAP, LOCALLY_FILTERED_MAP), [reconstruction.combined_map, viewing.locally_filtered]),
        (GAUSSIAN_HALF_MAPS, [half.gaussian_map for half in halves]),
        (MODEL_FREE_HALF_MAPS, [half.model_free_map for half in halves]),
    ):
        colours = (MAP_COLOUR, MAP_COLOUR) if names[0] == COMBINED_MAP else HALF_COLOURS
        for name, volume, colour in zip(names, maps, colours, strict=True):
            hidden.append(script.open_map(name, contour_level(volume, mask), colour))
    if not mask_was_given:
        hidden.append(script.open_map(MASK, 0.5, MASK_COLOUR, style="mesh"))
    local_resolution = viewing.local_resolution.in_angstroms
    stops = palette(local_resolution, mask)
    coloured_by = 0
    if stops:
        coloured_by = script.open_map(LOCAL_RESOLUTION, float(np.median(local_resolution[mask > 0.5])), MASK_COLOUR)
        hidden.append(coloured_by)
    radius = SPHERE_PX * reconstruction.pixel_size_in_angstroms
    for name, colour, half in zip(GAUSSIANS_MMCIF, HALF_COLOURS, halves, strict=True):
        if len(half.gaussians):
            hidden.append(script.open_gaussians(name, colour, radius))
            if point_group(half.gaussians.symmetry).order > 1:
                script.note(f"for the whole map: sym #{hidden[-1]} assembly 1")
    script.note("what is hidden is shown by a tick in the list of models")
    script.add("hide #" + ",".join(str(number) for number in hidden) + " models")
    if stops:
        script.note("blue is fine, red is coarse; the key is in Angstrom")
        script.add(f"color sample #{shown} map #{coloured_by} palette {stops} key true")
    script.add(f"view #{shown}")
    return script.text


def contour_level(volume: Map, mask: Map) -> float:
    """A level that shows a map's outline: half of the mean density under the mask, weighted by density."""
    inside = np.clip(volume[mask > 0.5], 0, None).astype(np.float64)
    total = float(inside.sum())
    return LEVEL_OF_MEAN * float((inside**2).sum()) / total if total > 0 else 0.0


def palette(local_resolution: Map, mask: Map) -> str:
    """ChimeraX's spelling of colours at resolutions, spread over those under the mask; empty if there are none."""
    inside = local_resolution[(mask > 0.5) & np.isfinite(local_resolution) & (local_resolution > 0)]
    if not inside.size:
        return ""
    low, high = np.percentile(inside, [2, 98])
    at = np.linspace(low, max(high, low + LEAST_SPREAD_IN_ANGSTROMS), len(RESOLUTION_COLOURS))
    return ":".join(f"{value:.2f},{colour}" for value, colour in zip(at, RESOLUTION_COLOURS, strict=True))


class _Script:
    """Commands, and the numbers that ChimeraX gives to what they open."""

    def __init__(self) -> None:
        self._lines = ["# Open this file in a fresh ChimeraX window: docs/outputs.md says what each file is"]
        self._opened = 0

    @property
    def text(self) -> str:
        return "\n".join([*self._lines, ""])

    def add(self, command: str) -> None:
        self._lines.append(command)

    def note(self, words: str) -> None:
        self._lines.append(f"# {words}")

    def open_map(self, name: str, level: float, colour: str, *, style: str = "surface") -> int:
        number = self._open(name)
        self.add(f"volume #{number} style {style} step 1 level {level:.6g} color {colour}")
        return number

    def open_gaussians(self, name: str, colour: str, radius_in_angstroms: float) -> int:
        number = self._open(name)
        self.add(f"style #{number} sphere")
        self.add(f"size #{number} atomRadius {radius_in_angstroms:.3g}")
        self.add(f"color #{number} {colour}")
        self.note(f"as ellipsoids of one standard deviation: aniso #{number}")
        return number

    def _open(self, name: str) -> int:
        self._opened += 1
        self.add(f"open {name}")
        return self._opened
