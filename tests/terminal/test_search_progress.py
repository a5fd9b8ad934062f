"""What users see of a search while it runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from bmcli.recipe.search import SearchParameter
from bmcli.terminal.console import Console
from bmcli.terminal.search_progress import LineSearchProgress, TerminalSearchProgress
from bmcli.trials import SearchObjective, SearchResult, Task, Trial, TrialResult, TrialState

ACCURACY = SearchObjective("validation/accuracy", "max")
SPACE = {
    "model.dropout": SearchParameter("float", low=0.0, high=0.5),
    "model.kind": SearchParameter("choice", ("[/x]", "mlp")),
}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trial(name: str, accuracy: float | None, state: TrialState = "done", reason: str = "", **task: Any) -> Trial:
    objectives = {} if accuracy is None else {ACCURACY.name: accuracy}
    values = {"model.dropout": 0.25, "model.kind": "[/x]"}
    return Trial(
        Task(name, values, **task), TrialResult(name, state, objectives, epochs=4, seconds=65.0, reason=reason)
    )


def searched(trials: Sequence[Trial] = (), **others: Any) -> SearchResult:
    return SearchResult("digits", "random", (ACCURACY,), SPACE, tuple(trials), **others)


def told(watcher: LineSearchProgress, trials: Sequence[Trial], capsys: pytest.CaptureFixture[str]) -> list[str]:
    for place, one in enumerate(trials, 1):
        watcher.on_trial_start(one.task)
        watcher.on_trial_end(one, searched(trials[:place]))
    return capsys.readouterr().err.splitlines()


def test_each_trial_is_a_line_and_the_best_so_far_has_a_star(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial("0000", 0.5), trial("0001", 0.4), trial("0002", 0.75, continues="0000")]
    lines = told(Console().make_search_progress(searched(), 3, None), trials, capsys)
    assert lines == [
        "trial 0000  the recipe  validation/accuracy 0.5000  dropout 0.25  model.kind [/x]  4 epochs  1:05  *",
        "trial 0001  validation/accuracy 0.4000  dropout 0.25  model.kind [/x]  4 epochs  1:05",
        "trial 0002  continues 0000  validation/accuracy 0.7500  dropout 0.25  model.kind [/x]  4 epochs  1:05  *",
    ]


def test_how_a_trial_ended_early_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        trial("0000", 0.5, "stopped", "worse than the median after epoch 4"),
        trial("0001", None, "failed", "killed by SIGKILL\x1b[31m"),
    ]
    stopped, failed = told(Console().make_search_progress(searched(), None, None), trials, capsys)
    assert "  stopped  " in stopped
    assert stopped.endswith("worse than the median after epoch 4")
    assert failed.endswith("killed by SIGKILL\N{REPLACEMENT CHARACTER}[31m")
    assert "  failed  " in failed


def test_a_quiet_console_says_nothing_of_trials(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Console(verbosity=-1).make_search_progress(searched(), None, None), [trial("0000", 0.5)], capsys) == []


def test_a_run_that_confirms_is_no_trial(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Console().make_search_progress(searched(), 1, None)
    watcher.on_confirmation_start(6)
    watcher.on_trial_end(trial("confirm-1-seed-2", 0.9), searched([trial("0000", 0.5)]))
    first, second = capsys.readouterr().err.splitlines()
    assert "6 runs" in first
    assert second.startswith("confirm-1-seed-2  validation/accuracy 0.9000")
    assert not second.endswith("*")


def watcher_at(
    clock: Clock, *, done: int = 0, wanted: int | None = None, limit_s: float | None = None
) -> LineSearchProgress:
    before = searched([trial(f"{i}", 0.5) for i in range(done)], seconds=50.0 * done)
    return LineSearchProgress(Console(verbosity=-1), before, wanted, limit_s, clock).__enter__()


def test_time_left_follows_from_the_pace_since_the_start() -> None:
    clock = Clock()
    watcher = watcher_at(clock, done=4, wanted=10)
    assert watcher.seconds_left() is None
    clock.now += 20
    watcher.on_trial_end(trial("4", 0.5), searched([trial(f"{i}", 0.5) for i in range(5)]))
    assert watcher.seconds_left() == pytest.approx(5 * 20)


def test_the_pace_is_measured_from_when_the_first_worker_is_ready() -> None:
    clock = Clock()
    watcher = watcher_at(clock, wanted=4)
    clock.now += 1000
    watcher.on_trial_start(Task("0", {}))
    clock.now += 10
    watcher.on_trial_end(trial("0", 0.5), searched([trial("0", 0.5)]))
    watcher.on_trial_start(Task("1", {}))
    assert watcher.seconds_left() == pytest.approx(3 * 10)


def test_time_left_is_never_more_than_the_limit_leaves() -> None:
    clock = Clock()
    watcher = watcher_at(clock, done=1, wanted=1000, limit_s=120.0)
    clock.now += 30
    assert watcher.seconds_left() == pytest.approx(120 - 50 - 30)
    clock.now += 1000
    assert watcher.seconds_left() == 0


def test_time_left_of_confirming_follows_from_its_own_runs() -> None:
    clock = Clock()
    watcher = watcher_at(clock, wanted=5)
    clock.now += 100
    watcher.on_confirmation_start(4)
    clock.now += 10
    watcher.on_trial_end(trial("confirm-1-seed-2", 0.9), searched())
    assert watcher.seconds_left() == pytest.approx(30)


@pytest.mark.parametrize("width", [60, 200])
def test_the_live_table_shows_the_best_and_what_runs(width: int) -> None:
    from rich.console import Console as RichConsole

    clock = Clock()
    before = searched([trial("0000", 0.5), trial("0001", 0.75)], seconds=30.0)
    watcher = TerminalSearchProgress(Console(), before, 8, None, clock)
    watcher.on_trial_start(Task("0002", {"model.kind": "mlp"}))
    clock.now += 61
    watcher.on_epoch_end("0002", 3)
    out = io.StringIO()
    RichConsole(file=out, width=width).print(watcher.make_table())
    title, _, best, running = (line.split() for line in out.getvalue().splitlines())
    assert " ".join(title).startswith("digits: 2 done of 8 1:01")
    assert best[:4] == ["best", "0001", "0.7500", "dropout"]
    assert running == ["running", "0002", "epoch", "3,", "1:01", "model.kind", "mlp"]


def test_on_a_terminal_ended_trials_stay_above_the_live_table() -> None:
    from rich.console import Console as RichConsole

    out = io.StringIO()
    console = Console(_rich={"stderr": RichConsole(file=out, force_terminal=True, width=120)})
    with console.make_search_progress(searched(), 2, None) as watcher:
        assert isinstance(watcher, TerminalSearchProgress)
        one = trial("0000", 0.5)
        watcher.on_trial_start(one.task)
        watcher.on_trial_end(one, searched([one]))
    assert "trial 0000  the recipe  validation/accuracy 0.5000" in out.getvalue()
