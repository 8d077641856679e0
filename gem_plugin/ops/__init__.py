"""Gaussians onto grids, forward and gradient: one public signature, several engines."""

from gem_plugin.ops.engines import resolve_engine as resolve_engine
from gem_plugin.ops.project import project as project
from gem_plugin.ops.voxelize import DEFAULT_CUTOFF_SIGMAS as DEFAULT_CUTOFF_SIGMAS
from gem_plugin.ops.voxelize import voxelize as voxelize
