"""Figures: the same bytes each time, ids of their own, colours that are seen on both pages."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from bmcli.reports import figures


def line(figure: Any) -> None:
    axes = figure.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], marker="o", color=figures.BLUE)
    axes.set_title("cost in $ & <b>\u65e5\u672c</b> $x_2$")


def draw(name: str) -> str:
    return str(figures.render_svg(name, "a <line>", (3, 2), line))


def test_a_figure_is_the_same_each_time() -> None:
    assert draw("a") == draw("a")


def test_settings_of_the_user_change_nothing() -> None:
    import matplotlib

    expected = draw("a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw("a") == expected


def test_ids_of_two_figures_differ_and_references_find_theirs() -> None:
    one, other = draw("a"), draw("b")
    ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]*)', one))
    assert referred
    assert referred <= ids[0]


def test_text_is_text_and_takes_the_colour_and_font_of_the_page() -> None:
    root = ElementTree.fromstring(draw("a"))
    texts = [element for element in root.iter("text")]
    assert "cost in $ & <b>\u65e5\u672c</b> $x_2$" in [element.text for element in texts]
    assert not any("fill" in element.attrib["style"] or "family" in element.attrib["style"] for element in texts)
    assert "#000000" not in draw("a")
    assert "currentColor" in draw("a")


def test_a_figure_names_no_address_and_no_date() -> None:
    drawn = draw("a")
    assert "http" not in drawn
    assert not re.search(r"20\d\d-", drawn)
    assert 'aria-label="a &lt;line&gt;"' in drawn


@pytest.mark.parametrize("colour", [*figures.RAMP, figures.RED])
@pytest.mark.parametrize("page", ["#ffffff", "#15181c"])
def test_every_colour_is_seen_on_the_light_page_and_on_the_dark_one(colour: str, page: str) -> None:
    light, dark = sorted((brightness(colour), brightness(page)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def brightness(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_long_text_loses_its_middle() -> None:
    assert figures.shorten("abcdefghij", 7) == "abc…hij"
    assert figures.shorten("abc", 7) == "abc"


def test_a_few_very_bad_values_end_the_axis_before_them() -> None:
    assert figures.find_outlier_limit([1.0, 1.1, 1.2, 1.3, 1000.0], worst_is_high=True) == pytest.approx(1 + 4 * 0.3)
    assert figures.find_outlier_limit([1.0, 1.1, 1.2, 1.3, 1.4], worst_is_high=True) is None
    assert figures.find_outlier_limit([0.9, 0.91, 0.92, 0.93, -50.0], worst_is_high=False) == pytest.approx(0.81)
