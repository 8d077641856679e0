"""How long it takes to read a particle table of a million rows, and how much memory.

``python benchmarks/rows.py --rows 1000000`` writes a table as Refine3D does, reads it in a process of its own, and
exits 1 if that took more than a minute of processor or 4 GiB. ``--relion30`` has the table converted, too.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

MAX_SECONDS = 60.0
MAX_GIB = 4.0
ROWS_AT_ONCE = 20_000
NUMBERS = (
    "CoordinateX", "CoordinateY", "AnglePsi", "AngleRot", "AngleTilt", "DefocusU", "DefocusV", "DefocusAngle",
    "CtfMaxResolution", "CtfFigureOfMerit", "AutopickFigureOfMerit", "NormCorrection", "LogLikeliContribution",
    "MaxValueProbDistribution",
)  # fmt: skip
ALIKE = {"CtfBfactor": "0.000000", "CtfScalefactor": "1.000000", "PhaseShift": "0.000000", "ClassNumber": "1"}
OPTICS = {
    "Voltage": "300.000000",
    "SphericalAberration": "2.700000",
    "AmplitudeContrast": "0.100000",
}
PIXELS = {"DetectorPixelSize": "5.000000", "Magnification": "60000.000000"}


def write_table(path: Path, n_rows: int, *, relion30: bool) -> None:
    """Write a table of 26 columns or so, with other numbers in every row."""
    rng = np.random.default_rng(1)
    shifts = ("OriginX", "OriginY") if relion30 else ("OriginXAngst", "OriginYAngst")
    alike = ALIKE | (OPTICS | PIXELS if relion30 else {"OpticsGroup": "1"})
    names = ["ImageName", "MicrographName", "RandomSubset", *NUMBERS, *shifts, *alike]
    with path.open("w") as file:
        if not relion30:
            optics = {"OpticsGroup": "1", "OpticsGroupName": "opticsGroup1", **OPTICS, "ImagePixelSize": "0.833"}
            file.write("\n# version 30001\n\ndata_optics\n\nloop_ \n")
            file.write("".join(f"_rln{name} #{i}\n" for i, name in enumerate(optics, 1)))
            file.write(" ".join(optics.values()) + "\n \n\n# version 30001\n")
        file.write("\ndata_" + ("" if relion30 else "particles") + "\n\nloop_ \n")
        file.write("".join(f"_rln{name} #{i} \n" for i, name in enumerate(names, 1)))
        tail = " ".join(alike.values())
        for start in range(0, n_rows, ROWS_AT_ONCE):
            values = rng.normal(scale=1000, size=(min(ROWS_AT_ONCE, n_rows - start), len(NUMBERS) + 2))
            for row, numbers in enumerate(values, start):
                stem = f"Micrographs/FoilHole_{row // 250:08d}_Data_10985376_10985377_20180810_2123_Fractions"
                texts = " ".join([f"{number:12.6f}" for number in numbers])
                file.write(
                    f"{row % 250 + 1:06d}@Extract/job133/{stem}.mrcs MotionCorr/job002/{stem}.mrc "
                    f"{row % 2 + 1:12d} {texts} {tail} \n"
                )


def measure(path: Path, answer: Connection) -> None:
    """Read the table and send seconds of processor and GiB at most."""
    from gem_plugin.io.tables import read_particle_tables

    before = time.process_time()
    tables = read_particle_tables(path)
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU"):
        tables.particles.numbers(column)
    seconds = time.process_time() - before
    answer.send((len(tables.particles), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--relion30", action="store_true", help="a table of RELION 3.0, which is converted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run_data.star"
        write_table(path, options.rows, relion30=options.relion30)
        size = path.stat().st_size / 2**20
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(path, theirs))
        process.start()
        theirs.close()
        n_rows, seconds, gib = ours.recv()
        process.join()
    print(f"{n_rows} rows, {size:.0f} MiB: read in {seconds:.1f} s of processor with {gib:.2f} GiB at most")
    return 1 if seconds > MAX_SECONDS or gib > MAX_GIB else 0


if __name__ == "__main__":
    sys.exit(main())
