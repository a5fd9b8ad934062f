"""The frame that all reports share: one file that needs nothing else, on a phone, on paper, light and dark."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli.printable import clean
from bmcli.quoting import brief
from bmcli.recipe.nodes import write_scalar

_LONGEST = 500  # characters of one text


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        kind: CSS classes.
        exact: What a column is sorted by, if not by the text.
    """

    text: str
    kind: str = ""
    exact: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table; the best one is marked."""

    cells: tuple[Cell, ...]
    best: bool = False


@dataclass(frozen=True)
class Heading:
    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Fact:
    """A figure to see first, with what is to be said of it."""

    name: str
    value: str
    more: str = ""


def make_number_cell(value: float | None, text: str | None = None) -> Cell:
    """A number, empty if there is none."""
    if value is None:
        return Cell("", "number", "")
    return Cell(format_number(value) if text is None else text, "number", repr(value))


def make_value_cell(value: Any) -> Cell:
    """A value of a recipe."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return make_number_cell(value)
    return Cell(format_value(value))


TEMPLATE_FOLDER = Path(__file__).with_name("templates")


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """A report from a template that extends `page.html`.

    Everything from recipes and data is escaped, and the page itself forbids the browser every request and every
    script but its own.

    Args:
        values: What the template asks for. Only `markupsafe.Markup` passes as it is.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_cut,
    )
    environment.filters |= {
        "shown": format_value,
        "number": format_number,
        "duration": format_duration,
        "clean": clean,
        "whole": Whole,
    }
    script = (TEMPLATE_FOLDER / "page.js").read_text(encoding="utf-8")
    own = {
        "style": _mark_safe((TEMPLATE_FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": _mark_safe(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment.get_template(template).render({**values, **own})


class Whole(str):
    """Text that a report shows in full, as a recipe or the address of a picture."""


def _cut(value: Any) -> Any:
    """Foreign text no longer than anyone reads: a name or a cell may have a megabyte."""
    return brief(value, _LONGEST) if type(value) is str and len(value) > _LONGEST else value


def format_value(value: Any) -> str:
    """A value of a recipe as a recipe would write it, numbers to four digits."""
    if isinstance(value, float):
        return format_number(value)
    return clean(write_scalar(value))


def format_number(value: float | None) -> str:
    """A number for a reader: four digits that count, whole numbers in full, with an exponent if huge or tiny."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1e12 or 0 < abs(value) < 1e-4:
        return f"{value:.3e}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"


def format_duration(seconds: float) -> str:
    """A time in its two largest units: `2 h 5 min`, `3 min 20 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _mark_safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # a file of ours
