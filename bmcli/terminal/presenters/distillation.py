"""A finished distillation: teacher, baseline and student side by side, and the gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.number_texts import write_signed
from bmcli.terminal.formats import format_bytes, format_ms, or_dash

if TYPE_CHECKING:
    from bmcli.commands.distill import DistillationResult
    from bmcli.distillations import DistillationComparison, DistillationGain, NetworkResult
    from bmcli.terminal.console import Console

MAX_METRICS = 4


def to_json(result: DistillationResult) -> dict[str, Any]:
    found, gain = result.comparison, result.comparison.gain
    learners = {"teacher": found.teacher, "baseline": found.baseline, "student": found.student}
    return {
        **{
            name: None if each is None else {f"{found.on}/{metric}": value for metric, value in each.metrics.items()}
            for name, each in learners.items()
        },
        "gain": None if gain is None else _gain_to_json(gain, found.on),
        **({"positive": dict(found.positive)} if found.positive else {}),
        "runs": {each.name: list(each.runs) for each in learners.values() if each is not None},
        "report": str(result.distillation.report),
        "seconds": round(found.seconds, 3),
    }


def _gain_to_json(gain: DistillationGain, split: str) -> dict[str, Any]:
    return {
        "metric": f"{split}/{gain.metric}",
        "mean": gain.mean,
        "interval": None if gain.interval is None else list(gain.interval),
        "by_seed": list(gain.by_seed),
        "gap_closed": gain.gap_closed,
    }


def print_result(console: Console, result: DistillationResult) -> None:
    from bmcli.metrics.classification import describe_positive

    found = result.comparison
    console.print_text("")
    seeds = f", mean of {len(found.seeds)} seeds" if len(found.seeds) > 1 else ""
    console.print_table(f"{found.rows:,} rows of {found.on}{seeds}", *_tabulate_learners(found))
    for sentence in describe_positive(found.positive):
        console.print_text(sentence)
    if found.gain is not None:
        console.print_text(f"\n{_format_gain(found.gain)}")
    runs = "".join(f"\nrun  {run}" for run in found.student.runs)
    console.print_text(f"\nwrote {format_path(result.distillation.report)}{runs}")


def _tabulate_learners(found: DistillationComparison) -> tuple[list[str], list[list[object]]]:
    """Make columns and rows of a table of teacher, baseline, and the student of each generation."""
    metrics = list(found.student.metrics)[:MAX_METRICS]
    if found.gain is not None and found.gain.metric not in metrics:
        metrics.insert(0, found.gain.metric)
    several = len(found.students) > 1
    students = [(f"student {n}" if several else "student", each) for n, each in enumerate(found.students, 1)]
    learners = [("teacher", found.teacher), ("baseline", found.baseline), *students]
    rows = [_make_row(name, each, metrics) for name, each in learners if each is not None]
    return ["", *metrics, "parameters", "size", "latency"], rows


def _make_row(name: str, learner: NetworkResult, metrics: list[str]) -> list[object]:
    return [
        name,
        *(or_dash(learner.metrics.get(metric)) for metric in metrics),
        f"{learner.parameters:,}",
        format_bytes(learner.size),
        "-" if learner.latency_s is None else format_ms(learner.latency_s),
    ]


def _format_gain(gain: DistillationGain) -> str:
    text = f"gain in {gain.metric}: {write_signed(gain.mean)}"
    if gain.interval is None:
        text += f" (no interval, since {gain.method.rstrip('.')})"
    else:
        text += f" (95 % interval {write_signed(gain.interval[0])} to {write_signed(gain.interval[1])}; {gain.method})"
    if len(gain.by_seed) > 1:
        text += f"; by seed {', '.join(f'{write_signed(each)}' for each in gain.by_seed)}"
    return text + (f"; {100 * gain.gap_closed:.0f} % of the gap to the teacher" if gain.gap_closed is not None else "")
