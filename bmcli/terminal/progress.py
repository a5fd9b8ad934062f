"""The display of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from bmcli.printable import clean
from bmcli.training.progress import LineProgress, ProgressUpdate, format_epoch, format_update

if TYPE_CHECKING:
    from bmcli.terminal.console import Console


class TerminalProgress:
    """A live bar with epoch, step, loss, speed and time left; finished epochs stay above it."""

    def __init__(self, console: Console, title: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        description, status = (
            TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[status]}")
        )
        self._bar = Progress(
            description, BarColumn(), status,
            console=console.get_rich_console("stderr"), transient=True, refresh_per_second=5,
        )  # fmt: skip
        self._task = self._bar.add_task(clean(title), total=None, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_progress(self, update: ProgressUpdate) -> None:
        done = (update.epoch - 1) * update.steps + update.step
        total = update.epochs * update.steps
        self._bar.update(self._task, total=total, completed=done, status=format_update(update))

    def on_epoch_end(self, row: Mapping[str, Any], selected: bool) -> None:
        self._print_above(format_epoch(row, selected))

    def on_note(self, text: str) -> None:
        self._print_above(clean(text))

    def _print_above(self, text: str) -> None:
        from rich.text import Text

        self._bar.console.print(Text(text))


ProgressDisplay = LineProgress | TerminalProgress


def make_progress(console: Console, title: str) -> ProgressDisplay:
    return TerminalProgress(console, title) if console.is_live else LineProgress(console.log)
