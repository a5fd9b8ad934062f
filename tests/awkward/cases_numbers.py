"""Numbers, booleans and missing values as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.awkward.case import CLEAN, Case, Write, cell_case, pick, values, write_table

DIGITS = {ord(str(digit)): 0xFF10 + digit for digit in range(10)}


def swap(number: str) -> str:
    """Exchange points and commas."""
    return number.translate({ord(","): ".", ord("."): ","})


def grouped(mark: str, unit: str = "", decimal: str = ".") -> Write:
    """Return the writer of amounts with groups of three digits."""
    return lambda value: f"{value:,.2f}".translate({ord(","): mark, ord("."): decimal}) + unit


def every(step: int, cell: str, write: Write, start: int = 3) -> Write:
    """Return a writer that writes another cell in place of every so many values."""
    count = start

    def choose(value: Any) -> str:
        nonlocal count
        count += 1
        return cell if count % step == 0 else write(value)

    return choose


def gap_case(name: str, column: str, cell: str, step: int = 12, write: Write | None = None) -> Case:
    """Make the case of a column some of whose cells are another text, which means a missing one."""
    usual = write or CLEAN[column]
    return cell_case(name, column, every(step, cell, usual), every(step, "", CLEAN[column]))


def table_case(name: str, delimiter: str, **writers: Write) -> Case:
    """Make the case of a table with another delimiter."""
    return Case(
        name=name,
        awkward={"rows.csv": write_table(values(), pick(**writers), delimiter)},
        clean={"rows.csv": write_table(values())},
    )


def negative(write: Callable[[float], str]) -> Write:
    """Return the writer of amounts around 0."""
    return lambda value: write(value - 1700)


def command_case(name: str, awkward: str, clean: str) -> Case:
    """Make the case of lines that a command prints."""
    return Case(name, {"rows.csv": awkward.encode()}, {"rows.csv": clean.encode()})


def print_temperatures(mark: str, delimiter: str) -> str:
    rows = (f"{i % 40}{mark}{i % 10}{delimiter}{'warm' if i % 40 > 19 else 'kalt'}\n" for i in range(200))
    return f"t{delimiter}y\n" + "".join(rows)


def print_incomes(missing: str) -> str:
    rows = (f"{i + 0.5 if i % 12 else missing},{'no' if i < 100 else 'yes'}\n" for i in range(200))
    return "income,y\n" + "".join(rows)


CASES: list[Case] = [
    command_case("temperatures with a decimal comma", print_temperatures(",", ";"), print_temperatures(".", ",")),
    command_case("incomes with NULL", print_incomes("NULL"), print_incomes("")),
    cell_case("numbers with a decimal comma", "amount", lambda value: swap(f"{value:.1f}")),
    cell_case("numbers with groups and a point", "amount", grouped(",")),
    cell_case("numbers with groups and a comma", "amount", grouped(".", decimal=",")),
    cell_case("numbers with blanks between groups", "amount", grouped(" ", decimal=",")),
    cell_case("numbers with thin blanks between groups", "amount", grouped("\N{NARROW NO-BREAK SPACE}", decimal=",")),
    cell_case("numbers with apostrophes between groups", "amount", grouped("'")),
    cell_case("numbers in dollars", "amount", lambda value: f"${value:,.2f}"),
    cell_case("numbers in euros", "amount", grouped(" ", "\N{NO-BREAK SPACE}EUR", ",")),
    cell_case("numbers in per cent", "count", lambda value: f"{value} %"),
    cell_case("numbers in full-width digits", "count", lambda value: str(value).translate(DIGITS)),
    cell_case("numbers in quotes", "count", lambda value: f'"{value}"'),
    cell_case(
        "negative numbers with the sign of mathematicians", "amount",
        negative(lambda value: f"{value:.1f}".replace("-", "\N{MINUS SIGN}")), negative(lambda value: f"{value:.1f}"),
    ),
    cell_case(
        "negative amounts in parentheses", "amount",
        negative(lambda value: f"({-value:,.2f})" if value < 0 else f"{value:,.2f}"),
        negative(lambda value: f"{value:.2f}"),
    ),
    table_case("a table of a country with decimal commas", ";", amount=lambda value: swap(f"{value:.1f}")),
    gap_case("numbers with NULL", "amount", "NULL"),
    gap_case("numbers with unknown", "count", "unknown"),
    gap_case("numbers with errors of spreadsheets", "amount", "#DIV/0!"),
    gap_case("numbers with dashes", "count", "-"),
    gap_case("numbers with a note", "amount", "see note", 40),
    gap_case("numbers with a decimal comma and None", "amount", "None", 12, lambda value: swap(f"{value:.1f}")),
    gap_case("booleans with unknown", "member", "unknown"),
    gap_case("booleans with a note", "member", "see note", 40),
    cell_case("booleans in German", "member", lambda value: "ja" if value else "nein"),
    cell_case("booleans in French", "member", lambda value: "oui" if value else "non"),
    cell_case("booleans as marks", "member", lambda value: "\N{CHECK MARK}" if value else "\N{BALLOT X}"),
]  # fmt: skip
