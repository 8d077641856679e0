"""The grammar of STAR files as RELION and its neighbours write them: bytes -> tables of text.

A file holds blocks, ``data_NAME``; a block holds either one loop (column names, then rows of values
parted by blanks) or pairs of name and value. Read with more patience than RELION's own reader: any
line ends, tabs, comments, quotation marks and empty lines anywhere. Rows without quotation marks and
comments, which a million rows are, go to pandas' fast tokenizer.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

NOT_NUMBERS = ("nan", "NaN", "<NA>")  # become missing values
MAX_COLUMNS = 4096  # RELION knows some 800 labels in all

MAX_INDENT = 200  # blanks before a block's name
_NAME_ALONE = re.compile(rb"(\S*)[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_NEEDS_CARE = re.compile(rb"(?:^|\s)['\"#]")
# A quotation ends only before a blank, so that an apostrophe within a word is a letter.
_WORD = re.compile(r"""'([^'\n]*)'(?=\s|$)|"([^"\n]*)"(?=\s|$)|(#.*)|(\S+)""", re.ASCII)


class StarSyntaxError(ValueError):
    """What is wrong with a STAR file; the sentence goes on after the file's name and a colon."""


def parse_star(path: Path) -> dict[str, pd.DataFrame]:
    """Read every table of a STAR file, all values as text; blocks without a table are left out.

    A block of pairs is a table of one row. Rows that are too short are filled with empty text at
    their end; NaN becomes a missing value.

    Raises
    ------
    OSError
        If the file cannot be read.
    StarSyntaxError
        If it breaks the grammar.
    """
    data = _text_of(path)
    heads = list(_lines_of(b"data_", data, 0, len(data)))
    tables: dict[str, pd.DataFrame] = {}
    ends = [start for start, _, _ in heads[1:]] + [len(data)]
    for (_, body, label), end in zip(heads, ends, strict=False):
        name = label.decode()
        table = _block(data, body, end, name)
        if table is None:
            continue
        if name in tables:
            raise StarSyntaxError(f"it has two tables named data_{name}")
        tables[name] = table
    return tables


def _text_of(path: Path) -> bytes:
    """Return the file's bytes with plain line ends."""
    data = b"\0" if path.is_char_device() else path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise StarSyntaxError("it is not text")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise StarSyntaxError("it is not text") from error
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _lines_of(word: bytes, data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Find lines that hold ``word...`` and nothing else: where each begins and ends, and what follows the word.

    A regular expression takes ten times as long for this.
    """
    found = data.find(word, start, end)
    while found >= 0:
        before = data.rfind(b"\n", max(0, found - MAX_INDENT), found) + 1
        if (before or found <= MAX_INDENT) and not data[before:found].strip(b" \t"):
            name = _NAME_ALONE.match(data, found + len(word), end)
            if name is not None:
                yield before, name.end(), name[1]
        found = data.find(word, found + len(word), end)


def _block(data: bytes, start: int, end: int, name: str) -> pd.DataFrame | None:
    """Return the table between two positions of the file."""
    loop = next((found for found in _lines_of(b"loop_", data, start, end) if not found[2]), None)
    position = start
    while position < end:
        line, after = _line(data, position, end)
        if line.startswith(b"_") and (loop is None or position < loop[0]):
            return _pairs(data[position:end].decode(), name)
        if loop is not None and position >= loop[0]:
            return _loop(data, loop[1], end, name)
        position = after
    return None


def _line(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Return the line that begins at a position, stripped, and where the next one begins."""
    stop = data.find(b"\n", position, end)
    stop = end if stop < 0 else stop
    return data[position:stop].strip(), stop + 1


def _pairs(text: str, name: str) -> pd.DataFrame:
    values: dict[str, list[str]] = {}
    for line in text.split("\n"):
        label, rest = (*line.split(maxsplit=1), "", "")[:2]
        if not label.startswith("_"):
            continue
        words = _words(rest)
        if not words:
            raise StarSyntaxError(f"{label} of data_{name} has no value")
        if label[1:] in values:
            raise StarSyntaxError(f"data_{name} has {label} twice")
        values[label[1:]] = [" ".join(words)]
    return _as_text(pd.DataFrame(values))


def _loop(data: bytes, start: int, end: int, name: str) -> pd.DataFrame:
    labels: list[str] = []
    position = start
    while position < end:
        line, after = _line(data, position, end)
        if line.startswith(b"_"):
            labels.append(line.split(maxsplit=1)[0][1:].decode())
        elif line and not line.startswith(b"#"):
            break
        position = after
    if not labels:
        raise StarSyntaxError(f"the loop of data_{name} has no column names")
    if len(labels) > MAX_COLUMNS:
        raise StarSyntaxError(f"data_{name} has {len(labels)} columns; RELION has not as many labels")
    if any(not label for _, _, label in _lines_of(b"loop_", data, position, end)):
        raise StarSyntaxError(f"data_{name} has a second loop; expected one table in each block")
    rows = data[position:end]
    first_line = 1 + data.count(b"\n", 0, position)
    if not rows.strip():
        return _as_text(pd.DataFrame({number: [] for number in range(len(labels))})).set_axis(labels, axis=1)
    has_marks = any(mark in rows for mark in (b"'", b'"', b"#"))  # much quicker than the expression
    read_rows = _careful_rows if has_marks and _NEEDS_CARE.search(rows) else _plain_rows
    frame = read_rows(rows, labels, first_line)
    return frame.set_axis(labels, axis=1)


def _plain_rows(rows: bytes, labels: list[str], first_line: int) -> pd.DataFrame:
    n_words = len(_line(rows, 0, len(rows))[0].split())  # pandas takes the first row for the right one
    if n_words != len(labels):
        raise _wrong_row(first_line, n_words, len(labels))
    try:
        return pd.read_csv(
            io.BytesIO(rows),
            sep=r"\s+",
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=list(NOT_NUMBERS),
            quoting=csv.QUOTE_NONE,
            engine="c",
        )
    except pd.errors.ParserError as error:
        found = re.search(r"line (\d+), saw (\d+)", str(error))
        if found is None:
            raise StarSyntaxError(" ".join(str(error).split())) from error
        raise _wrong_row(first_line - 1 + int(found[1]), int(found[2]), len(labels)) from error


def _wrong_row(line: int, n_words: int, n_labels: int) -> StarSyntaxError:
    return StarSyntaxError(f"line {line} has {n_words} values under {n_labels} column names")


def _careful_rows(rows: bytes, labels: list[str], first_line: int) -> pd.DataFrame:
    """Return rows with quotation marks or comments, word by word."""
    table: list[list[str]] = []
    for number, line in enumerate(rows.decode().split("\n"), first_line):
        words = _words(line)
        if not words:
            continue
        if len(words) > len(labels):
            raise _wrong_row(number, len(words), len(labels))
        table.append(words + [""] * (len(labels) - len(words)))
    return _as_text(pd.DataFrame(table, columns=range(len(labels))))


def _words(line: str) -> list[str]:
    """Words of a line, without quotation marks; what follows a # that begins a word is a comment."""
    words = []
    for match in _WORD.finditer(line):
        single, double, comment, plain = match.groups()
        if comment is not None:
            break
        words.append(next(word for word in (single, double, plain) if word is not None))
    return words


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with the type of column and the missing values that pandas' reader gives."""
    text = frame.astype(str)
    return text.mask(text.isin(NOT_NUMBERS))
