"""Everything a user sees. No other module prints."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bmcli.disk import format_path, to_json_value
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import brief
from bmcli.redaction import redact_text

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.table import Table as RichTable

MAX_SHARES = 10
MAX_SLICES = 10
MAX_FOLDS = 5
MAX_FAULTS = 100
MAX_MESSAGE_LENGTH = 2000
_LONGEST_CELL = 300
_INDENTED = "\n    "
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Foreign text without control characters, which could rewrite a terminal, and without lone surrogates."""
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text).encode("utf-8", "replace").decode("utf-8")


@dataclass
class Console:
    """Results on stdout, all else on stderr.

    Args:
        as_json: Print exactly one JSON object on stdout and nothing else.
        verbosity: -1 prints results and faults alone, 0 is usual, 1 tells more.
    """

    as_json: bool = False
    verbosity: int = 0
    _rich: dict[str, Any] = field(default_factory=dict)
    _answered: bool = False

    def get_rich_console(self, stream: str) -> RichConsole:
        if stream not in self._rich:
            from rich.console import Console as RichConsole

            console = RichConsole(file=getattr(sys, stream), highlight=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = 10_000  # a file has no edge at which to cut a table
            self._rich[stream] = console
        return self._rich[stream]

    def result(self, value: Mapping[str, Any]) -> None:
        """The one JSON object of `--json`; null stands for numbers that are not finite, which JSON does not know."""
        if self.as_json and not self._answered:
            self._answered = True  # a fault after the result, such as a missed gate, goes to stderr alone
            sys.stdout.write(json.dumps(to_json_value(value), ensure_ascii=True, allow_nan=False) + "\n")
            sys.stdout.flush()

    def text(self, text: str) -> None:
        """A result as text, for a person or a pipe; foreign parts must be clean already."""
        if not self.as_json:
            _write_stream(sys.stdout, text + "\n")

    def log(self, text: str, level: int = 0) -> None:
        """A word about what happens, on stderr."""
        if level <= self.verbosity:
            _write_stream(sys.stderr, clean(redact_text(text)) + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers to the right."""
        if self.as_json:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(clean(title)) if title else None, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[i], (int, float)) or row[i] in ("", "-") for row in rows)
            table.add_column(Text(brief(column)), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(brief(_format_cell(value), _LONGEST_CELL)) for value in row))
        console = self.get_rich_console("stdout")
        with console.capture() as drawn:
            console.print(table)
        self.text("\n".join(line.rstrip() for line in drawn.get().splitlines()))

    def print_training(self, trained: Any) -> None:
        """A finished training: how it went, and the evaluation if there was one."""
        outcome = trained.outcome
        self.result(
            {
                "run": str(trained.run.folder) if trained.run else None,
                "metrics": trained.metrics(),
                **_intervals_to_json(trained.measured),
                "epochs": outcome.epochs,
                "selected_epoch": outcome.selected_epoch,
                "ended_by": outcome.ended_by,
                "seconds": round(outcome.train_s, 3),
                "examples_per_second": round(outcome.examples_per_second, 1),
                **_missed_gates_to_json(trained.measured),
            }
        )
        self.text(
            f"{outcome.epochs} epochs in {outcome.train_s:.1f} s of training ({outcome.examples_per_second:,.0f} "
            f"examples/s), {_END_REASONS[outcome.ended_by]}; epoch {outcome.selected_epoch} is kept."
        )
        self.table("", ["metric", "value"], list(outcome.metrics.items()))
        if trained.measured:
            self.measured(trained.measured)
        elif trained.run:
            self.text(clean(f"run  {trained.run.display_path}"))

    def measured(self, measured: Any) -> None:
        """An evaluation: its metrics, and the classes of each category."""
        run = measured.run
        self.result(
            {
                "run": str(run.folder) if run else None,
                "metrics": measured.metrics(),
                **_intervals_to_json(measured),
                **_missed_gates_to_json(measured),
            }
        )
        found = measured.evaluation
        self.text("")
        self.table(f"{found.count:,} rows of {measured.on}", *_tabulate_metrics(measured))
        for method in dict.fromkeys(interval.method for interval in found.intervals.values()):
            self.log(f"intervals: {method}", level=1)
        for name, reason in found.without_interval.items():
            self.log(f"{name} has no interval: {reason}", level=1)
        self._print_details(found)
        if run:
            report = f"\nreport  {format_path(run.report)}" if run.report.exists() else ""
            self.text(clean(f"{report}\nrun  {run.display_path}"))

    def print_job_end(self, finished: Any) -> None:
        """One of several trainings that has ended."""
        self.log(f"{finished.job.name}: {finished.epochs} epochs, {finished.seconds:.1f} s")

    def print_cross_validation(self, result: Any) -> None:
        """Mean and spread over folds, and what all tested rows together show."""
        folds, together = result.folds, result.folds.pooled
        means = {f"folds/{name}": mean for name, mean in folds.means.items()}
        self.result(
            {
                "run": str(result.run.folder),
                "metrics": {name: mean.mean for name, mean in means.items()},
                "intervals": {
                    name: {"low": mean.low, "high": mean.high, "level": 0.95, "method": folds.method}
                    for name, mean in means.items()
                },
                "standard_deviation": {name: mean.standard_deviation for name, mean in means.items()},
                "folds": [dict(fold.metrics) for fold in folds.folds],
                "pooled": dict(together.metrics),
                **_missed_gates_to_json(result),
            }
        )
        shown = folds.folds[:MAX_FOLDS]
        rows = [
            [
                name,
                mean.mean,
                mean.standard_deviation,
                _format_interval(mean),
                *(fold.metrics.get(name, "-") for fold in shown),
            ]
            for name, mean in folds.means.items()
        ]
        self.text(clean(f"\n{len(folds.folds)} folds of {together.count:,} rows, dealt {folds.splitter}"))
        columns = ["metric", "mean", "spread", "95 % interval", *(f"fold {fold.number}" for fold in shown)]
        self.table("", columns, rows)
        self.log(f"intervals of means: {folds.method}", level=1)
        self._print_details(together)
        self.text(clean(f"\nwrote {format_path(result.predictions)}, {format_path(result.run.report)}"))

    def print_learning_curves(self, result: Any) -> None:
        """Learning curves, and what would help."""
        self.result({"run": str(result.run.folder), "learning_curve": [curve.to_json() for curve in result.curves]})
        for curve in result.curves:
            rows = [
                [
                    f"{point.share:.0%}",
                    point.rows,
                    point.train,
                    _format_interval(point.train_interval),
                    point.validation,
                    _format_interval(point.validation_interval),
                ]
                for point in curve.points
            ]
            self.text("")
            columns = ["share", "rows", f"train/{curve.metric}", "interval", f"validation/{curve.metric}", "interval"]
            self.table(curve.target, columns, rows)
            self.text(clean(curve.summary))
        if result.skipped_shares:
            self.log(f"too few rows for {', '.join(f'{share:.0%}' for share in result.skipped_shares)}")
        self.text(clean(f"\nwrote {format_path(result.run.report)}"))

    def _print_details(self, evaluation: Any) -> None:
        """What an evaluation tells beside its metrics."""
        for target, rows in evaluation.per_class.items():
            cells = [
                [row.name, *(_or_dash(v) for v in (row.precision, row.recall, row.f1)), row.support] for row in rows
            ]
            self.text("")
            self.table(target, ["class", "precision", "recall", "f1", "rows"], cells)
        for name, reason in evaluation.undefined.items():
            self.log(f"{name} is undefined: {reason}", level=1)
        for target, calibration in evaluation.calibration.items():
            self.text(clean(f"\n{target}: {calibration.summary}"))
        for slices in evaluation.slices:
            self._print_slices(slices)
        for fairness in evaluation.fairness:
            self._print_fairness(fairness)

    def _print_slices(self, table: Any) -> None:
        """The slices of a target, the worst first."""
        rows = [
            [
                each.slicing,
                each.name,
                each.rows,
                each.value,
                _format_interval(each.interval),
                f"{each.difference:+.4f}",
                _format_p_value(each.adjusted_p_value),
            ]
            for each in table.slices[:MAX_SLICES]
        ]
        self.text("")
        columns = ["slice by", "", "rows", table.metric, "interval", "against the rest", "p adjusted"]
        self.table(
            f"{table.target} by slice, the worst first; of all rows {table.metric} {table.overall:.4f}", columns, rows
        )
        self.text(clean(table.summary))

    def _print_fairness(self, comparison: Any) -> None:
        """What each group gets."""
        rates = ("selection_rate", "true_positive_rate", "false_positive_rate")
        rows = [
            [group.name, group.rows, *(_format_rate(getattr(group, rate)) for rate in rates)]
            for group in comparison.groups
        ]
        self.text("")
        self.table(
            f"'{comparison.positive}' by {comparison.column}",
            [comparison.column, "rows", *(r.replace("_", " ") for r in rates)],
            rows,
        )
        self.text(clean(comparison.summary))

    def print_explanation(self, result: Any) -> None:
        """What a model's answers rest on, and whether the methods that tell can be trusted."""
        explanation = result.explanation
        self.result({"run": str(result.run.folder), "explanation": explanation.to_json()})
        for target in explanation.targets:
            title = f"{target.target}: permutation importance (increase in {target.loss})"
            rows = [
                [each.column, *(round(v, 5) for v in (each.increase, each.low, each.high)),
                 "" if each.is_significant else "may be useless"]
                for each in target.importances
            ]  # fmt: skip
            self.table(
                f"{title}, {explanation.rows:,} {explanation.split} rows",
                ["column", "increase", "low", "high", ""],
                rows,
            )
            if explanation.left_out:
                self.text(
                    f"The importance of {explanation.left_out:,} more columns was not measured: by integrated "
                    "gradients they add less than these."
                )
            self.text("")
            if len(target.shares) > 1:
                shares = [[each.feature, f"{100 * each.share:.1f} %"] for each in target.shares[:MAX_SHARES]]
                self.table("share of the attributions (integrated gradients)", ["feature", "share"], shares)
                self.text("")
            self.table(
                "sanity check against random weights (Adebayo et al. 2018)",
                ["method", "figure", "value", "below", ""],
                [[s.method, s.figure, s.value, s.limit, "passed" if s.passed else "FAILED"] for s in target.sanity],
            )
            for each in target.sanity:
                if not each.passed:
                    self.log(f"warning: {each.method} failed the sanity check: do not trust this ranking.")
        self.text(clean(f"\nwrote {format_path(result.run.explanation)}, {format_path(result.run.report)}"))

    def print_comparison(self, comparison: Any, output: Path | None) -> None:
        """Runs beside each other, and which of them to take."""
        self.result({**comparison.to_json(), "report": None if output is None else str(output)})
        runs = comparison.contenders
        short = ["take" if each is comparison.recommended and not comparison.unpaired_reason else "" for each in runs]
        rows = [
            [
                each.name,
                round(each.metrics[comparison.metric], 4),
                _format_interval(each.intervals.get(comparison.metric)),
                f"{each.parameters:,}",
                f"{each.size / 1e6:.2f}",
                f"{1e3 * each.latency_s:.2f}",
                "-" if each.train_s is None else f"{each.train_s:.1f}",
                mark,
            ]
            for each, mark in zip(runs, short, strict=True)
        ]
        columns = ["run", comparison.metric, "interval", "parameters", "MB", "ms a row", "s of training", ""]
        self.table(f"{comparison.rows:,} rows of {comparison.split}", columns, rows)
        self.text("")
        for name, found in comparison.against_first.items():
            self.text(clean(found[comparison.metric].summary(runs[0].name, name)))
        if comparison.recipes:
            self.text("")
            self.table("where the recipes differ", ["path", *(each.name for each in runs)],
                       [[path, *values] for path, values in comparison.recipes.items()])  # fmt: skip
        if comparison.data:
            self.text("")
            self.table("where the data differs", ["data", *(each.name for each in runs)],
                       [[what, *values] for what, values in comparison.data.items()])  # fmt: skip
        self.text(clean(f"\n{comparison.recommendation}"))
        if output is not None:
            self.text(clean(f"wrote {format_path(output)}"))

    def print_draft(self, drafted: Any) -> None:
        """A recipe that was written, and what its columns were taken for."""
        self.result(drafted.to_json())
        rows = [[role.name, role.role, role.kind, role.why] for role in drafted.roles]
        if len(rows) > _MOST_COLUMNS:
            left_out = f"... {len(rows) - _MOST_COLUMNS:,} more"
            rows = [*rows[:_MOST_COLUMNS], [left_out, "", "", "written in the recipe where they are no plain inputs"]]
        self.table("", ["column", "role", "kind", "why"], rows)
        file = format_path(drafted.file)
        for note in drafted.notes:
            self.log(f"note: {note}")
        self.text(clean(f"wrote {file}; train it with `bmcli train {file}`"))

    def print_prediction(self, predicted: Any) -> None:
        """Predictions that were written; on stderr, since they may be on stdout."""
        self.result(predicted.to_json())
        where = "standard output" if predicted.output is None else format_path(predicted.output)
        speed = predicted.rows / max(predicted.seconds, 1e-9)
        skipped = f", {predicted.skipped:,} skipped, which could not be read" if predicted.skipped else ""
        self.log(f"{predicted.rows:,} rows to {where}{skipped}; {predicted.seconds:.1f} s, {speed:,.0f} rows/s")

    def print_export(self, exported: Any) -> None:
        """The artefacts of a run, and how each compares with the model."""
        self.result(exported.to_json())
        rows = [_make_artefact_row(each) for each in exported.artefacts]
        names = next((list(each.verification.metrics) for each in exported.artefacts if each.verification.metrics), [])
        metric = f"{names[0]} (of the model)" if names else "metric"
        rows += [[name, "NOT WRITTEN", *["-"] * 5] for name in exported.failed]
        self.table("", ["format", "verified", "agreement", "difference", metric, "size", "gzip"], rows)
        self.text("\n".join(clean(f"wrote {format_path(each.path)}") for each in exported.artefacts))

    def print_benchmark(self, benchmarked: Any) -> None:
        """What artefacts cost."""
        self.result(benchmarked.to_json())
        names = [cost.metric[0] for cost in benchmarked.costs if cost.metric]
        batches = [str(latency.batch) for latency in benchmarked.costs[0].latencies]
        timed = [f"{figure} of {batch}" for batch in batches for figure in ("ms", "p95", "p99")]
        columns = ["format", "size", "gzip", "load", *timed, "rows/s", "memory", names[0] if names else "metric"]
        self.table("", columns, [_make_cost_row(cost) for cost in benchmarked.costs])
        for note in benchmarked.notes:
            self.text(clean(note))
        self.text(clean(f"wrote {format_path(benchmarked.figure)}"))

    def print_plan(self, plan: Any) -> None:
        """What a plan measured here, and what it predicts."""
        self.result(plan.to_json())
        self.text(clean(_format_row_counts(plan)))
        self.table("", ["column", "role", "kind", "shape", "classes"], _make_column_rows(plan.spec))
        self.text("")
        layers = [
            [layer.name, layer.kind, _format_shape(layer.shape), layer.parameters] for layer in plan.displayed_layers
        ]
        self.table("", ["layer", "kind", "output", "parameters"], layers)
        self.text("")
        for line in _format_measurements(plan):
            self.text(clean(line))
        self.text("")
        self.table(
            "replicas like this one, the recipe's batch divided among them",
            ["replicas", "batch", "step ms", "compute", "exchange", "input wait", "checkpoint", "examples/s",
             "efficiency", "to finish", ""],
            [_make_step_row(step) for step in plan.steps],
        )  # fmt: skip
        for note in plan.notes:
            self.log(f"note: {note}")
        for warning in plan.warnings:
            self.log(f"warning: {warning}")
        if plan.pictures is not None:
            self.text(clean(f"\nwrote {format_path(plan.pictures)}"))

    def print_search(self, search: Any, recipe: Path, *files: Path) -> None:
        """A finished search: its winner, what that is worth, and where everything is.

        Args:
            recipe: The winner's, as a file.
            files: What else was written.
        """
        self.result(
            {
                "best": {"recipe": str(recipe), "run": search.run, "metrics": dict(search.test)},
                "trials": [_trial_to_json(trial) for trial in search.trials],
                "seconds": round(search.seconds, 3),
                "ended_by": list(search.ended_by),
            }
        )
        self.text(clean(_format_search(search)))
        self.table("", *_tabulate_best_trials(search))
        if search.confirmed:
            self.text("")
            self.table(f"{search.first.name} with other seeds", *_tabulate_confirmed(search))
        if search.test:
            self.text("")
            self.table("the winner, evaluated", ["metric", "value"], list(search.test.items()))
        written = ", ".join(format_path(file) for file in (recipe, *files))
        self.text(clean(f"\nwrote {written}" + (f"\nrun  {search.run}" if search.run else "")))

    def distilled(self, distilled: Any, report: Path) -> None:
        """A finished distillation: teacher, baseline and student side by side, and the gain."""
        gain, learners = distilled.gain, (distilled.teacher, distilled.baseline, distilled.student)
        self.result(
            {
                **{
                    name: None if each is None else {f"{distilled.on}/{m}": value for m, value in each.metrics.items()}
                    for name, each in zip(("teacher", "baseline", "student"), learners, strict=True)
                },
                "gain": None if gain is None else {
                    "metric": f"{distilled.on}/{gain.metric}", "mean": gain.mean,
                    "interval": None if gain.interval is None else list(gain.interval), "by_seed": list(gain.by_seed),
                    "gap_closed": gain.gap_closed,
                },
                "runs": {each.name: list(each.runs) for each in learners if each is not None},
                "report": str(report), "seconds": round(distilled.seconds, 3),
            }
        )  # fmt: skip
        self.text("")
        seeds = f", mean of {len(distilled.seeds)} seeds" if len(distilled.seeds) > 1 else ""
        title = f"{distilled.rows:,} rows of {distilled.on}{seeds}"
        self.table(title, *_tabulate_learners(distilled))
        if gain is not None:
            self.text(clean(f"\n{_format_gain(distilled)}"))
        runs = "".join(f"\nrun  {run}" for run in distilled.student.runs)
        self.text(clean(f"\nwrote {format_path(report)}{runs}"))

    def list_flags(self) -> list[str]:
        """The options of the command line that make a console like this one."""
        return [*(["--json"] if self.as_json else []), *(["-q"] if self.verbosity < 0 else ["-v"] * self.verbosity)]

    def faults(self, error: BmcliError) -> None:
        """All faults with their places."""
        if self.as_json:
            self.result({"faults": [_fault_to_json(fault) for fault in error.faults]})
        for fault in error.faults[:MAX_FAULTS]:
            _write_stream(sys.stderr, _format_fault(fault) + "\n")
        if len(error.faults) > 1:
            first = f" The first {MAX_FAULTS} are shown." if len(error.faults) > MAX_FAULTS else ""
            _write_stream(sys.stderr, f"{len(error.faults)} faults.{first}\n")

    def last_words(self, error: BmcliError) -> None:
        """The faults that end the process from another thread than its main thread, whatever that shows or hides."""
        _show_native_noise()
        if sys.stderr.isatty():
            _write_stream(sys.stderr, "\x1b[?25h\n")  # the cursor, which a progress display hides
        self.faults(error)

    def make_progress(self, title: str) -> LineProgress:
        """A progress display on a terminal, plain lines elsewhere."""
        if self.verbosity >= 0 and self.get_rich_console("stderr").is_terminal:
            return TerminalProgress(self, title)
        return LineProgress(self)

    def make_search_progress(self, search: Any, trial_limit: int | None, limit_s: float | None) -> LineSearchProgress:
        """A display of a search: a live table on a terminal, a line for each trial elsewhere.

        Args:
            search: How far the search has come, which is not at its start if it was taken up again.
            trial_limit: How many trials it is to have, if that is known.
            limit_s: How long it may take in all, if it is limited.
        """
        live = self.verbosity >= 0 and self.get_rich_console("stderr").is_terminal
        return (TerminalSearchProgress if live else LineSearchProgress)(self, search, trial_limit, limit_s)


class LineProgress:
    """A line for each epoch, and one for the state of a long epoch from time to time."""

    EVERY_S = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoke_at = time.monotonic()

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def on_progress(self, update: Any) -> None:
        if time.monotonic() - self._spoke_at > self.EVERY_S:
            self._spoke_at = time.monotonic()
            self._console.log(
                f"epoch {update.epoch}/{update.epochs}  step {update.step}/{update.steps}  loss {update.loss:.4f}  "
                f"{update.examples_per_second:,.0f} examples/s  {_format_duration(update.seconds_left)} left"
            )

    def epoch(self, row: Mapping[str, Any], selected: bool) -> None:
        self._spoke_at = time.monotonic()
        self._console.log(_format_epoch(row, selected))

    def note(self, text: str) -> None:
        self._console.log(text)


class TerminalProgress(LineProgress):
    """A live bar with epoch, step, loss, speed and time left; finished epochs stay above it."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console)
        self._bar = _make_progress_bar(console.get_rich_console("stderr"))
        self._task = self._bar.add_task(clean(title), total=None, told="")

    def __enter__(self) -> LineProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def on_progress(self, update: Any) -> None:
        told = (
            f"epoch {update.epoch}/{update.epochs}  step {update.step}/{update.steps}  loss {update.loss:.4f}  "
            f"{update.examples_per_second:,.0f} examples/s  {_format_duration(update.seconds_left)} left"
        )
        done = (update.epoch - 1) * update.steps + update.step
        self._bar.update(self._task, total=update.epochs * update.steps, completed=done, told=told)

    def epoch(self, row: Mapping[str, Any], selected: bool) -> None:
        from rich.text import Text

        self._bar.console.print(Text(_format_epoch(row, selected)))

    def note(self, text: str) -> None:
        from rich.text import Text

        self._bar.console.print(Text(clean(text)))


class LineSearchProgress:
    """A line for each trial that ended; a star marks the best so far."""

    def __init__(
        self,
        console: Console,
        search: Any,
        trial_limit: int | None,
        limit_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._searched, self._wanted, self._limit_s = console, search, trial_limit, limit_s
        self._clock = clock
        self._began = self._pace_since = clock()
        self._ended_before, self._seconds_before = _count_ended(search), search.seconds
        self._waits_for_workers = True
        self._running: dict[str, tuple[Any, float]] = {}
        self._epochs: dict[str, int] = {}
        self._confirming: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._began = self._pace_since = self._clock()
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def on_trial_start(self, task: Any) -> None:
        """A worker has taken a task, of the search or of a run that confirms."""
        if self._waits_for_workers:  # which need a while until they are ready
            self._pace_since, self._waits_for_workers = self._clock(), False
        self._running[task.name] = (task, self._clock())

    def epoch(self, name: str, epoch: int) -> None:
        """A running task has come to the end of an epoch."""
        self._epochs[name] = epoch

    def on_trial_end(self, trial: Any, search: Any) -> None:
        """A task has its result; the search as it is with it."""
        self._searched = search
        self._running.pop(trial.task.name, None)
        self._epochs.pop(trial.task.name, None)
        if self._confirming:
            self._confirming = (self._confirming[0] + 1, self._confirming[1])
        self.note(_format_trial(trial, search))

    def on_confirmation_start(self, runs: int) -> None:
        """The search itself is over; so many runs with other seeds follow."""
        self._confirming, self._pace_since = (0, runs), self._clock()
        self.note(f"the best are trained again with other seeds: {runs} runs")

    def note(self, text: str) -> None:
        self._console.log(text)

    def seconds_left(self) -> float | None:
        """From the pace so far, at most what the limit of time leaves; None if neither is known."""
        now, guesses = self._clock(), []
        done, open_ = self._progress()
        if done and open_ is not None:
            guesses.append((now - self._pace_since) / done * open_)
        if self._limit_s is not None:
            guesses.append(max(0.0, self._limit_s - self._seconds_before - (now - self._began)))
        return min(guesses, default=None)

    def _progress(self) -> tuple[int, int | None]:
        """Tasks of this phase that ended since it began, and those that are still to come, if known."""
        if self._confirming:
            return self._confirming[0], self._confirming[1] - self._confirming[0]
        ended = _count_ended(self._searched)
        return ended - self._ended_before, None if self._wanted is None else max(0, self._wanted - ended)


class TerminalSearchProgress(LineSearchProgress):
    """A live table of the best trial and the running ones; ended trials stay above it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        from rich.live import Live

        self._live = Live(
            console=self._console.get_rich_console("stderr"),
            get_renderable=self.table,
            transient=True,
            refresh_per_second=2,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(clean(text)))

    def table(self) -> RichTable:
        """What is shown now."""
        from rich.table import Table
        from rich.text import Text

        searched, best = self._searched, self._searched.best()
        table = Table(title=Text(clean(self._title())), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("", "trial", *(objective.name for objective in searched.objectives)):
            table.add_column(Text(clean(column)), no_wrap=True)
        table.add_column("values")
        if best is not None:
            self._add_row(table, "best", best.task, [_format_number(best.measured(one)) for one in searched.objectives])
        for task, since in list(self._running.values()):
            told = _format_duration(self._clock() - since)
            epoch = self._epochs.get(task.name)
            self._add_row(table, "running", task, [f"epoch {epoch}, {told}" if epoch else told])
        return table

    def _add_row(self, table: RichTable, state: str, task: Any, measured: list[str]) -> None:
        from rich.text import Text

        blank = [""] * (len(self._searched.objectives) - len(measured))
        values = Text(clean("  ".join(_format_values(task, self._searched))), no_wrap=True, overflow="ellipsis")
        table.add_row(*(Text(clean(cell)) for cell in (state, task.name, *measured, *blank)), values)

    def _title(self) -> str:
        left = self.seconds_left()
        told = _format_duration(self._clock() - self._began) + (
            "" if left is None else f", {_format_duration(left)} left"
        )
        if self._confirming:
            return f"{self._searched.name}: confirmed {self._confirming[0]} of {self._confirming[1]} runs  {told}"
        states = _format_states(self._searched)
        if not states and not self._running:
            return f"{self._searched.name}: workers are starting  {told}"
        of = f" of {self._wanted}" if self._wanted else ""
        return f"{self._searched.name}: {states or '0'}{of}  {told}"


def _count_ended(search: Any) -> int:
    """Trials that ended; what the recipe refused was none."""
    counted = search.count()
    return sum(counted[state] for state in ("done", "stopped", "failed"))


def _format_trial(trial: Any, search: Any) -> str:
    """Name, state if it is not `done`, objectives, values, what it took, and why it ended early."""
    result, best = trial.result, search.best()
    parts = [
        f"trial {trial.task.name}" if search.has_trial(trial.task.name) else trial.task.name,
        f"continues {trial.task.continues}" if trial.task.continues else "",
        "" if result.state == "done" else result.state,
        *(f"{name} {_format_number(value)}" for name, value in result.objectives.items()),
        *_format_values(trial.task, search),
        f"{result.epochs} epochs  {_format_duration(result.seconds)}" if result.epochs else "",
        result.reason,
        "*" if best is not None and best.task.name == trial.task.name else "",
    ]
    return "  ".join(part for part in parts if part)


def _format_values(task: Any, search: Any) -> list[str]:
    """Each value of a candidate below its short name."""
    names = search.short_names()
    return [f"{name} {_format_value(task.values[path])}" for path, name in names.items() if path in task.values]


def _format_states(search: Any) -> str:
    """`21 done, 6 stopped`."""
    counted = search.count()
    return ", ".join(
        f"{counted[state]} {state}" for state in ("done", "stopped", "failed", "refused") if counted[state]
    )


def _format_search(search: Any) -> str:
    count = len(search.trials)
    trials = (
        f"{count} trial{'' if count == 1 else 's'} in {_format_duration(search.seconds)}: {_format_states(search)}."
    )
    return " ".join([trials, *search.ended_by])


def _tabulate_best_trials(search: Any, most: int = 5) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the best trials."""
    first, names = search.first, search.short_names()
    done = [trial for trial in search.candidates() if trial.state == "done" and trial.measured(first) is not None]
    done.sort(key=lambda trial: first.score(trial.objectives[first.name]))
    rows = [
        [
            trial.task.name + (" *" if trial.task.name == search.winner else ""),
            *(_format_number(trial.measured(objective)) for objective in search.objectives),
            *(_format_value(trial.task.values[path]) if path in trial.task.values else "-" for path in names),
        ]
        for trial in done[:most]
    ]
    return ["trial", *(objective.name for objective in search.objectives), *names.values()], rows


def _tabulate_confirmed(search: Any) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the candidates that were trained again, the best first."""
    ordered = sorted(search.confirmed, key=lambda one: search.first.score(one.mean))
    rows = [
        [
            one.trial + (" *" if one.trial == search.winner else ""),
            *map(_format_number, (one.searched, one.mean, one.spread, one.shrinkage(search.first))),
            len(one.values),
        ]
        for one in ordered
    ]
    return ["trial", "searched", "mean", "spread", "shrinkage", "seeds"], rows


def _tabulate_learners(distilled: Any) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of teacher, baseline, and the student of each generation."""
    names = list(distilled.student.metrics)[:4]
    if distilled.gain is not None and distilled.gain.metric not in names:
        names.insert(0, distilled.gain.metric)
    several = len(distilled.students) > 1
    told = [("teacher", distilled.teacher), ("baseline", distilled.baseline)]
    told += [(f"student {n}" if several else "student", each) for n, each in enumerate(distilled.students, 1)]
    rows = [
        [
            name,
            *(_or_dash(each.metrics.get(metric)) for metric in names),
            f"{each.parameters:,}",
            _format_bytes(each.size),
            "-" if each.latency_s is None else f"{_format_ms(each.latency_s)}",
        ]
        for name, each in told
        if each is not None
    ]
    return ["", *names, "parameters", "size", "latency"], rows


def _format_gain(distilled: Any) -> str:
    gain = distilled.gain
    told = f"gain in {gain.metric}: {gain.mean:+.4g}"
    if gain.interval is None:
        told += f" (no interval, since {gain.method.rstrip('.')})"
    else:
        told += f" (95 % interval {gain.interval[0]:+.4g} to {gain.interval[1]:+.4g}; {gain.method})"
    if len(gain.by_seed) > 1:
        told += f"; by seed {', '.join(f'{each:+.4g}' for each in gain.by_seed)}"
    return told + (f"; {100 * gain.gap_closed:.0f} % of the gap to the teacher" if gain.gap_closed is not None else "")


def _trial_to_json(trial: Any) -> dict[str, Any]:
    result = trial.result
    measured = {} if result is None else {k: v for k, v in result.objectives.items() if math.isfinite(v)}
    return {
        "name": trial.task.name,
        "state": trial.state,
        "values": dict(trial.task.values),
        "objectives": measured,
        "epochs": result.epochs if result else 0,
        "seconds": round(result.seconds, 3) if result else 0.0,
        "continues": trial.task.continues,
        "reason": result.reason if result else "",
    }


def _format_value(value: Any) -> str:
    """A value of a recipe, briefly."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _format_number(value: float | None) -> str:
    """A measured number: four digits that count, or whole."""
    if value is None:
        return "-"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 10 else f"{value:#.4g}"


def _make_progress_bar(console: RichConsole) -> RichProgress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[told]}", markup=False),
        console=console, transient=True, refresh_per_second=5,
    )  # fmt: skip


def _make_cost_row(cost: Any) -> list[Any]:
    timed = [
        f"{1e3 * seconds:.3g}"
        for latency in cost.latencies
        for seconds in (latency.median_s, latency.p95_s, latency.p99_s)
    ]
    sizes = [_format_bytes(cost.bytes), _format_bytes(cost.gzip_bytes)]
    metric = "-" if cost.metric is None else f"{cost.metric[1]:.4f}"
    return [
        cost.name,
        *sizes,
        _format_ms(cost.load_s),
        *timed,
        f"{cost.rows_per_second:,.0f}",
        _format_bytes(cost.peak_bytes),
        metric,
    ]


def _make_artefact_row(artefact: Any) -> list[Any]:
    found = artefact.verification
    metric = next((f"{given:.4f} ({model:.4f})" for model, given in found.metrics.values()), "-")
    return [
        artefact.format_name,
        "yes" if found.verified else "REJECTED",
        "-" if found.agreement is None else f"{found.agreement:.2%}",
        "-" if found.max_difference is None else f"{found.max_difference:.1e}",
        metric,
        _format_bytes(artefact.bytes),
        _format_bytes(artefact.gzip_bytes),
    ]


def _format_row_counts(plan: Any) -> str:
    """The rows of each split, and what is there from earlier."""
    counts = ", ".join(f"{count:,} {split}" for split, count in plan.spec.counts.items() if count)
    cached = ", ".join(what for what, there in plan.cached.items() if there)
    return f"{plan.name}: {counts} rows" + (f"; in the cache already: {cached}" if cached else "")


def _make_column_rows(spec: Any) -> list[list[Any]]:
    """A row for each column, the first and last of many."""
    rows = [
        [column.name, role, column.kind, _format_shape(column.shape), len(column.classes) or "-"]
        for role, columns in (("input", spec.inputs), ("target", spec.targets))
        for column in columns
    ]
    if len(rows) <= _MAX_COLUMN_ROWS:
        return rows
    last = len(spec.targets)
    between = len(rows) - (_MAX_COLUMN_ROWS - 1)
    return [*rows[: _MAX_COLUMN_ROWS - 1 - last], [f"... {between} more", "", "", "", ""], *rows[len(rows) - last :]]


_MAX_COLUMN_ROWS = 24
_MOST_COLUMNS = 100  # of a table that was looked at for the first time


def _format_shape(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "-"


def _format_measurements(plan: Any) -> Iterator[str]:
    """Lines about the network, and what was measured on this machine."""
    work, found, here, memory = plan.measured.work, plan.measured, plan.local_step, plan.memory
    feed = f"streaming at {_format_bytes(found.cluster.input)}/s" if work.streaming else "resident"
    compute = found.cluster.compute
    yield (
        f"{plan.parameters:,} parameters; counted FLOPs: {plan.forward_flops:,.0f} forward for an example, "
        f"{work.example_flops * work.batch:,.0f} a step; {plan.total_steps:,} steps in all"
    )
    yield (
        f"memory of a step: {_format_bytes(memory.weights)} weights, {_format_bytes(memory.gradients)} gradients, "
        f"{_format_bytes(memory.optimizer)} optimizer, {_format_bytes(memory.activations)} activations at most; "
        f"{_format_bytes(work.gradient_bytes)} exchanged between replicas"
    )
    size = _format_bytes(work.example_bytes * work.examples)
    yield f"rows: {feed}, {work.example_bytes:,.0f} bytes each, {size} in all"
    yield (
        f"measured on {plan.device}, XLA {'on' if plan.jit else 'off'}: {_format_ms(here.seconds)} a "
        f"step of {here.batch:,} = "
        f"{_format_ms(compute.fixed)} + {1e6 * compute.slope:.2f} us an example; "
        f"{here.examples_per_second:,.0f} examples/s; "
        f"{_format_duration(here.epoch_s)} an epoch, {_format_duration(here.finish_s)} to the end; a "
        "checkpoint is copied in "
        f"{_format_ms(found.snapshot_s)} and written in {_format_ms(found.write_s)}"
    )
    if found.network:
        yield (
            f"measured between two processes: {_format_bytes(found.network.bandwidth)}/s, "
            f"{_format_ms(found.network.latency_s)} a message"
        )


def _make_step_row(step: Any) -> list[Any]:
    parts = [step.seconds, step.compute_s, step.exchange_s, step.input_s, step.checkpoint_s]
    return [
        step.replicas, step.batch, *(round(1e3 * part, 4) for part in parts), round(step.examples_per_second),
        step.efficiency, _format_duration(step.finish_s), "measured" if step.measured else "predicted",
    ]  # fmt: skip


def _format_ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _format_bytes(count: float) -> str:
    """Bytes in the largest unit of which there is at least one."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _format_epoch(row: Mapping[str, Any], selected: bool) -> str:
    metrics = "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} -" for name, value in row.items() if "/" in name
    )
    return (
        f"epoch {row['epoch']:>3}  {metrics}  {row['examples_per_second']:,.0f} examples/s{'  *' if selected else ''}"
    )


def _format_fault(fault: Fault) -> str:
    """Place, path, message and suggestion; below it the line with a caret. Secrets are hidden: logs are kept."""
    where = f"{fault.place}  " if fault.place else ""
    path = f"{brief(fault.path)}: " if fault.path else ""
    suggestion = f" {_redact_message(fault.suggestion)}" if fault.suggestion else ""
    text = clean(f"{where}{path}{_redact_message(fault.message)}{suggestion}")
    if fault.place is None or not fault.place.text:
        return text
    # A long line is cut around the caret.
    start = max(0, fault.place.column - 60)
    line = clean(_redacted_line(fault.place.text)[start : start + 100].replace("\t", " "))
    return f"{text}\n    {line}\n    {' ' * (fault.place.column - 1 - start)}^"


def _fault_to_json(fault: Fault) -> dict[str, Any]:
    place = fault.place
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": brief(fault.path, MAX_MESSAGE_LENGTH),
        "message": _redact_message(fault.message),
        "suggestion": _redact_message(fault.suggestion),
    }


@lru_cache(maxsize=16)
def _redacted_line(text: str) -> str:
    """A line of a recipe without secrets, which many faults may stand in."""
    return redact_text(text)


def _redact_message(text: str) -> str:
    """A message without secrets, and no longer than anyone reads; all but its first line is indented."""
    text = redact_text(text)
    lines = text[:MAX_MESSAGE_LENGTH].split(_INDENTED)
    return _INDENTED.join(brief(line, MAX_MESSAGE_LENGTH) for line in lines) + (
        "..." if text[MAX_MESSAGE_LENGTH:] else ""
    )


_END_REASONS = {
    "epochs": "all that were asked for",
    "patience": "stopped because nothing improved any more",
    "overfit": "stopped because it overfitted: the training loss fell while the validation loss rose",
    "steps": "stopped at the limit of steps",
    "time": "stopped at the limit of time",
    "metric": "stopped because the metric passed its threshold",
    "callback": "stopped by a callback",
}


def _intervals_to_json(measured: Any) -> dict[str, Any]:
    """The intervals of an evaluation, for the JSON object."""
    return {"intervals": {name: each.to_json() for name, each in measured.intervals().items()}} if measured else {}


def _tabulate_metrics(measured: Any) -> tuple[list[str], list[list[Any]]]:
    """Metrics with their intervals, as columns and rows of a table."""
    metrics, intervals = measured.metrics(), measured.intervals()
    level = next((f"{100 * each.level:.3g} %" for each in intervals.values()), "")
    if not level:
        return ["metric", "value"], [list(item) for item in metrics.items()]
    rows = [[name, value, _format_interval(intervals.get(name))] for name, value in metrics.items()]
    return ["metric", "value", f"{level} interval"], rows


def _missed_gates_to_json(measured: Any) -> dict[str, Any]:
    """The gates that an evaluation missed, for the JSON object."""
    return {"missed_gates": [str(gate) for gate in measured.missed_gates]} if measured and measured.missed_gates else {}


def _format_interval(interval: Any) -> str:
    return "" if interval is None else f"{_format_cell(interval.low)} to {_format_cell(interval.high)}"


def _format_rate(rate: Any) -> str:
    return "-" if rate is None else f"{rate.value:.4f} ({rate.low:.4f} to {rate.high:.4f})"


def _format_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _or_dash(value: float | None) -> float | str:
    return "-" if value is None else value


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _write_stream(stream: Any, text: str) -> None:
    """Text in whatever encoding a stream has, unknown characters replaced."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


@contextlib.contextmanager
def hide_native_stderr() -> Iterator[None]:
    """Keeps what C++ libraries write to stderr while they start out of sight, unless starting fails.

    TensorFlow writes before its log level is read, so only the file descriptor itself can be turned away.
    """
    import tempfile

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    _stderr_kept.append(kept)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(kept, 2)
            aside.seek(0)
            os.write(2, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            _stderr_kept.remove(kept)
            os.close(kept)


_stderr_kept: list[int] = []  # while it is turned away


def _show_native_noise() -> None:
    for kept in _stderr_kept[:1]:
        os.dup2(kept, 2)
