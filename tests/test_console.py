"""What users see: foreign text is harmless, faults show their place, JSON is one object."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bmcli.console import Console, clean
from bmcli.errors import BmcliError, Fault, FileLocation


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a\x00b", "\u202egnp.exe", "\x9b31m"])
def test_control_characters_never_reach_a_terminal(text: str) -> None:
    assert all(character.isprintable() for character in clean(text))


def test_markup_in_names_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("[bold]classes", ["class"], [["[/x]"], ["[cat]"], ["=cmd()"]])
    shown = capsys.readouterr().out
    assert "[/x]" in shown
    assert "[cat]" in shown
    assert "[bold]classes" in shown


def test_a_fault_shows_its_line_with_a_caret(capsys: pytest.CaptureFixture[str]) -> None:
    place = FileLocation("r.yaml", 23, 3, "  epocs: 3")
    Console().faults(BmcliError(Fault("no such key.", "train.epocs", place, "Did you mean 'epochs'?")))
    assert capsys.readouterr().err == (
        "r.yaml:23:3  train.epocs: no such key. Did you mean 'epochs'?\n      epocs: 3\n      ^\n"
    )


def test_the_caret_of_a_long_line_stands_below_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    Console().faults(BmcliError(Fault("wrong.", "", FileLocation("r.yaml", 1, 301, "a" * 300 + "!" + "b" * 300))))
    _, line, caret = capsys.readouterr().err.splitlines()
    assert line[caret.index("^")] == "!"


def test_json_answers_once(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.result({"metrics": {}})
    console.faults(BmcliError("gate missed"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"metrics": {}}
    assert "gate missed" in captured.err


def test_text_an_encoding_lacks_is_replaced() -> None:
    code = "from bmcli.console import Console; Console().text('\\u2713 \\udcff')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout == b"? ?\n"


def test_numbers_that_json_does_not_know_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True).result({"r2": float("nan"), "interval": [float("-inf"), 0.5]})
    assert json.loads(capsys.readouterr().out) == {"r2": None, "interval": [None, 0.5]}
