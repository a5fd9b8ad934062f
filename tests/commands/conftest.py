"""Fixtures that call bmcli as a user does, in this process."""

from __future__ import annotations

import json
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
