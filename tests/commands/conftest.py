"""Fixtures that call bmcli as a user does, in this process."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bmcli.__main__ import main


@dataclass(frozen=True)
class Done:
    """Output and exit code of a call."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the JSON object on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Bmcli = Callable[..., Done]


@pytest.fixture
def bmcli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Bmcli:
    """Call the command line in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bmcli", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capfd.readouterr()
        return Done(int(left.value.code or 0), captured.out, captured.err)

    return call


def read_advised_commands(text: str) -> list[str]:
    """Read the commands that a message advises, without backticks."""
    return re.findall(r"`(bmcli [^`]+)`", " ".join(text.split()))


def read_advised_overrides(text: str) -> list[str]:
    """Read the overrides that a message advises, such as `train.epochs=6`; not in the line of the fault, below it."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return [match.rstrip(".,;") for match in re.findall(r"(?<![\w.])[a-z]+(?:\.[a-z_]+)+=[^\s`]+", text)]


def obey(bmcli: Bmcli, text: str, *more: object, **words: object) -> Done:
    """Run the last command that a message advises, which must lead on: it ends with 0.

    Args:
        more: Further arguments.
        words: What a reader puts for the words in capitals, such as `RECIPE`.
    """
    done = try_advice(bmcli, text, *more, **words)
    assert done.code == 0, f"{text}\n{done.err}"
    return done


def try_advice(bmcli: Bmcli, text: str, *more: object, **words: object) -> Done:
    """Run the last command that a message advises, however it ends; arguments as of `obey`."""
    commands = read_advised_commands(text)
    assert commands, f"no command is advised: {text}"
    arguments = [str(words.get(word, word)) for word in shlex.split(commands[-1])[1:]]
    return bmcli(*arguments, *more)
