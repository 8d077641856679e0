"""Particle images with everything a microscope and a pipeline do to them, by formulas that are written out here.

relion_project knows neither beam tilt nor odd Zernike terms, nor the magnification in the geometry; so the images of
these tests are sums over blobs whose transform is known, and RELION judges them by what it reconstructs from them.
Nothing of the code under test is used.
"""

from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tests.interop import simulated

Floats = NDArray[np.float64]
PIXEL = simulated.PIXEL_SIZE_IN_ANGSTROMS


@dataclass(frozen=True)
class Lens:
    """An optics group; Zernike terms by index, in RELION's order."""

    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd: dict[int, float] = field(default_factory=dict)
    even: dict[int, float] = field(default_factory=dict)
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)
    voltage: float = 300.0
    cs: float = 2.7
    q0: float = 0.1
    state: str = "plain"
    mtf: str = ""  # name of a STAR file
    mtf_slope: float = 0.0  # its value is 1 - slope x (cycles a pixel)

    def columns(self, box: int, number: int) -> dict[str, str]:
        """The row of data_optics: label -> value."""
        row = {
            "OpticsGroupName": f"group{number}",
            "OpticsGroup": str(number),
            "Voltage": str(self.voltage),
            "SphericalAberration": str(self.cs),
            "AmplitudeContrast": str(self.q0),
            "ImagePixelSize": str(PIXEL),
            "MicrographOriginalPixelSize": str(PIXEL),
            "ImageSize": str(box),
            "ImageDimensionality": "2",
            "BeamTiltX": str(self.beam_tilt[0]),
            "BeamTiltY": str(self.beam_tilt[1]),
            "OddZernike": _listed(self.odd, 6),
            "EvenZernike": _listed(self.even, 9),
            **{f"MagMat{i}": str(value) for i, value in zip(("00", "01", "10", "11"), self.magnification, strict=True)},
        }
        if self.state == "premultiplied":
            row["CtfDataAreCtfPremultiplied"] = "1"
        if self.mtf:
            row["MtfFileName"] = self.mtf
        return row


def _listed(terms: dict[int, float], count: int) -> str:
    return "[" + ",".join(str(terms.get(i, 0.0)) for i in range(count)) + "]"


def odd_phase(lens: Lens, x: Floats, y: Floats) -> Floats:
    """Radians at frequencies in 1/Angstrom."""
    r2 = x**2 + y**2
    terms = [y, x, 3 * x**2 * y - y**3, (3 * r2 - 2) * y, (3 * r2 - 2) * x, x**3 - 3 * x * y**2]
    phase = sum((c * terms[i] for i, c in lens.odd.items()), np.zeros_like(x))
    tilt = 1e-3 * (lens.beam_tilt[0] * x + lens.beam_tilt[1] * y)
    return phase - 2 * np.pi * lens.cs * 1e7 * wavelength(lens) ** 2 * tilt * r2


def even_phase(lens: Lens, x: Floats, y: Floats) -> Floats:
    """Radians, added to gamma."""
    r2 = x**2 + y**2
    terms = [
        np.ones_like(x),
        2 * x * y,
        2 * r2 - 1,
        x**2 - y**2,
        4 * x**3 * y - 4 * x * y**3,
        (4 * r2 - 3) * 2 * x * y,
        6 * r2**2 - 6 * r2 + 1,
        (4 * r2 - 3) * (x**2 - y**2),
        x**4 - 6 * x**2 * y**2 + y**4,
    ]
    return sum((c * terms[i] for i, c in lens.even.items()), np.zeros_like(x))


def wavelength(lens: Lens) -> float:
    """Of the electrons, Angstrom."""
    return float(12.2643247 / np.sqrt(1e3 * lens.voltage * (1 + 0.978466e-3 * lens.voltage)))


def ctf(lens: Lens, columns: dict[str, Floats], i: int, x: Floats, y: Floats) -> Floats:
    """CTF of particle i at frequencies in 1/Angstrom."""
    angle = np.arctan2(y, x) - np.radians(columns["DefocusAngle"][i])
    r2 = x**2 + y**2
    defocus = columns["DefocusU"][i] * np.cos(angle) ** 2 + columns["DefocusV"][i] * np.sin(angle) ** 2
    gamma = -np.pi * wavelength(lens) * defocus * r2 + np.pi / 2 * lens.cs * 1e7 * wavelength(lens) ** 3 * r2**2
    gamma -= np.arcsin(lens.q0)
    zero = np.zeros(i + 1)
    gamma -= np.radians(columns.get("PhaseShift", zero)[i])
    envelope = np.exp(-columns.get("CtfBfactor", zero)[i] * r2 / 4) * columns.get("CtfScalefactor", zero + 1)[i]
    return -np.sin(gamma + even_phase(lens, x, y)) * envelope


