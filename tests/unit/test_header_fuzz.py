"""Damaged headers of image stacks: read or refused in words, quickly, and with no more memory than the file is worth.

Seeded and bounded; GEM_FUZZ_EXAMPLES asks for more examples than the few of a test run.
"""

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.maps import read_map
from gem_plugin.io.stack_files import open_stack
from tests.unit.small_project import write_mrc

EXAMPLES = int(os.environ.get("GEM_FUZZ_EXAMPLES", "150"))
LARGEST_BYTES = 8_000_000  # of memory, for files of some kilobytes
ODD_NUMBERS = (0, 1, -1, 7, 255, 65535, 65536, 2**31 - 1, -(2**31), 1 << 24, 0x01000000)


def read_all(path: Path) -> str:
    """What became of a file: refused, or read with this many images."""
    try:
        file = open_stack(path)
        try:
            if file.n_rows != file.n_columns:
                return "not square"
            image = np.empty((1, file.n_rows, file.n_columns), np.float32)
            for index in (0, file.n_images - 1):
                file.read(index, image)
            return "read"
        finally:
            file.close()
    except InputError as error:
        return "refused" if _is_clear(error, path) else f"unclear: {error}"


def _is_clear(error: InputError, path: Path) -> bool:
    return str(path) in str(error) and len(str(error)) < 1000


def damaged(whole: bytes, header_bytes: int, rng: np.random.Generator) -> bytes:
    """Words or bytes of the header changed, or the file cut."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(4)
        if kind == 0:
            place = 4 * int(rng.integers(0, min(header_bytes, 256) // 4))
            number = ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))]
            content[place : place + 4] = struct.pack("<i" if rng.integers(2) else ">i", number)
        elif kind == 1:
            content[int(rng.integers(min(header_bytes, len(content))))] = int(rng.integers(256))
        elif kind == 2:
            place = int(rng.integers(0, header_bytes - 8))
            content[place : place + 8] = rng.integers(0, 256, 8, dtype=np.uint8).tobytes()
        elif rng.integers(4) == 0:
            return bytes(content[: rng.integers(len(content))])
    return bytes(content)


def fuzz(path: Path, header_bytes: int, seed: int) -> set[str]:
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(EXAMPLES):
        path.write_bytes(damaged(whole, header_bytes, rng))
        tracemalloc.start()
        seen.add(read_all(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LARGEST_BYTES
    return seen - {"not square"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_damaged_mrc_headers_are_read_or_refused(tmp_path: Path, order: str) -> None:
    path = tmp_path / "x.mrcs"
    write_mrc(path, np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32), order=order)
    assert fuzz(path, 1024, seed=1) == {"read", "refused"}


def test_damaged_maps_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mrc"
    write_mrc(path, np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    n_read = n_refused = 0
    for _ in range(EXAMPLES):
        path.write_bytes(damaged(whole, 256, rng))
        try:
            n_read += read_map(path).data.size > 0
        except InputError as error:
            n_refused += _is_clear(error, path)
    assert n_read > 0
    assert n_read + n_refused == EXAMPLES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_damaged_tiff_files_are_read_or_refused(tmp_path: Path, compression: str | None) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "x.tif"
    images = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    tifffile.imwrite(path, images, photometric="minisblack", compression=compression)
    assert fuzz(path, 400, seed=3) == {"read", "refused"}
