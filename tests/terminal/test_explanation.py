"""Of many columns the console shows the most important ones, and what is left of the importance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bmcli.evaluation.explanation_record import PermutationImportance
from bmcli.terminal.console import Console
from bmcli.terminal.presenters import explanation
from tests.terminal.results import make_explanation


def print_importances(count: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    result = make_explanation()
    (target,) = result.explanation.targets
    importances = tuple(
        PermutationImportance(f"column_{n}", 1000.0 / (n + 1), -1.0 if n > 30 else 1.0, 2000.0, 0.0)
        for n in range(count)
    )
    changed = replace(target, target="price", loss="absolute error", importances=importances)
    explanation.print_result(
        Console(), replace(result, explanation=replace(result.explanation, targets=(changed,), left_out=0))
    )
    return capsys.readouterr().out.splitlines()


def test_the_first_20_of_73_columns_are_shown_with_the_count_of_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = print_importances(73, capsys)
    rows = [line for line in shown if line.startswith("column_")]
    assert [row.split()[0] for row in rows] == [f"column_{n}" for n in range(20)]
    total = sum(1 / (n + 1) for n in range(73))
    first, rest = 1 / total, sum(1 / (n + 1) for n in range(20, 73)) / total
    assert rows[0].split()[1:4] == ["1,000.0", f"{100 * first:.1f}", "%"]
    assert (
        f"53 more columns with a share of {100 * rest:.1f} %, of which 42 may be useless; explanation.json lists all."
    ) in shown


def test_few_columns_are_shown_without_a_rest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = print_importances(20, capsys)
    assert sum(line.startswith("column_") for line in shown) == 20
    assert not any("more columns" in line for line in shown)
