"""What both halves of a run share."""

from dataclasses import dataclass

from gem_plugin.checkpoints import NO_CHECKPOINTS, Checkpoints
from gem_plugin.config import ReconstructionConfig
from gem_plugin.conventions import HalfPlane
from gem_plugin.monitor import Monitor
from gem_plugin.symmetry import PointGroup
from gem_plugin.team import SOLO, Team


@dataclass(frozen=True)
class Run:
    """What both halves share: settings and machinery, no data."""

    config: ReconstructionConfig
    engine: str  # "cpu", "reference", or a GPU such as "cuda:0"
    n_threads: int
    plane: HalfPlane
    render_box_px: int  # voxels on an axis of the grid on which Gaussians are drawn
    radius_px: float  # of the particle sphere
    group: PointGroup
    monitor: Monitor
    team: Team = SOLO  # the processes that share the work
    engine_reason: str = ""  # why that engine, in words
    checkpoints: Checkpoints = NO_CHECKPOINTS

    @property
    def voxels_per_px(self) -> float:
        """Voxels of the render grid on a pixel of the images."""
        return self.render_box_px / self.plane.box_size_px

    @property
    def last_shell(self) -> int:
        """Last Fourier shell of the map that holds data."""
        return min(int(self.plane.radius.max()), self.plane.box_size_px // 2)
