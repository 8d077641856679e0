"""The table of results and the STAR text around it, read back by the field's own reader."""

import io
from pathlib import Path

import pytest
import starfile

from relion_external.file_names import NODES
from relion_external.nodes import Node, NodeType, node_table, relion_version
from relion_external.star import loop_block, simple_block

# As RELION itself writes them (3.1.3, 4.0.2, 5.0.1).
JOB_STARS = {
    "3.1": "\n# version 30001\n\ndata_job\n\n_rlnJobType                            99\n_rlnJobIsContinue    0\n",
    "4": "\n# version 30001\n\ndata_job\n\n_rlnJobTypeLabel             relion.external\n_rlnJobIsContinue    0\n",
    "5": "\n# version 50001\n\ndata_job\n\n_rlnJobTypeLabel             relion.external\n_rlnJobIsContinue    0\n",
}


@pytest.mark.parametrize("version", ["3.1", "4", "5"])
def test_the_version_is_read_from_the_jobs_own_file(tmp_path: Path, version: str):
    (tmp_path / "job.star").write_text(JOB_STARS[version])
    assert relion_version(tmp_path / "job.star") == version


def test_without_the_file_the_newest_is_assumed(tmp_path: Path):
    assert relion_version(tmp_path / "job.star") == "5"


def read(text: str, tmp_path: Path) -> dict:
    path = tmp_path / "table.star"
    path.write_text(text)
    return starfile.read(path, always_dict=True)


@pytest.mark.parametrize(
    ("version", "particles"),
    [
        ("3.1", "ParticlesData.star.relion"),
        ("4", "ParticlesData.star.relion"),
        ("5", "ParticleGroupMetadata.star.relion"),
    ],
)
def test_names_numbers_and_labels(tmp_path: Path, version: str, particles: str):
    nodes = [
        Node("run_half1_class001_unfil.mrc", NodeType.HALF_MAP),
        Node("run_class001.mrc", NodeType.MAP),
        Node("mask.mrc", NodeType.MASK),
        Node("run_data.star", NodeType.PARTICLES),
        Node("logfile.pdf", NodeType.LOG),
    ]
    table = read(node_table(Path("External/job012/"), nodes, version), tmp_path)["output_nodes"]
    assert table["rlnPipeLineNodeName"].tolist() == [f"External/job012/{node.file_name}" for node in nodes]
    assert table["rlnPipeLineNodeType"].tolist() == [10, 6, 7, 3, 13]
    assert table["rlnPipeLineNodeTypeLabel"].tolist() == [
        "DensityMap.mrc.halfmap",
        "DensityMap.mrc",
        "Mask3D.mrc",
        particles,
        "LogFile.pdf.relion",
    ]
    assert NODES == "RELION_OUTPUT_NODES.star"


def test_star_text_survives_reading(tmp_path: Path):
    text = simple_block("general", {"gemStatement": 'it\'s 3.1 A, "so"', "gemYes": True, "gemNumber": 1.7699999}, "why")
    text += loop_block("table", {"gemA": [1, 2], "gemB": [0.1, float("nan")], "gemC": ["x", ""]})
    blocks = read(text, tmp_path)
    assert blocks["general"]["gemStatement"] == "it's 3.1 A, 'so'"
    assert float(blocks["general"]["gemNumber"]) == pytest.approx(1.7699999, rel=1e-8)
    assert int(blocks["general"]["gemYes"]) == 1
    assert blocks["table"]["gemA"].tolist() == [1, 2]
    assert io.StringIO(text).readlines()[1] == "# version 30001\n"
