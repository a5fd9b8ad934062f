"""The common layout of reports: self-contained files for phones, paper, and light and dark displays."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli.number_texts import write_measure, write_number
from bmcli.printable import clean
from bmcli.quoting import brief, shortened
from bmcli.recipe.nodes import write_scalar

_MAX_LENGTH = 500  # characters of one text


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        kind: CSS classes.
        exact: Sort key, if it is not the text.
    """

    text: str
    kind: str = ""
    exact: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table; `best` marks it with a star."""

    cells: tuple[Cell, ...]
    best: bool = False


@dataclass(frozen=True)
class Heading:
    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Fact:
    """A headline number at the top of a page, with a note."""

    name: str
    value: str
    note: str = ""


def make_number_cell(value: float | None, text: str | None = None) -> Cell:
    """Make a cell of a number, empty for None."""
    if value is None:
        return Cell("", "number", "")
    return Cell(write_measure(value) if text is None else text, "number", repr(value))


def make_value_cell(value: Any) -> Cell:
    """Make a cell of a value of a recipe."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return make_number_cell(value, write_number(value))
    return Cell(format_value(value))


TEMPLATE_FOLDER = Path(__file__).with_name("templates")


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Render a report from a template that extends `page.html`.

    All text from recipes and data is escaped, and the content security policy of the page forbids every request and
    every other script.

    Args:
        values: Variables of the template. Only `markupsafe.Markup` is inserted without escaping.
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
        "short_lines": _cut_lines,
    }
    script = (TEMPLATE_FOLDER / "page.js").read_text(encoding="utf-8")
    page_assets = {
        "style": _mark_safe((TEMPLATE_FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": _mark_safe(script),
        # The content security policy allows exactly the script with this hash.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment.get_template(template).render({**values, **page_assets})


def _cut_lines(text: str) -> str:
    """Cut each line: a resolved recipe may name a class of foreign data, such as the positive one."""
    return "\n".join(shortened(line, _MAX_LENGTH) for line in text.splitlines())


class Whole(str):
    """Text that a report shows in full, such as a recipe or the `data:` URL of a picture."""


def _cut(value: Any) -> Any:
    """Cut long text: a name or a cell of foreign data may have a megabyte."""
    return brief(value, _MAX_LENGTH) if type(value) is str and len(value) > _MAX_LENGTH else value


def format_value(value: Any) -> str:
    """Format a value in the syntax of a recipe, fractions with five digits."""
    if isinstance(value, float):
        return format_number(value)
    return clean(write_scalar(value))


def format_number(value: float | None) -> str:
    """Format a number for a text, `-` without one."""
    return write_number(value)


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units: `2 h 5 min`, `3 min 20 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _mark_safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # only for files of this package, never for foreign text
