"""A case of the catalogue: data as people write it, and the clean data that it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Files = Mapping[str, bytes]
"""Contents of files by their paths, relative to the folder of the case. The first one is what `init` is called on."""

Write = Callable[[Any], str]
"""Writes one value of a table as the text of a cell, without quotes."""

ROWS = 160


@dataclass(frozen=True)
class Case:
    """Data as people write it, and the clean data that it means.

    Args:
        name: What people write; the name of the test.
        awkward: What is trained on.
        clean: What it means, such as numbers with a point, dates as 2021-01-31, and empty cells where one is missing.
        meets: What is predicted and evaluated after the training on `awkward`; by default `awkward` itself.
        target: Column of the target; empty for folders of pictures.
        data: What `init` is called on; by default the first file.
        unseen: Number of cells by column that `predict` reports as unknown to the model.
        classes: Answers of a model of `awkward`, with what a model of `clean` calls them where it is another name.
    """

    name: str
    awkward: Files
    clean: Files
    meets: Files | None = None
    target: str = "y"
    data: str = ""
    unseen: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def write(self, files: Files, folder: Path) -> Path:
        """Write files into a folder; return the path of the data among them."""
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return folder / (self.data or next(iter(files)))


def values(rows: int = ROWS) -> list[dict[str, Any]]:
    """Return the rows of the table that most cases write: numbers, dates, words, texts and answers.

    `amount` is from 900 to 2,495 in steps of 0.5, `count` an integer, `day` the days from 2021-01-01, `town` one of
    four words, `member` a boolean, `note` prose, `y` one of two classes that follow from the others.
    """
    from datetime import date, timedelta

    towns = ("Bern", "Genf", "Rom", "Wien")
    found = []
    for row in range(rows):
        place = row * 37 % rows  # not sorted by any column
        amount = 900 + place * 1595 // max(1, rows - 1) + (0.5 if place % 2 else 0.0)
        town, member = towns[place * 7 % 4], place % 3 == 0
        found.append(
            {
                "amount": amount,
                "count": place % 23,
                "day": date(2021, 1, 1) + timedelta(days=place),
                "town": town,
                "member": member,
                "note": f"the {('red', 'old', 'new')[place % 3]} house in {town} has {place % 5} rooms and a garden",
                "y": "high" if amount > 1700 or (member and town == "Rom") else "low",
            }
        )
    return found


CLEAN: Mapping[str, Write] = {
    "amount": lambda value: f"{value:.1f}",
    "count": str,
    "day": lambda value: value.isoformat(),
    "town": str,
    "member": lambda value: "yes" if value else "no",
    "note": str,
    "y": str,
}
"""How the clean table writes each column."""


def write_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Write] = CLEAN,
    delimiter: str = ",",
    names: Mapping[str, str] | None = None,
    quote: bool = False,
) -> bytes:
    """Write rows as delimited text with a header.

    Args:
        columns: The columns, in their order, with how each writes its values.
        names: Other names of columns in the header.
        quote: Quote every cell, and not only those that hold a delimiter, a quote or a line break.
    """

    def write_cell(text: str) -> str:
        special = quote or delimiter in text or '"' in text or "\n" in text
        return '"' + text.replace('"', '""') + '"' if special else text

    header = delimiter.join(write_cell((names or {}).get(name, name)) for name in columns)
    lines = [delimiter.join(write_cell(write(row[name])) for name, write in columns.items()) for row in rows]
    return ("\n".join([header, *lines]) + "\n").encode()


def pick(**writers: Write | None) -> dict[str, Write]:
    """Return the clean columns, some of them written in another way; None leaves a column out."""
    chosen = {**CLEAN, **writers}
    return {name: write for name, write in chosen.items() if write is not None}


def cell_case(name: str, column: str, write: Write, clean: Write | None = None, **options: Any) -> Case:
    """Make the case of a table with one column that is written in another way.

    Args:
        clean: How the clean twin writes it; by default as the clean table does.
        options: Further arguments of Case.
    """
    return Case(
        name=name,
        awkward={"rows.csv": write_table(values(), pick(**{column: write}))},
        clean={"rows.csv": write_table(values(), pick(**({column: clean} if clean else {})))},
        **options,
    )
