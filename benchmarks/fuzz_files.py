"""Whole files for the fuzzer to damage, written by hand: no code under test is used."""

import io
import struct
from pathlib import Path

import numpy as np

BOX_PX = 8
STACK = "Extract/a.mrcs"


def write_seeds(folder: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Write whole files of each kind; they lead to each other, so that damage is met as far in as possible."""
    stack = mrc(np.random.default_rng(0).normal(size=(6, BOX_PX, BOX_PX)))
    new, old = star_of_relion31(), star_of_relion30()
    files = {
        STACK: stack,
        "map.mrc": mrc(np.ones((BOX_PX, BOX_PX, BOX_PX))),
        "new.star": new,
        "old.star": old,
        "quoted.star": new.replace(b"mic1.mrc", b"'my mic 1.mrc'").replace(b"\n", b"\r\n"),
        "pairs.star": b"data_general\n\n_rlnA 1\n_rlnB 'two words'\n" + new,
        "J1/particles.cs": cs(),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {
        "star": [(name, content) for name, content in files.items() if name.endswith(".star")],
        "stack": [(STACK, stack)],
        "map": [("map.mrc", files["map.mrc"])],
        "cs": [("J1/particles.cs", files["J1/particles.cs"])],
    }


def mrc(data: np.ndarray) -> bytes:
    """An MRC file, written by hand."""
    header = bytearray(1024)
    n_z, n_y, n_x = data.shape
    struct.pack_into("<10i", header, 0, n_x, n_y, n_z, 2, 0, 0, 0, n_x, n_y, n_z)
    struct.pack_into("<6f3i", header, 40, 2.0 * n_x, 2.0 * n_y, 2.0 * n_z, 90, 90, 90, 1, 2, 3)
    header[208:212] = b"MAP "
    return bytes(header) + data.astype("<f4").tobytes()


def star_of_relion31() -> bytes:
    """Six particles of two optics groups."""
    optics = "".join(
        f"opticsGroup{group} {group} 300.0 2.7 0.1 2.0 {BOX_PX} 2 0.1 -0.2 [0.1,0.2,0.3] 1.0 0.0\n" for group in (1, 2)
    )
    rows = "".join(
        f"{i + 1:06d}@{STACK} mic1.mrc {1 + i % 2} {10.5 * i} {20.0 * i} {-3.25 * i} 0.5 -0.5 {9000 + i} 8000.0 30 "
        f"{1 + i // 3} 1 {1 + i % 2}\n"
        for i in range(6)
    )
    names = (
        "ImageName MicrographName OpticsGroup AngleRot AngleTilt AnglePsi OriginXAngst OriginYAngst DefocusU DefocusV "
        "DefocusAngle RandomSubset ClassNumber GroupNumber"
    )
    optics_names = (
        "OpticsGroupName OpticsGroup Voltage SphericalAberration AmplitudeContrast ImagePixelSize ImageSize "
        "ImageDimensionality BeamTiltX BeamTiltY OddZernike MagMat00 MagMat01"
    )
    return ("# version 30001\n" + loop("optics", optics_names, optics) + loop("particles", names, rows)).encode()


def star_of_relion30() -> bytes:
    """Six particles without data_optics."""
    names = (
        "ImageName AngleRot AngleTilt AnglePsi OriginX OriginY DefocusU DefocusV DefocusAngle RandomSubset Voltage "
        "SphericalAberration AmplitudeContrast DetectorPixelSize Magnification"
    )
    rows = "".join(
        f"{i + 1}@{STACK} {i} {2 * i} {3 * i} 0.5 1.5 9000 8000 30 {1 + i % 2} 300 2.7 0.1 5.0 25000\n"
        for i in range(6)
    )
    return loop("", names, rows).encode()


def loop(name: str, labels: str, rows: str) -> str:
    """One STAR table."""
    head = "".join(f"_rln{label} #{number}\n" for number, label in enumerate(labels.split(), 1))
    return f"\ndata_{name}\n\nloop_\n{head}{rows}\n"


def cs() -> bytes:
    """Six records of cryoSPARC, as numpy saves them."""
    records = np.zeros(
        6,
        dtype=[
            ("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)),
            ("blob/psize_A", "<f4"), ("blob/sign", "<f4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"),
            ("ctf/amp_contrast", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"),
            ("alignments3D/pose", "<f4", (3,)), ("alignments3D/shift", "<f4", (2,)), ("alignments3D/split", "<u4"),
        ],
    )  # fmt: skip
    for name, value in (
        ("blob/path", STACK.encode()), ("blob/idx", np.arange(6)), ("blob/shape", BOX_PX), ("blob/psize_A", 2.0),
        ("blob/sign", -1.0), ("ctf/accel_kv", 300), ("ctf/cs_mm", 2.7), ("ctf/amp_contrast", 0.1),
        ("ctf/df1_A", 9000), ("ctf/df2_A", 8000), ("alignments3D/split", [0, 1] * 3),
    ):  # fmt: skip
        records[name] = value
    file = io.BytesIO()
    np.save(file, records, allow_pickle=False)
    return file.getvalue()
