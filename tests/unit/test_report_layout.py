"""Every page of a report is legible, whatever is put on it."""

import re
from itertools import combinations

import numpy as np
import pytest

from gem_plugin.report.layout import SMALL_PT, wrap
from tests.unit.pages import COMMAND, FIT, TEXT, axes_of, line_labelled, pages_of_case, texts_of, words_of
from tests.unit.synthetic import CASES, synthetic_reconstruction


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_leaves_the_page(case: str) -> None:
    pages = pages_of_case(case)
    for page in pages:
        texts = texts_of(page)
        boxes = [text.get_window_extent().padded(-0.5) for text in texts]
        for text, box in zip(texts, boxes, strict=True):
            inside = page.bbox.x0 < box.x0 and box.x1 < page.bbox.x1 and page.bbox.y0 < box.y0 and box.y1 < page.bbox.y1
            assert inside, f"{text.get_text()!r} leaves the page"
        for i, j in combinations(range(len(boxes)), 2):
            assert not boxes[i].overlaps(boxes[j]), f"{texts[i].get_text()!r} overlaps {texts[j].get_text()!r}"


@pytest.mark.parametrize("case", CASES)
def test_every_plot_names_both_its_axes_and_their_units(case: str) -> None:
    pages = pages_of_case(case)
    plots = [axes for page in pages for axes in page.axes if axes.axison]
    assert len(plots) == (24 if case == "noise control" else 22)
    for axes in plots:
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert re.search(r"\(.+\)", label), f"{axes.get_title(loc='left')!r}: {label!r} has no unit"


def test_the_fit_is_drawn_for_both_halves_apart_even_in_grey() -> None:
    usual_pages = pages_of_case("usual")
    halves = synthetic_reconstruction().halves
    for half in halves:
        points = line_labelled(axes_of(usual_pages[FIT], "Loss"), f"half {half.half_set}")
        np.testing.assert_allclose(points, np.stack([half.history.step, half.history.loss], axis=1))
    for panel in ("Loss", "held-out", "Box", "Number"):
        styles = [line.get_linestyle() for line in axes_of(usual_pages[FIT], panel).lines]
        assert len(set(styles)) == 2, panel


def test_long_settings_warnings_and_command_are_printed_in_full() -> None:
    reconstruction = CASES["long texts"]()
    pages = pages_of_case("long texts")
    assert len(pages) > TEXT + 1
    words = words_of(pages[1:])
    for warning in reconstruction.warnings:
        assert " ".join(warning.split()) in words
    for name, value in reconstruction.settings.items():
        assert " ".join(f"{name}: {value}".split()) in words
    assert COMMAND in words
    assert reconstruction.curve.statement.strip() in words
    assert f"{len(reconstruction.warnings)} warnings" in words_of(pages[:1])


def test_wrapped_lines_keep_every_character_and_cut_what_is_too_wide() -> None:
    word = "folder_" * 60
    lines = wrap(f"a b {word} c", 1.5, SMALL_PT, indent="  ")
    assert "".join("".join(lines).split()) == f"ab{word}c"
    assert max(len(line) for line in lines) < 60
    assert wrap("", 1.0) == [""]
    assert wrap("粒子 a", 3.0) == ["?? a"], "what the font lacks"
