"""Figures: the same bytes each time, ids of their own, colours that are seen on both pages."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from bmcli.answers.figures import Curve, Curves, Histogram, Scatter
from bmcli.reports import figures, run_figures


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


LONG = ("Residential_Low_Density", "Residential_Medium_Density", "Floating_Village_Residential")
PRICES = np.random.default_rng(0).lognormal(16, 1, 300)
FIGURES = {
    "confusion": lambda: run_figures.draw_confusion("zone", ((9, 1, 0), (2, 8, 0), (0, 1, 9)), LONG, "a"),
    "two classes": lambda: run_figures.draw_confusion("zone", ((9, 1), (2, 8)), LONG[:2], "a"),
    "histogram": lambda: run_figures.draw_histogram("price", {"train": PRICES, "test": PRICES[::3]}, "a"),
    "scatter": lambda: run_figures.draw_answer_figure(Scatter("t", "true price", "predicted", PRICES, PRICES), "a"),
    "errors": lambda: run_figures.draw_answer_figure(Histogram("t", "predicted minus true", 1e6 + PRICES), "a"),
    "classes": lambda: run_figures.draw_classes("zone", {"train": [5, 4, 3], "test": [2, 2, 2]}, LONG, "a"),
    "ROC": lambda: run_figures.draw_answer_figure(
        Curves("ROC", "false positive rate", "true positive rate",
               tuple(Curve(name, "0.912", np.linspace(0, 1, 9), np.linspace(0, 1, 9)) for name in LONG), "area"), "a"
    ),
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test draws."""
    made: list[Figure] = []
    separate = figures._separate_labels

    def keep(figure: Figure) -> None:
        separate(figure)
        figure.draw_without_rendering()
        made.append(figure)

    monkeypatch.setattr(figures, "_separate_labels", keep)
    return made


@pytest.mark.parametrize("name", FIGURES)
def test_labels_neither_overlap_nor_leave_the_figure(name: str, drawn: list[Figure]) -> None:
    assert FIGURES[name]() is not None
    (figure,) = drawn
    assert not any(map(figures.has_overlaps, figure.axes))
    for axes in figure.axes:
        labels = [figures.list_labels(axis) for axis in (axes.xaxis, axes.yaxis)]
        boxes = sorted((each.get_window_extent() for each in labels[1]), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
        texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label, *labels[0], *labels[1]]
        for text in (each for each in texts if each.get_text()):
            box, page = text.get_window_extent(), figure.bbox
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text.get_text()
            assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text.get_text()


def test_labels_of_classes_are_turned_only_where_they_would_touch(drawn: list[Figure]) -> None:
    run_figures.draw_confusion("zone", ((9, 1), (2, 8)), LONG[:2], "a")
    run_figures.draw_confusion("zone", ((9, 1), (2, 8)), ("bad", "good"), "b")
    turned = [figure.axes[0].get_xticklabels()[0].get_rotation() for figure in drawn]
    assert turned == [90, 0]


def test_large_numbers_of_an_axis_are_written_out(drawn: list[Figure]) -> None:
    run_figures.draw_histogram("price", {"train": np.linspace(98_000, 2_600_000, 50)}, "a")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert "500,000" in labels
    assert not any("e" in label for label in labels)
    assert drawn[0].axes[0].xaxis.get_offset_text().get_text() == ""


def test_years_of_an_axis_are_written_as_years(drawn: list[Figure]) -> None:
    run_figures.draw_histogram("Year_Built", {"train": np.arange(1900.0, 2010)}, "a")
    assert "1920" in [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
