"""What users see: foreign text is harmless, JSON is one object."""

from __future__ import annotations

import json

import pytest

from bmcli.errors import BmcliError
from bmcli.terminal.console import Console


def test_markup_in_names_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print_table("[bold]classes", ["class"], [["[/x]"], ["[cat]"], ["=cmd()"]])
    shown = capsys.readouterr().out
    assert "[/x]" in shown
    assert "[cat]" in shown
    assert "[bold]classes" in shown


def test_numbers_of_a_table_are_aligned_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print_table("", ["class", "rows"], [["cat", 7], ["dog", 12345]])
    assert capsys.readouterr().out == "class    rows\ncat         7\ndog    12,345\n"


def test_results_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print_text("\x1b[2Jcat\nwrote a.html")
    assert capsys.readouterr().out == "\N{REPLACEMENT CHARACTER}[2Jcat\nwrote a.html\n"


def test_json_answers_once(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.print_json({"metrics": {}})
    console.print_faults(BmcliError("gate missed"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"metrics": {}}
    assert "gate missed" in captured.err


def test_faults_are_the_answer_where_there_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True).print_final_faults(BmcliError("lost worker 1."))
    captured = capsys.readouterr()
    assert [fault["message"] for fault in json.loads(captured.out)["faults"]] == ["lost worker 1."]
    assert captured.err == "lost worker 1.\n"


def test_numbers_that_json_does_not_know_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True).print_json({"r2": float("nan"), "interval": [float("-inf"), 0.5]})
    assert json.loads(capsys.readouterr().out) == {"r2": None, "interval": [None, 0.5]}


@pytest.mark.parametrize(("verbosity", "shown"), [(-1, []), (0, ["usual"]), (1, ["usual", "detail"])])
def test_verbosity_selects_messages(verbosity: int, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(verbosity=verbosity)
    console.log("usual")
    console.log("detail", level=1)
    assert capsys.readouterr().err.split() == shown


def test_flags_make_the_same_console() -> None:
    assert Console(as_json=True, verbosity=2).list_flags() == ["--json", "-v", "-v"]
    assert Console(verbosity=-1).list_flags() == ["-q"]
