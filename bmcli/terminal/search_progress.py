"""Displays of a search while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from bmcli.messages import format_duration
from bmcli.printable import clean
from bmcli.terminal.formats import format_number, format_value
from bmcli.trials import TRIAL_STATES, SearchResult, Task, Trial

if TYPE_CHECKING:
    from rich.table import Table

    from bmcli.terminal.console import Console


class LineSearchProgress:
    """Writes a line for each trial that ended; a star marks the best so far.

    Args:
        search: The search so far.
        trial_limit: Number of trials of the finished search, if that is known.
        limit_s: Maximum duration of the search, if it is limited.
        clock: Seconds from any moment on.
    """

    def __init__(
        self,
        console: Console,
        search: SearchResult,
        trial_limit: int | None,
        limit_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._search, self._trial_limit, self._limit_s = console, search, trial_limit, limit_s
        self._clock = clock
        self._began = self._pace_since = clock()
        self._ended_before, self._seconds_before = _count_ended(search), search.seconds
        self._waits_for_workers = True
        self._running: dict[str, tuple[Task, float]] = {}
        self._epochs: dict[str, int] = {}
        self._confirmed: tuple[int, int] | None = None  # runs with other seeds: done, and in all

    def __enter__(self) -> Self:
        self._began = self._pace_since = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def on_trial_start(self, task: Task) -> None:
        """Note that a worker has taken a task, of the search or of its confirmation."""
        # Workers need a while to start TensorFlow, which would distort the pace of trials.
        if self._waits_for_workers:
            self._pace_since, self._waits_for_workers = self._clock(), False
        self._running[task.name] = (task, self._clock())

    def on_epoch_end(self, name: str, epoch: int) -> None:
        """Note that a running task has finished an epoch."""
        self._epochs[name] = epoch

    def on_trial_end(self, trial: Trial, search: SearchResult) -> None:
        """Note that a task has ended, and show it.

        Args:
            search: The search with the result of the task.
        """
        self._search = search
        self._running.pop(trial.task.name, None)
        self._epochs.pop(trial.task.name, None)
        if self._confirmed:
            self._confirmed = (self._confirmed[0] + 1, self._confirmed[1])
        self.on_note(format_trial(trial, search))

    def on_confirmation_start(self, runs: int) -> None:
        """Note that the search itself is over, and that runs with other seeds follow."""
        self._confirmed, self._pace_since = (0, runs), self._clock()
        self.on_note(f"the best and the recipe are trained again with other seeds: {runs} runs")

    def on_note(self, text: str) -> None:
        self._console.log(text)

    def seconds_left(self) -> float | None:
        """Estimate the time left from the pace so far and the limit of time; None if neither is known."""
        now, estimates = self._clock(), []
        ended, open_tasks = self._count_tasks()
        if ended and open_tasks is not None:
            estimates.append((now - self._pace_since) / ended * open_tasks)
        if self._limit_s is not None:
            estimates.append(max(0.0, self._limit_s - self._seconds_before - (now - self._began)))
        return min(estimates, default=None)

    def _count_tasks(self) -> tuple[int, int | None]:
        """Count the tasks of this phase that ended since it began, and those still to come, if that is known."""
        if self._confirmed:
            return self._confirmed[0], self._confirmed[1] - self._confirmed[0]
        ended = _count_ended(self._search)
        return ended - self._ended_before, None if self._trial_limit is None else max(0, self._trial_limit - ended)


class TerminalSearchProgress(LineSearchProgress):
    """A live table of the best trial and the running ones; ended trials stay above it."""

    def __enter__(self) -> Self:
        from rich.live import Live

        super().__enter__()
        console = self._console.get_rich_console("stderr")
        self._live = Live(console=console, get_renderable=self.make_table, transient=True, refresh_per_second=2)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_note(self, text: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(clean(text)))

    def make_table(self) -> Table:
        """Make the table of this moment."""
        from rich.table import Table
        from rich.text import Text

        search, best = self._search, self._search.best()
        table = Table(title=Text(clean(self._format_title())), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("", "trial", *(objective.name for objective in search.objectives)):
            table.add_column(Text(clean(column)), no_wrap=True)
        table.add_column("values")
        if best is not None:
            self._add_row(table, "best", best.task, [format_number(best.measured(each)) for each in search.objectives])
        for task, since in list(self._running.values()):  # another thread draws: the search may change it meanwhile
            duration = format_duration(self._clock() - since)
            epoch = self._epochs.get(task.name)
            self._add_row(table, "running", task, [f"epoch {epoch}, {duration}" if epoch else duration])
        return table

    def _add_row(self, table: Table, state: str, task: Task, measured: list[str]) -> None:
        from rich.text import Text

        blank = [""] * (len(self._search.objectives) - len(measured))
        values = Text(clean("  ".join(_format_values(task, self._search))), no_wrap=True, overflow="ellipsis")
        table.add_row(*(Text(clean(cell)) for cell in (state, task.name, *measured, *blank)), values)

    def _format_title(self) -> str:
        left = self.seconds_left()
        times = format_duration(self._clock() - self._began)
        times += "" if left is None else f", {format_duration(left)} left"
        if self._confirmed:
            return f"{self._search.name}: confirmed {self._confirmed[0]} of {self._confirmed[1]} runs  {times}"
        states = format_states(self._search)
        if not states and not self._running:
            return f"{self._search.name}: workers are starting  {times}"
        of = f" of {self._trial_limit}" if self._trial_limit else ""
        return f"{self._search.name}: {states or '0'}{of}  {times}"


def format_trial(trial: Trial, search: SearchResult) -> str:
    """Join name, state unless it is `done`, objectives, values, duration, and the reason of an early end.

    Args:
        trial: It has ended.
    """
    result, best = trial.result, search.best()
    assert result is not None, "the trial has ended"
    parts = [
        f"trial {trial.task.name}" if search.has_trial(trial.task.name) else trial.task.name,
        "the recipe" if trial.is_recipe else "",
        f"continues {trial.task.continues}" if trial.task.continues else "",
        "" if result.state == "done" else result.state,
        *(f"{name} {format_number(value)}" for name, value in result.objectives.items()),
        *_format_values(trial.task, search),
        f"{result.epochs} epochs  {format_duration(result.seconds)}" if result.epochs else "",
        result.reason,
        "*" if best is not None and best.task.name == trial.task.name else "",
    ]
    return "  ".join(part for part in parts if part)


def format_states(search: SearchResult) -> str:
    """Count the trials of each state: `21 done, 6 stopped`."""
    counted = search.count()
    return ", ".join(f"{counted[state]} {state}" for state in TRIAL_STATES if counted[state])


def _format_values(task: Task, search: SearchResult) -> list[str]:
    """List the values of a candidate behind their short names."""
    names = search.short_names()
    return [f"{name} {format_value(task.values[path])}" for path, name in names.items() if path in task.values]


def _count_ended(search: SearchResult) -> int:
    """Count the trials that ended, without candidates that the recipe refused."""
    counted = search.count()
    return sum(counted[state] for state in TRIAL_STATES if state != "refused")
