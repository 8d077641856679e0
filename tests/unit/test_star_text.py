"""The grammar of STAR files: every way to write a table says the same, and what breaks it is named."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gem_plugin.errors import InputError
from gem_plugin.io.star_text import parse_star
from gem_plugin.io.tables import ParticleTables, read_particle_tables
from tests.unit.small_project import default_optics, default_particles, table_text


def read(tmp_path: Path, text: str) -> ParticleTables:
    path = tmp_path / "particles.star"
    path.write_text(text)
    return read_particle_tables(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data_a\nloop_\n_x #1\n1\n\ndata_a\nloop_\n_x #1\n1\n", "two tables named data_a"),
        ("data_a\nloop_\n1 2\n", "no column names"),
        ("data_a\nloop_\n_x\n1\nloop_\n_y\n2\n", "a second loop"),
        ("data_a\nloop_\n" + "".join(f"_x{i}\n" for i in range(5000)) + "1\n", "5000 columns"),
        ("data_a\n_x 1\n_x 2\n", "data_a has _x twice"),
        ("data_a\nloop_\n_x\n_y\n1 '2 3\n", "line 5 has 3 values under 2 column names"),
        ("# a\n\ndata_a\nloop_\n_x\n_y\n\n1 2\n\n1 2 3\n1 2\n", "line 10 has 3 values under 2 column names"),
        ("data_a\nloop_\n_x\n_y\n1\n1 2\n", "line 5 has 1 values under 2"),
        ("data_a\n_x 1\0\n", "it is not text"),
    ],
)
def test_broken_grammar_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        read(tmp_path, text)


def test_an_endless_file_is_not_read() -> None:
    with pytest.raises(InputError, match=r"/dev/zero is not a STAR file that can be read: it is not text"):
        read_particle_tables(Path("/dev/zero"))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="'\"#"), min_size=1)
BLANK_TEXT = st.lists(TEXT, min_size=2, max_size=3).map(" ".join)
NUMBER = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str)
VALUE = NUMBER | TEXT | BLANK_TEXT | st.just("")
BLANK = st.text(" \t", min_size=1, max_size=3)


@st.composite
def loops(draw: st.DrawFn) -> tuple[bytes, dict[str, list[str]]]:
    """A STAR file with one loop in any of the ways that the grammar allows, and what it says."""
    n_rows = draw(st.integers(1, 4))
    names = [f"rln{letter}" for letter in draw(st.permutations("ABCDE"))][: draw(st.integers(1, 5))]
    columns = {name: draw(st.lists(VALUE, min_size=n_rows, max_size=n_rows)) for name in names}
    quote = draw(st.sampled_from("'\""))
    quotes_all = draw(st.booleans())

    def cell(value: str) -> str:
        needs = quotes_all or not value or " " in value or value.startswith(("_", "data_", "loop_"))
        return quote + value + quote if needs else value

    comment = draw(st.sampled_from(["", "# a 'comment\" of #3\n", "\n", "  \t\n"]))
    lines = [f"_{name} #{number}" if draw(st.booleans()) else f"_{name}" for number, name in enumerate(names, 1)]
    rows = [draw(BLANK).join(cell(columns[name][row]) for name in names) for row in range(n_rows)]
    rows = [draw(st.sampled_from(["", " ", "\t"])) + row + draw(st.sampled_from(["", " ", " # aside"])) for row in rows]
    head = f"# version 30001\n{comment}data_x\n{comment}loop_{draw(st.sampled_from(['', ' ']))}\n"
    text = (
        head
        + "\n".join(lines)
        + "\n"
        + comment
        + f"\n{comment}".join(rows)
        + draw(st.sampled_from(["", "\n", "\n \n"]))
    )
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))).encode(), columns


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loop=loops())
def test_every_way_to_write_a_loop_says_the_same(tmp_path: Path, loop: tuple[bytes, dict[str, list[str]]]) -> None:
    content, columns = loop
    path = tmp_path / "loop.star"
    path.write_bytes(content)
    (frame,) = parse_star(path).values()
    assert list(frame.columns) == list(columns)
    for name, values in columns.items():
        found = frame[name].fillna("nan").tolist()
        assert found == [value if value not in ("NaN", "<NA>") else "nan" for value in values]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6), missing=st.booleans())
def test_huge_tiny_and_missing_numbers_are_kept_or_named(tmp_path: Path, values: list[float], missing: bool) -> None:
    cells: list[object] = [repr(value) for value in values]
    if missing:
        cells[3] = "<NA>"
    particles = default_particles() | {"rlnOriginXAngst": cells}
    tables = read(tmp_path, table_text("optics", default_optics()) + table_text("particles", particles))
    if missing:
        with pytest.raises(InputError, match="rlnOriginXAngst is missing or NaN in row 4"):
            tables.particles.numbers("rlnOriginXAngst")
    else:
        np.testing.assert_array_equal(tables.particles.numbers("rlnOriginXAngst"), values)
