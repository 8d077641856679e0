"""cryoSPARC's ``.cs`` files: arrays of records in numpy's format, joined with their passthrough file."""

import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gem_plugin.errors import InputError

Records = NDArray[np.void]
Fields = dict[str, NDArray[np.generic]]
MAX_HEADER_BYTES = 200_000  # numpy's own limit is 10,000, less than a file of many fields has
COMPRESSED_MAGIC = b"\x94CSDAT"


def read_cs(path: Path) -> tuple[Fields, list[Path]]:
    """Read a particle file and whatever its passthrough file adds.

    The passthrough lies beside the particle file, and knows the same particles by ``uid``.

    Returns
    -------
    fields, passthroughs
        Each field as an array, [n] or [n, m], in the particle file's order, and the files used besides.

    Raises
    ------
    InputError
        If a file is no numpy array of records, is cut short, or needs pickle.
    """
    records = read_records(path)
    fields: Fields = {name: records[name] for name in records.dtype.names or ()}
    used = []
    for other in sorted(
        path.parent.glob("*passthrough_particles*.cs"), key=lambda other: (len(other.name), other.name)
    ):
        if other == path or "uid" not in fields:
            continue
        added = read_records(other)
        names = [name for name in added.dtype.names or () if name not in fields]
        rows = _rows_of(fields["uid"], added["uid"]) if names and "uid" in (added.dtype.names or ()) else None
        if rows is not None:
            fields |= {name: added[name][rows] for name in names}
            used.append(other)
    return fields, used


def read_records(path: Path) -> Records:
    """Read an array of records, believing no header that the file's size does not bear out.

    Raises
    ------
    InputError
        As `read_cs`.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(COMPRESSED_MAGIC))
            if magic == COMPRESSED_MAGIC:
                raise InputError(
                    f"{path} is a compressed cryoSPARC file, which is not supported. Save it again in numpy's format, "
                    "e.g. with cryosparc-tools: Dataset.load(...).save(..., format=NUMPY_FORMAT)."
                )
            file.seek(0)
            try:
                version = npy.read_magic(file)
                read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
            except Exception as error:  # whatever numpy meets in a damaged header
                raise InputError(
                    f"{path} is not a cryoSPARC particle file: it does not begin as numpy's arrays do."
                ) from error
            if dtype.names is None or dtype.hasobject or len(shape) != 1:
                raise InputError(
                    f"{path} is not a cryoSPARC particle file: expected a list of records without Python objects."
                )
            expected = dtype.itemsize * shape[0]
            found = os.fstat(file.fileno()).st_size - file.tell()
            if found < expected:
                raise InputError(f"{path} is cut short: its {shape[0]} records take {expected} bytes, found {found}.")
            return np.frombuffer(file.read(expected), dtype=dtype)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _rows_of(uids: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.int64] | None:
    """Return where each uid stands in `known`, or None if one is not there."""
    if not len(known):
        return None
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known, uids, sorter=order), len(known) - 1)
    rows: NDArray[np.int64] = order[place]
    return rows if bool(np.all(known[rows] == uids)) else None
