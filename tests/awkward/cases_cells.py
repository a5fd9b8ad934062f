"""Cells of a table: how people write one value."""

from __future__ import annotations

from tests.awkward.case import Case, cell_case
from tests.awkward.cases_same import in_turn

CASES: list[Case] = [
    cell_case("numbers with a plus sign", "amount", lambda value: f"+{value:.1f}"),
    cell_case("numbers with blanks around", "amount", lambda value: f" {value:.1f} "),
    cell_case("numbers in scientific notation", "amount", lambda value: f"{value:.5e}"),
    cell_case("whole numbers with a point", "count", lambda value: f"{value}.0"),
    cell_case("booleans as true and false", "member", lambda value: "true" if value else "false"),
    cell_case(
        "booleans in several spellings",
        "member",
        in_turn(lambda value: "yes" if value else "no", lambda value: "Y" if value else "n"),
    ),
]
