"""The table of trials reads back, and no cell is a formula."""

from __future__ import annotations

import csv
import io
from typing import Any

from bmcli.recipe.search import SearchParameter
from bmcli.reports.trials_csv import render_trials_csv
from bmcli.trials import SearchObjective, SearchResult, Task, Trial, TrialResult, TrialState

LOSS = SearchObjective("validation/loss", "min")


def rows(*trials: Trial, path: str = "model.kind") -> list[dict[str, str]]:
    searched = SearchResult("x", "random", (LOSS,), {path: SearchParameter("choice", ("a", "b"))}, trials)
    return list(csv.DictReader(io.StringIO(render_trials_csv(searched), newline=""), strict=True))


def trial(value: Any, state: TrialState = "done", reason: str = "", loss: float = 0.25) -> Trial:
    return Trial(
        Task("0001", {"model.kind": value}), TrialResult("0001", state, {LOSS.name: loss}, (), {}, 3, 1.5, reason)
    )


def test_a_row_has_all_of_a_trial() -> None:
    ended = Trial(
        Task("0002", {"model.kind": "a"}, continues="0001"),
        TrialResult(
            "0002", "stopped", {LOSS.name: 0.25}, epochs=3, seconds=1.23456, reason='worse, "by far"\nthan others'
        ),
    )
    assert rows(ended) == [
        {
            **{
                "trial": "0002",
                "state": "stopped",
                "reason": 'worse, "by far"\nthan others',
                "validation/loss": "0.25",
            },
            **{"model.kind": "a", "epochs": "3", "seconds": "1.235", "continues": "0001"},
        }
    ]


def test_lines_end_as_the_standard_requires() -> None:
    searched = SearchResult("x", "random", (LOSS,), {}, (trial("a"),))
    assert render_trials_csv(searched).count("\r\n") == 2


def test_texts_that_begin_a_formula_are_quoted_and_numbers_are_not() -> None:
    for text in ("=cmd()", "+1", "-1+2", "@SUM(A1)", "  =1", "\t=1", "\uff1d1"):
        assert rows(trial(text))[0]["model.kind"] == "'" + text
    assert rows(trial(-0.5))[0]["model.kind"] == "-0.5"
    assert rows(trial("a", reason="=HYPERLINK(1)"))[0]["reason"] == "'=HYPERLINK(1)"


def test_values_keep_their_types() -> None:
    values = [rows(trial(value))[0]["model.kind"] for value in (True, None, [16, "a"], 1e-5, 3, "x,y")]
    assert values == ["true", "null", '[16, "a"]', "1e-05", "3", "x,y"]


def test_what_is_not_there_is_empty() -> None:
    running = Trial(Task("0003", {}), None)
    assert rows(running) == [
        {
            **{"trial": "0003", "state": "running", "reason": "", "validation/loss": ""},
            **{"model.kind": "", "epochs": "", "seconds": "", "continues": ""},
        }
    ]
    assert rows(trial("a", loss=float("nan")))[0]["validation/loss"] == ""


def test_a_hostile_path_is_one_column() -> None:
    ended = Trial(Task("0001", {"=a,b": 1}), TrialResult("0001", "done"))
    assert rows(ended, path="=a,b")[0]["'=a,b"] == "1"


def test_control_characters_and_broken_text_can_be_written() -> None:
    searched = SearchResult(
        "x", "random", (LOSS,), {"model.kind": SearchParameter("choice", ("a",))}, (trial("\x00\x1b\ud800"),)
    )
    assert b"\x1b" not in render_trials_csv(searched).encode()
