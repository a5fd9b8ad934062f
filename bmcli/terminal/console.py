"""The console of a command: results, messages, faults and progress displays."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from bmcli.errors import BmcliError
from bmcli.messages import uncover_stderr, write_faults, write_json, write_message, write_text
from bmcli.printable import clean

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from bmcli.terminal.progress import ProgressDisplay
    from bmcli.terminal.search_progress import LineSearchProgress
    from bmcli.trials import SearchResult
    from bmcli.tuning.training_jobs import FinishedJob

_UNLIMITED_WIDTH = 10_000

Result = TypeVar("Result")
_Presented = TypeVar("_Presented", contravariant=True)


class Presenter(Protocol[_Presented]):
    """A module of `bmcli.terminal.presenters`, which shows one type of result."""

    def to_json(self, result: _Presented, /) -> dict[str, Any]: ...

    def print_result(self, console: Console, result: _Presented, /) -> None: ...


@dataclass
class Console:
    """Results on standard output, all else on standard error.

    Args:
        as_json: Print exactly one JSON object on standard output and nothing else.
        verbosity: -1 prints results and faults alone, 0 is usual, 1 prints details too.
    """

    as_json: bool = False
    verbosity: int = 0
    _rich: dict[str, RichConsole] = field(default_factory=dict)
    _has_answered: bool = False

    def present(self, presenter: Presenter[Result], result: Result) -> None:
        """Print a result as text or, with `--json`, as one object; messages about it in both cases."""
        if self.as_json:
            self.print_json(presenter.to_json(result))
        presenter.print_result(self, result)

    def print_json(self, value: Mapping[str, Any]) -> None:
        """Print the one object of `--json`."""
        if self.as_json and not self._has_answered:
            self._has_answered = True  # a fault after the result, such as a missed gate, goes to stderr alone
            write_json(value)

    def print_text(self, text: str) -> None:
        """Print a part of a result, for a person or a pipe."""
        if not self.as_json:
            write_text(clean(text) + "\n", sys.stdout)

    def print_table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], mixed: bool = False
    ) -> None:
        """Print a table as `bmcli.terminal.tables` lays it out for the width of the terminal.

        Args:
            mixed: Whether the numbers below each other have different units, such as several metrics.
        """
        if self.as_json:
            return
        from bmcli.terminal import tables

        console = self.get_rich_console("stdout")
        blocks = tables.split_columns(tables.make_columns(columns, rows, mixed), console.width)
        for number, block in enumerate(blocks):
            table = tables.draw_table(clean(title) if number == 0 else "", block, console.width)
            with console.capture() as drawn:
                console.print(table)
            # Not cleaned as a whole: on a terminal it holds the escape sequences of its styles.
            lines = [line.rstrip() for line in drawn.get().splitlines()]
            write_text("\n".join([*([""] if number else []), *lines]) + "\n", sys.stdout)

    def log(self, text: str, level: int = 0) -> None:
        """Write a message about what happens on standard error."""
        if level <= self.verbosity:
            write_message(text)

    def log_job_end(self, finished: FinishedJob) -> None:
        """Write a message about one of several trainings that has ended."""
        self.log(f"{finished.job.name}: {finished.epochs} epochs, {finished.seconds:.1f} s")

    def print_faults(self, error: BmcliError) -> None:
        """Print all faults with their places."""
        write_faults(error, as_json=self.as_json and not self._has_answered)
        self._has_answered = True

    def print_final_faults(self, error: BmcliError) -> None:
        """Print the faults that end the process from another thread than its main thread."""
        uncover_stderr()
        self.print_faults(error)

    def list_flags(self) -> list[str]:
        """List the options of the command line that make a console like this one."""
        return [*(["--json"] if self.as_json else []), *(["-q"] if self.verbosity < 0 else ["-v"] * self.verbosity)]

    def get_rich_console(self, stream: Literal["stdout", "stderr"]) -> RichConsole:
        if stream not in self._rich:
            from rich.console import Console as RichConsole

            console = RichConsole(file=getattr(sys, stream), highlight=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = _UNLIMITED_WIDTH  # a file has no edge at which to cut a table
            self._rich[stream] = console
        return self._rich[stream]

    @property
    def is_live(self) -> bool:
        """Whether standard error shows displays that change in place."""
        return self.verbosity >= 0 and self.get_rich_console("stderr").is_terminal

    def make_progress(self, title: str) -> ProgressDisplay:
        """Make the display of a training: a bar on a terminal, plain lines elsewhere."""
        from bmcli.terminal.progress import make_progress

        return make_progress(self, title)

    def make_search_progress(
        self, search: SearchResult, trial_limit: int | None, limit_s: float | None
    ) -> LineSearchProgress:
        """Make the display of a search: a live table on a terminal, a line for each trial elsewhere.

        Args:
            search: The search so far; a resumed one has trials already.
            trial_limit: Number of trials of the finished search, if that is known.
            limit_s: Maximum duration of the search, if it is limited.
        """
        from bmcli.terminal.search_progress import LineSearchProgress, TerminalSearchProgress

        display = TerminalSearchProgress if self.is_live else LineSearchProgress
        return display(self, search, trial_limit, limit_s)
