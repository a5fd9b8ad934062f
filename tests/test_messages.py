"""Faults show their place, and messages reach any stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bmcli.errors import BmcliError, Fault, FileLocation
from bmcli.messages import format_duration, uncover_stderr, write_faults, write_message
from bmcli.native_output import hide_native_stderr


def test_a_fault_shows_its_line_with_a_caret(capsys: pytest.CaptureFixture[str]) -> None:
    place = FileLocation("r.yaml", 23, 3, "  epocs: 3")
    write_faults(BmcliError(Fault("no such key.", "train.epocs", place, "Did you mean 'epochs'?")))
    assert capsys.readouterr().err == (
        "r.yaml:23:3  train.epocs: no such key. Did you mean 'epochs'?\n      epocs: 3\n      ^\n"
    )


def test_the_caret_of_a_long_line_stands_below_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    write_faults(BmcliError(Fault("wrong.", "", FileLocation("r.yaml", 1, 301, "a" * 300 + "!" + "b" * 300))))
    _, line, caret = capsys.readouterr().err.splitlines()
    assert line[caret.index("^")] == "!"


def test_faults_are_one_json_object_and_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    write_faults(BmcliError(Fault("too large.", "train.epochs"), Fault("no such file.")), as_json=True)
    captured = capsys.readouterr()
    assert [fault["path"] for fault in json.loads(captured.out)["faults"]] == ["train.epochs", ""]
    assert captured.err.splitlines() == ["train.epochs: too large.", "no such file.", "2 faults."]


def test_a_message_is_redacted_and_clean(capsys: pytest.CaptureFixture[str]) -> None:
    write_message("read s3://user:secret@bucket\x1b[2J")
    write_message("a detail", level=1)
    assert capsys.readouterr().err == "read s3://***@bucket\N{REPLACEMENT CHARACTER}[2J\n"


def test_text_an_encoding_lacks_is_replaced() -> None:
    code = "import sys; from bmcli.messages import write_text; write_text('\\u2713 \\udcff\\n', sys.stdout)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout == b"? ?\n"


def test_faults_are_seen_while_native_output_is_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    with hide_native_stderr():
        os.write(2, b"noise\n")
        uncover_stderr()
        write_faults(BmcliError("lost worker 1."))
    assert capfd.readouterr().err == "lost worker 1.\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (65, "1:05"), (3600 + 62, "1:01:02")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
