"""Tables fit the terminal without losing a cell, and their numbers are aligned."""

from __future__ import annotations

import re

import pytest

from bmcli.terminal.console import Console
from bmcli.terminal.tables import make_columns

METRICS = [
    ["test/accuracy", 0.8103, 0.7183, "0.7833 to 0.8347"],
    ["test/precision_weighted", 0.802, "-", "0.7716 to 0.8282"],
    ["test/rmse", 33_132.6, 81_025.9, "22,729 to 49,717"],
]
HEADINGS = ["metric", "value", "baseline", "95 % interval"]


def print_at(width: int, capsys: pytest.CaptureFixture[str], *table: object, mixed: bool = False) -> str:
    console = Console()
    console.get_rich_console("stdout").width = width
    console.print_table(*table, mixed=mixed)  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_metrics_of_different_units_have_their_own_decimals_below_one_point(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = print_at(120, capsys, "", HEADINGS, METRICS, mixed=True)
    assert shown == (
        "metric                         value     baseline  95 % interval\n"
        "test/accuracy                 0.8103       0.7183  0.7833 to 0.8347\n"
        "test/precision_weighted       0.8020            -  0.7716 to 0.8282\n"
        "test/rmse                33,133       81,026       22,729 to 49,717\n"
    )


def test_numbers_of_one_unit_have_the_decimals_of_the_largest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = print_at(80, capsys, "", ["column", "increase"], [["area", 17_286.04], ["age", 9.512], ["alley", -0.3]])
    assert shown == "column  increase\narea      17,286\nage           10\nalley          0\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 10_000])
def test_a_table_loses_no_cell_at_any_width(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a_long_name_of_column_{n}" for n in range(3)]
    headings = ["column", "kind", "rows", "true positive rate", "share", "p adjusted", "why"]
    rows = [
        [
            name,
            "category",
            1234 + n,
            0.61 + n / 100,
            f"{n}.5 %",
            "< 0.001",
            f"some words of sentence {n}, and its end",
        ]
        for n, name in enumerate(names)
    ]
    shown = print_at(width, capsys, "slices", headings, rows)
    assert max(map(len, shown.splitlines())) <= width
    for text in (*names, "1,234", "1,236", "0.6100", "0.6300", "0.5 %", "2.5 %", "< 0.001"):
        assert text in shown
    words = re.split(r"\s+", shown)
    for word in " ".join([*headings, *(row[-1] for row in rows)]).split():  # type: ignore[misc]
        assert word in words, f"{word} is cut at {width}"


def test_columns_that_do_not_fit_follow_below_with_the_first_column(capsys: pytest.CaptureFixture[str]) -> None:
    shown = print_at(40, capsys, "", ["metric", *(f"fold {n}" for n in range(1, 6))], [["accuracy", *[0.8] * 5]])
    assert shown == (
        "metric    fold 1  fold 2  fold 3  fold 4\naccuracy  0.8000  0.8000  0.8000  0.8000\n\n"
        "metric    fold 5\naccuracy  0.8000\n"
    )


def test_ranges_are_aligned_number_by_number() -> None:
    (column,) = make_columns(["rate"], [["0.5 (0.25 to 0.75)"], ["12.125 (9 to 15)"], ["-"]], mixed=False)
    assert column.cells == (" 0.5   (0.25 to  0.75)", "12.125 (9    to 15)", "-")
    assert not column.is_number
