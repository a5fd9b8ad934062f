"""The page of a comparison: safe whatever runs are called, and seen in a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bmcli.reports.compare import render_comparison
from tests.reports.browser import COMMAND, browser
from tests.reports.comparisons import comparison
from tests.reports.pages import Page

SCRIPT = "<script>alert(1)</script>"
FOUND = comparison({SCRIPT: (5000, 0.95), "small": (500, 0.945), "tiny": (50, 0.7)})


def test_the_page_gives_the_advice_and_its_grounds() -> None:
    page = Page(render_comparison(FOUND))
    assert "Recommended: small, with 10.0 % of the parameters" in page.text
    assert "McNemar" in page.text
    assert "model.hidden" in page.text
    assert page.count("svg") >= 4


def test_names_are_text() -> None:
    page = Page(render_comparison(FOUND))
    assert page.count("script") == 1
    assert "alert" not in page.script
    assert SCRIPT in page.text


def test_runs_on_other_rows_are_not_compared_row_by_row() -> None:
    page = Page(
        render_comparison(replace(FOUND, unpaired_reason="they saw different rows.", against_first={}, against_best={}))
    )
    assert "The runs cannot be compared row by row: they saw different rows." in page.text
    assert "Recommended" not in page.text


@pytest.mark.skipif(COMMAND is None, reason="this machine has no browser")
def test_a_browser_shows_all_of_it_without_a_complaint(tmp_path: Path) -> None:
    file = tmp_path / "comparison.html"
    file.write_text(render_comparison(FOUND), encoding="utf-8")
    with browser() as window:
        for width in (1280, 400):
            for dark in (False, True):
                seen = window.look(file, width, dark)
                assert (seen.width, seen.overflowing, seen.complaints, seen.requests) == (width, [], [], [])
