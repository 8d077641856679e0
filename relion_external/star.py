"""STAR text that this program writes for RELION: small tables in fixed notation, without a data frame."""

import math
from collections.abc import Mapping, Sequence

Cell = str | int | float | bool


def simple_block(name: str, values: Mapping[str, Cell], comment: str = "") -> str:
    """Return a block of label and value pairs. Labels are given without the underscore."""
    width = max(len(label) for label in values) + 1
    lines = [f"_{label:<{width}} {_cell(value)}" for label, value in values.items()]
    return _head(name, comment) + "\n".join(lines) + "\n"


def loop_block(name: str, columns: Mapping[str, Sequence[Cell]], comment: str = "") -> str:
    """Return a table. All columns have the same length; labels are given without the underscore."""
    header = "\n".join(f"_{label} #{number}" for number, label in enumerate(columns, start=1))
    rows = [" ".join(_cell(value) for value in row) for row in zip(*columns.values(), strict=True)]
    return _head(name, comment) + "\n".join(["loop_", header, *rows]) + "\n"


def _head(name: str, comment: str) -> str:
    """Return the version line that RELION looks for, comment lines and the block's name."""
    comments = "".join(f"# {line}\n" for line in comment.splitlines())
    return f"\n# version 30001\n\n{comments}data_{name}\n\n"


def _cell(value: Cell) -> str:
    """Return a value as one STAR word; text with blanks is quoted, yes and no are 1 and 0."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else str(value)
    if value and not any(character.isspace() or character in "\"'" for character in value):
        return value
    return '"' + value.replace('"', "'").replace("\n", " ") + '"'
