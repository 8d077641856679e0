"""Damaged input files by the thousand: each is read, or refused with one sentence. The unit tests run some of it.

``python benchmarks/fuzz.py --cases 20000 --seed 1`` prints how many files of each kind were read and refused, the
longest time of one file and the most memory; it exits 1 and keeps the file if anything but a sentence came out.
"""

import argparse
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
from fuzz_files import write_seeds

from gem_plugin.errors import GemError
from gem_plugin.io.images import ImageReader
from gem_plugin.io.maps import read_map
from gem_plugin.io.particles import read_particles
from gem_plugin.io.star import read_tables
from gem_plugin.io.tables import read_particle_tables

LIMIT_SECONDS = 60  # of one file of a few kilobytes: more is a hang
LIMIT_BYTES = 2**30  # that one file may add to the memory: more is a header that was believed
# Words that mean something to a reader of STAR files, and values that are hard for one.
WORDS = (
    b"data_", b"data_optics", b"data_particles", b"loop_", b"_rlnImageName", b"_rlnOpticsGroup", b"_", b"#", b"'", b'"',
    b"\n", b"\r", b"\t", b"\n\n", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", b"nan", b"inf", b"-1e999", b"1e308", b"-0",
    b"", b"99999999999999999999", b"0x10", b"1_000", b"[1,2", b"None", b"<NA>", b"@", b"1@", b"7@/dev/null", b"2@..",
    b"3@" + b"x" * 300, b"00000000000000000001@Extract/a.mrcs", "\u00e9\u2028\u00f6".encode(), b"\x0b\x0c\x1c",
    b"A" * 5000, b"'" * 200, b"1 " * 3000,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 8, 9, 12, 101, 255, 32767, 65536, 2**20, 2**30, 2**31 - 1, -(2**31))


class HangError(BaseException):  # nothing that is tested may catch it
    """A file took too long."""


@dataclass
class Tally:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    defects: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one file."""
        self.outcomes[f"{kind}: {outcome}"] += 1
        self.longest_s = max(self.longest_s, seconds)


@contextmanager
def time_limit() -> Iterator[None]:
    """Interrupt what runs too long; for the main thread alone."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no end after {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def most_memory_bytes() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(n_cases: int, seed: int, folder: Path) -> Tally:
    """Damage files and read them.

    Parameters
    ----------
    n_cases
        Files to make, of all kinds in turn.
    seed
        The same files for the same seed.
    folder
        Made if it is not there; a file that was neither read nor refused is kept in it.
    """
    rng = random.Random(seed)
    tally = Tally()
    seeds = write_seeds(folder)
    kinds = list(READERS)
    for case in range(n_cases):
        kind = kinds[case % len(kinds)]
        name, content = rng.choice(seeds[kind])
        path = folder / name
        whole = path.read_bytes()
        damaged = content
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            damaged = rng.choice(DAMAGES[kind])(damaged, rng)
        path.write_bytes(damaged)
        before, start = most_memory_bytes(), time.process_time()
        try:
            with time_limit():
                READERS[kind](folder, path)
            outcome = "read"
        except GemError as error:
            outcome = "refused"
            if "\n" in str(error).strip() or len(str(error)) < 20:
                tally.defects.append(f"{kind} {case}: not a sentence: {error!r}")
        except (Exception, HangError) as error:  # what this program looks for
            outcome = "defect"
            kept = folder / f"defect_{kind}_{seed}_{case}"
            kept.write_bytes(damaged)
            tally.defects.append(f"{kept.name}: {type(error).__name__}: {str(error)[:200]}")
        if most_memory_bytes() - before > LIMIT_BYTES:
            tally.defects.append(f"{kind} {case} of seed {seed}: took {(most_memory_bytes() - before) / 2**30:.1f} GiB")
        tally.add(kind, outcome, time.process_time() - start)
        path.write_bytes(whole)
    return tally


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def leave_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 40, 400)) :]


def insert_word(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(WORDS) + data[start:]


def replace_word(data: bytes, rng: random.Random) -> bytes:
    words = data.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    return b" ".join(words)


def move_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    lines.insert(rng.randrange(len(lines) + 1), lines.pop(rng.randrange(len(lines))))
    return b"\n".join(lines)


def repeat_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")[:5000]
    line = rng.randrange(len(lines))
    return b"\n".join(lines[:line] + [lines[line]] * rng.choice((2, 30, 3000)) + lines[line + 1 :])


def lie_in_header(data: bytes, rng: random.Random) -> bytes:
    """Write another number over one of the words of an MRC header."""
    changed = bytearray(data.ljust(1024, b"\0"))
    place = 4 * rng.choice((0, 1, 2, 3, 3, 7, 8, 9, 10, 11, 12, 16, 17, 18, 23, 23, rng.randrange(56)))
    struct.pack_into(rng.choice("<>") + "i", changed, place, rng.choice(NUMBERS))
    return bytes(changed)


def lie_in_shape(data: bytes, rng: random.Random) -> bytes:
    """Write another number of records, or another type, into the header of numpy's format."""
    old, new = rng.choice(
        ((b"(6,)", b"(9,)"), (b"(6,), }         ", b"(666666666,), }"), (b"'<f4'", b"'<f8'"), (b"'<u4'", b"'|O8'"),
         (b"(2,)", b"(9,)"), (b"(3,)", b"(1,)"), (b"'descr'", b"'desc_'"), (b"S20", b"S99"), (b"<u8", b"<M8"))
    )  # fmt: skip
    return data.replace(old, new, rng.choice((1, 99)))


def read_star(folder: Path, path: Path) -> None:
    read_tables(path)
    read_all(folder, path)


def read_all(folder: Path, path: Path) -> None:
    """Read a table and every image that it names."""
    particles = read_particles(path, project_directory=folder)
    with ImageReader(particles) as reader:
        for index in range(len(particles)):
            reader.read(np.array([index]))


def read_stack(folder: Path, path: Path) -> None:
    read_all(folder, folder / "new.star")


def read_cs_file(folder: Path, path: Path) -> None:
    read_particle_tables(path)
    read_all(folder, path)


Damage = Callable[[bytes, random.Random], bytes]
ANY: tuple[Damage, ...] = (flip_bytes, cut, leave_out)
TEXT: tuple[Damage, ...] = (*ANY, insert_word, insert_word, replace_word, replace_word, move_lines, repeat_lines)
DAMAGES: dict[str, tuple[Damage, ...]] = {
    "star": TEXT,
    "stack": (*ANY, lie_in_header, lie_in_header, lie_in_header),
    "map": (*ANY, lie_in_header, lie_in_header, lie_in_header),
    "cs": (*ANY, lie_in_shape, lie_in_shape),
}
READERS: dict[str, Callable[[Path, Path], None]] = {
    "star": read_star,
    "stack": read_stack,
    "map": lambda folder, path: read_map(path) and None,
    "cs": read_cs_file,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="where files are kept that gave a defect")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(options.cases, options.seed, Path(folder))
        for path in Path(folder).glob("defect_*"):
            shutil.copy(path, options.keep)
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{outcome:<20} {count}")
    print(f"longest {tally.longest_s:.2f} s of processor, most memory {most_memory_bytes() / 2**20:.0f} MiB")
    print("\n".join(tally.defects) or "every file was read or refused with a sentence")
    return 1 if tally.defects else 0


if __name__ == "__main__":
    sys.exit(main())
