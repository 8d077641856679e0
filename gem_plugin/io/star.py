"""STAR tables as text, so that what is read can be written again digit by digit.

Every column stays text: numbers are converted here, column by column as they are needed, with an
error that names file, table, row and column. The starfile package does the writing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray

from gem_plugin.errors import InputError
from gem_plugin.io.atomic import replacing
from gem_plugin.io.star_text import StarSyntaxError, parse_star

MAX_INTEGER = 2**53  # up to which doubles hold every whole number
VERSION_LINE = "# version 30001"  # the table format that RELION 3.1, 4 and 5 all read


@dataclass(frozen=True)
class StarTable:
    """One table of a STAR file, every value as text; the index counts the file's rows from 0."""

    path: Path
    name: str  # without "data_"
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def select(self, keep: NDArray[np.bool_]) -> "StarTable":
        """Keep some of the rows; they keep their numbers."""
        return StarTable(self.path, self.name, self.frame[keep])

    def row_name(self, row: int) -> str:
        """How messages call the row at position `row`."""
        name = f"row {int(self.frame.index[row]) + 1} of data_{self.name}"
        if "rlnImageName" in self:
            name += f" (image {self.frame['rlnImageName'].iloc[row]})"
        return name

    def texts(self, column: str) -> NDArray[np.object_]:
        """Values of a column that must be there.

        Raises
        ------
        InputError
            If the column is missing or a row has no value in it.
        """
        if column not in self:
            raise InputError(f"{self.path} has no column {column} in data_{self.name}, which is needed.")
        is_missing = self.frame[column].isna().to_numpy()
        if is_missing.any():
            row = int(np.flatnonzero(is_missing)[0])
            raise InputError(f"{self.path}: {column} is missing or NaN in {self.row_name(row)}; expected a value.")
        values: NDArray[np.object_] = self.frame[column].to_numpy(dtype=object)
        return values

    def check_rows_are_whole(self) -> None:
        """Refuse a table with a short row, which the parser pads at its end without a word.

        Raises
        ------
        InputError
            If the last column has no value somewhere.
        """
        last = self.frame.iloc[:, -1]
        is_missing = (last.isna() | (last == "")).to_numpy()
        if is_missing.any():
            row = int(np.flatnonzero(is_missing)[0])
            raise InputError(
                f"{self.path}: {self.row_name(row)} has fewer values than the table has columns "
                f"({self.frame.shape[1]}), or ends in NaN. The file may have been cut short."
            )

    def numbers(self, column: str, default: float | None = None) -> NDArray[np.float64]:
        """Finite values of a column; `default`, where given, stands for an absent column.

        Raises
        ------
        InputError
            If the column is missing without a default, or a value is no finite number.
        """
        if column not in self and default is not None:
            return np.full(len(self), default)
        texts = self.texts(column)
        try:
            values = texts.astype(np.float64)
        except ValueError:
            values = np.array([_number(text) for text in texts])
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            row = int(np.flatnonzero(is_bad)[0])
            raise InputError(
                f"{self.path}: {column} is {texts[row]!s} in {self.row_name(row)}; expected a finite number. "
                "Mend the row or take it out of the table."
            )
        return values

    def integers(self, column: str) -> NDArray[np.int64]:
        """Whole numbers of a column that must be there; 3.0 counts as 3."""
        values = self.numbers(column)
        is_bad = (values != np.rint(values)) | (np.abs(values) > MAX_INTEGER)
        if is_bad.any():
            row = int(np.flatnonzero(is_bad)[0])
            raise InputError(
                f"{self.path}: {column} is {self.frame[column].iloc[row]} in {self.row_name(row)}; "
                "expected a whole number."
            )
        return values.astype(np.int64)


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return np.nan


def read_tables(path: Path) -> dict[str, StarTable]:
    """Read every table of a STAR file; a block of pairs is a table of one row.

    Raises
    ------
    InputError
        If the file is missing, is no text, or a table is malformed.
    """
    try:
        frames = parse_star(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except StarSyntaxError as error:
        raise InputError(f"{path} is not a STAR file that can be read: {error}.") from error
    return {name: _table(path, name, frame) for name, frame in frames.items()}


def _table(path: Path, name: str, frame: pd.DataFrame) -> StarTable:
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{path}: data_{name} has the column {twice} twice; expected once.")
    return StarTable(path, name, frame)


def write_tables(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables so that RELION 3.1, 4 and 5 read them; whole or not at all.

    Columns of text, as `read_tables` gives them, are written as they are; floating-point columns
    with the digits that bring back the same double.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = ""
    for name, frame in tables.items():
        numeric = frame.select_dtypes("floating").columns
        exact = frame.assign(**{column: frame[column].map(repr, na_action="ignore") for column in numeric})
        block = starfile.to_string({name: exact}, na_rep="nan")
        _, _, body = block.partition("\n")  # starfile's first line bears the time of day
        text += f"\n{VERSION_LINE}\n\n{body.strip()}\n\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
