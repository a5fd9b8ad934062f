"""What users see of a training while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from bmcli.terminal.console import Console
from bmcli.terminal.progress import TerminalProgress
from bmcli.training.progress import LineProgress, ProgressUpdate

UPDATE = ProgressUpdate(
    epoch=2, epochs=5, step=30, steps=100, loss=0.25, examples_per_second=12345.6, seconds_left=65.0
)
STATUS = "epoch 2/5  step 30/100  loss 0.2500  12,346 examples/s  1:05 left"
ROW = {"epoch": 2, "train/loss": 0.2, "validation/accuracy": None, "examples_per_second": 12345.6}
EPOCH = "epoch   2  train/loss 0.2000  validation/accuracy -  12,346 examples/s  *"


def test_each_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().make_progress("digits") as progress:
        assert isinstance(progress, LineProgress)
        progress.on_progress(UPDATE)
        progress.on_epoch_end(ROW, selected=True)
        progress.on_note("a note\x1b[2J")
    assert capsys.readouterr().err == f"{EPOCH}\na note\N{REPLACEMENT CHARACTER}[2J\n"


def test_a_long_epoch_shows_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append)
    monkeypatch.setattr(LineProgress, "INTERVAL_S", -1.0)
    progress.on_progress(UPDATE)
    assert lines == [STATUS]


def test_a_quiet_console_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(verbosity=-1).make_progress("digits") as progress:
        progress.on_epoch_end(ROW, selected=True)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_epochs_stay_above_the_bar() -> None:
    out = io.StringIO()
    console = Console(_rich={"stderr": RichConsole(file=out, force_terminal=True, width=120)})
    with console.make_progress("[bold]digits") as progress:
        assert isinstance(progress, TerminalProgress)
        progress.on_progress(UPDATE)
        progress.on_epoch_end(ROW, selected=True)
    shown = out.getvalue()
    assert STATUS in shown
    assert "[bold]digits" in shown
    assert EPOCH in shown