def make_project(
    directory: Path,
    box: int,
    columns: dict[str, Floats],
    lenses: tuple[Lens, ...],
    *,
    signal: Floats | None = None,
) -> simulated.Project:
    """Write a map of blobs and images of it, dealt to the lenses in turn.

    Parameters
    ----------
    signal : [n] factor on each image's signal
    """
    blobs = _blobs(box, seed=4)
    truth = _density(box, *blobs)
    n = len(columns["AngleRot"])
    ky, kx = np.meshgrid(np.fft.fftfreq(box, 1 / box), np.arange(box // 2 + 1), indexing="ij")
    inside = np.hypot(kx, ky) < box / 2
    kx, ky = kx[inside], ky[inside]
    images = np.zeros((n, box, box), dtype=np.float32)
    for i in range(n):
        lens = lenses[i % len(lenses)]
        x, y = np.reshape(lens.magnification, (2, 2)) @ np.stack([kx, ky]) / (box * PIXEL)
        transform = _projection(blobs, columns, i, x, y) * np.exp(1j * odd_phase(lens, x, y))
        transform *= ctf(lens, columns, i, x, y) * (1 if signal is None else signal[i])
        transform *= 1 - lens.mtf_slope * np.hypot(kx, ky) / box
        shift = (kx * columns["OriginXAngst"][i] + ky * columns["OriginYAngst"][i]) / (box * PIXEL)
        transform *= np.exp(2j * np.pi * shift)
        if lens.state != "plain":
            own = ctf(lens, columns, i, x, y)
            transform *= own if lens.state == "premultiplied" else np.sign(own)
        images[i] = _image(transform, inside, box)
    project = simulated.Project(directory, truth, directory / "particles.star", directory / "images.mrcs")
    with mrcfile.new(project.stack, overwrite=True) as file:
        file.set_data(images)
        file.voxel_size = PIXEL
    _write_table(project.table, columns, lenses, box)
    for lens in lenses:
        if lens.mtf:
            _write_mtf(directory / lens.mtf, lens.mtf_slope)
    return project


def _blobs(box: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Centres in pixels [b, 3] x y z, widths and heights of an asymmetric molecule within half the box."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, 3))
    centres *= random.uniform(0, 1, (40, 1)) ** (1 / 3) * 0.2 * box / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres * [0.6, 0.8, 1.0], random.uniform(0.9, 1.3, 40), random.uniform(0.5, 1.5, 40)


def _density(box: int, centres: Floats, widths: Floats, heights: Floats) -> NDArray[np.float32]:
    axis = np.arange(box) - box // 2
    volume = np.zeros((box,) * 3)
    for centre, width, height in zip(centres, widths, heights, strict=True):
        x, y, z = (np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in centre)
        volume += height * np.einsum("i,j,k->ijk", z, y, x)
    return volume.astype(np.float32)


def _projection(blobs: tuple[Floats, Floats, Floats], columns: dict[str, Floats], i: int, x: Floats, y: Floats):
    """Transform of a projection about the box centre, at frequencies in 1/Angstrom."""
    centres, widths, heights = blobs
    a, b, c = (np.radians(columns[name][i]) for name in ("AngleRot", "AngleTilt", "AnglePsi"))

    def about_z(t: float) -> Floats:
        return np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    seen = centres @ (about_z(c) @ about_y @ about_z(a)).T
    phases = np.exp(-2j * np.pi * PIXEL * (np.outer(seen[:, 0], x) + np.outer(seen[:, 1], y)))
    volumes = heights * (2 * np.pi) ** 1.5 * widths**3
    envelopes = np.exp(-2 * np.pi**2 * np.outer((widths * PIXEL) ** 2, x**2 + y**2))
    return volumes @ (phases * envelopes)


def _image(transform, inside, box: int) -> NDArray[np.float64]:
    spectrum = np.zeros((box, box // 2 + 1), dtype=np.complex128)
    spectrum[inside] = transform
    return np.fft.fftshift(np.fft.irfft2(spectrum, s=(box, box), axes=(0, 1)))


def _write_table(path: Path, columns: dict[str, Floats], lenses: tuple[Lens, ...], box: int) -> None:
    optics = [lens.columns(box, number) for number, lens in enumerate(lenses, start=1)]
    labels = ("ImageName", "MicrographName", "OpticsGroup", "RandomSubset", *columns)
    rows = []
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        numbers = " ".join(f"{value:.6f}" for value in values)
        rows.append(f"{i + 1:06d}@images.mrcs mic{i // 50}.mrc {i % len(lenses) + 1} {i // 2 % 2 + 1} {numbers}")
    blocks = [("optics", tuple(optics[0]), [" ".join(one.values()) for one in optics]), ("particles", labels, rows)]
    with path.open("w") as file:
        for name, block_labels, block_rows in blocks:
            file.write(f"\n# version 30001\n\ndata_{name}\n\nloop_\n")
            file.writelines(f"_rln{label} #{i}\n" for i, label in enumerate(block_labels, start=1))
            file.writelines(f"{row}\n" for row in block_rows)


def _write_mtf(path: Path, slope: float) -> None:
    rows = "".join(f"{f:.6f} {1 - slope * f:.9f}\n" for f in np.linspace(0, 0.5, 201))
    path.write_text(f"data_mtf\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}\n")
