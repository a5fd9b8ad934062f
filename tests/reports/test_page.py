"""Numbers and times as a reader wants them, and what a template may pass."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from bmcli.reports.page import format_duration, format_number, format_value, render_page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.93124, "0.9312"), (0.0, "0"), (-0.5, "-0.5"), (13108200.0, "13,108,200"), (123456.78, "123,457")),
        *((1e-5, "1e-05"), (1e30, "1e+30"), (None, "-"), (float("nan"), "-"), (float("-inf"), "-∞")),
    ],
)
def test_a_number_has_the_digits_that_count(value: float | None, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_a_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [("mlp", "mlp"), ("null", '"null"'), (None, "null"), ([8, "a"], "[8, a]"), (True, "true")]
)
def test_a_value_is_shown_as_a_recipe_writes_it(value: Any, text: str) -> None:
    assert format_value(value) == text


def test_a_template_with_an_unknown_variable_fails() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_page("tune.html", {})


def test_the_templates_are_part_of_the_package() -> None:
    from importlib.resources import files

    assert {"page.html", "page.css", "page.js", "parts.html", "tune.html"} <= {
        each.name for each in (files("bmcli.reports") / "templates").iterdir()
    }
