"""What a report says of single particles: their names, from where they are seen, their optics groups."""

import numpy as np

from gem_plugin.io.particles import Particles
from gem_plugin.reconstruction import ParticleList


def list_particles(particles: Particles) -> ParticleList:
    """Names, view directions and optics groups of all particles, in table order."""
    numbers = particles.table["rlnOpticsGroup"].astype(str).to_numpy()
    used, index = np.unique(numbers, return_inverse=True)
    names = {number: f"optics group {number}" for number in used}
    if "rlnOpticsGroupName" in particles.optics_table.columns:
        table = particles.optics_table
        names |= dict(zip(table["rlnOpticsGroup"].astype(str), table["rlnOpticsGroupName"].astype(str), strict=True))
    return ParticleList(
        names=tuple(str(name) for name in particles.table["rlnImageName"]),
        view_angles_deg=particles.euler_angles_deg[:, :2],
        optics_group_names=tuple(names[number] for number in used),
        optics_group=index.astype(np.int64),
    )
