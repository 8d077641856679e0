"""The list of results that RELION's pipeline takes over when a job has succeeded.

RELION 3.1 reads a number for a file's type, RELION 4 and 5 read a label; one table with both columns serves all.
Only the label of a particle table differs between 4 and 5, so the version is read from the job's own job.star.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from relion_external.star import loop_block

RelionVersion = Literal["3.1", "4", "5"]


class NodeType(Enum):
    """What a file is to RELION: the number of 3.1, the label of 4, the label of 5."""

    MAP = (6, "DensityMap.mrc", "DensityMap.mrc")
    HALF_MAP = (10, "DensityMap.mrc.halfmap", "DensityMap.mrc.halfmap")
    MASK = (7, "Mask3D.mrc", "Mask3D.mrc")
    PARTICLES = (3, "ParticlesData.star.relion", "ParticleGroupMetadata.star.relion")
    LOCAL_RESOLUTION = (12, "Image3D.mrc.localresmap", "Image3D.mrc.localresmap")
    LOG = (13, "LogFile.pdf.relion", "LogFile.pdf.relion")

    @property
    def number(self) -> int:
        """Type in RELION 3.1."""
        return self.value[0]

    def label(self, version: RelionVersion) -> str:
        """Type in RELION 4 and 5."""
        return self.value[2] if version == "5" else self.value[1]


@dataclass(frozen=True)
class Node:
    """A result that other jobs can take."""

    file_name: str
    type: NodeType


def relion_version(job_star: Path) -> RelionVersion:
    """Tell from the job.star that RELION left in the job directory which RELION runs the job.

    RELION 3.1 writes the job's type as a number, 4 and 5 as a label; 4 and 5 differ in the version comment. Without
    the file, as when the command was typed by hand, the newest is assumed.
    """
    try:
        text = job_star.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "5"
    if "_rlnJobTypeLabel" not in text:
        return "3.1"
    return "5" if "# version 50001" in text else "4"


def node_table(directory: Path, nodes: list[Node], version: RelionVersion) -> str:
    """Return the text of the table for a job in `directory`, which is named as ``--o`` named it."""
    return loop_block(
        "output_nodes",
        {
            "rlnPipeLineNodeName": [(directory / node.file_name).as_posix() for node in nodes],
            "rlnPipeLineNodeType": [node.type.number for node in nodes],
            "rlnPipeLineNodeTypeLabel": [node.type.label(version) for node in nodes],
        },
    )
