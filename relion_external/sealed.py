"""Arrays in a file that says whose they are and whether they are still what was written.

The file is one of numpy's .npz. It is read here and not by ``numpy.load``, which believes sizes that a file claims:
nothing is taken that would need pickle, that is compressed, or that claims more than the file holds.
"""

import hashlib
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_SEAL = "seal"
_ENDING = ".npy"


class BrokenSealError(Exception):
    """The file is damaged, or not the one that it is taken for."""


def write_sealed(path: Path, arrays: Mapping[str, NDArray[Any]], owner: str) -> None:
    """Write arrays, none of objects, with a seal for their owner.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    contents = {name: np.asarray(array) for name, array in arrays.items()}
    seal = np.frombuffer(_digest(contents, owner), dtype=np.uint8)
    with path.open("wb") as file:  # not by name: numpy would lengthen it
        np.savez(file, **contents, **{_SEAL: seal})  # type: ignore[arg-type]


def read_sealed(path: Path, owner: str) -> Arrays:
    """Read what `write_sealed` wrote for the same owner.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    BrokenSealError
        If it is another's, or damaged.
    """
    if not path.is_file() and path.exists():
        raise BrokenSealError("not a file")  # a pipe would be waited for
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                found = {info.filename: _member(archive, info) for info in archive.infolist()}
        except OSError:
            raise
        except Exception as error:  # whatever a damaged file leads a parser to
            raise BrokenSealError(f"{type(error).__name__}: {error}") from error
    arrays = {name.removesuffix(_ENDING): array for name, array in found.items()}
    seal = arrays.pop(_SEAL, None)
    if seal is None or seal.tobytes() != _digest(arrays, owner):
        raise BrokenSealError("its seal is broken")
    return arrays


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED or not info.filename.endswith(_ENDING):
        raise ValueError(f"{info.filename} is not stored as it should be")
    with archive.open(info) as member:
        shape, is_fortran, kind = _header(member)
        n_bytes = math.prod(shape) * kind.itemsize
        if kind.hasobject or n_bytes != info.file_size - member.tell():
            raise ValueError(f"{info.filename} claims to be an array that it is not")
        data = bytearray(member.read())
    array: NDArray[Any] = (
        np.frombuffer(data, dtype=kind, count=math.prod(shape)) if n_bytes else np.zeros(0, dtype=kind)
    )
    return array.reshape(shape, order="F" if is_fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    version = npy.read_magic(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, is_fortran, kind = read(member)
    return tuple(shape), bool(is_fortran), np.dtype(kind)


def _digest(arrays: Mapping[str, NDArray[Any]], owner: str) -> bytes:
    digest = hashlib.blake2b(owner.encode(), digest_size=32)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        flat = np.ascontiguousarray(array).reshape(-1)
        digest.update(flat.view(np.uint8).data if flat.size else b"")
    return digest.digest()
