"""The report of a distillation: the gain of the student, and its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli.distillations import DistillationComparison, NetworkResult
from bmcli.metrics.classification import describe_positive
from bmcli.number_texts import write_signed
from bmcli.printable import clean
from bmcli.reports import distill_figures
from bmcli.reports.page import Cell, Heading, Row, make_number_cell, render_page

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_CLASSES = 30  # a larger confusion matrix is not legible


def render_distillation(distilled: DistillationComparison) -> str:
    """Render the page as a self-contained HTML file."""
    learners = [each for each in (distilled.teacher, distilled.baseline, *distilled.students) if each is not None]
    calibrated = list(distilled.teacher.calibration)
    return render_page(
        "distill.html",
        {
            "distilled": distilled,
            "meanings": [clean(sentence) for sentence in describe_positive(distilled.positive)],
            "gain": distilled.gain,
            "interval": _format_interval(distilled),
            "ratio": distilled.teacher.parameters / max(distilled.student.parameters, 1),
            "learners_head": _make_learner_headings(distilled),
            "learners": _make_learner_rows(distilled),
            "seeds_head": [Heading("seed"), Heading("baseline", True), Heading("student", True), Heading("gain", True)],
            "seeds": _make_seed_rows(distilled),
            "curves": distill_figures.draw_losses(distilled) if distilled.curves else None,
            "agreement": {target: _make_agreement_rows(distilled, target) for target in distilled.agreement},
            "agreement_head": [Heading("class"), Heading("rows", True), Heading("student", True),
                               *([Heading("baseline", True)] if distilled.baseline else [])],
            "confusions": _draw_confusion_changes(distilled),
            "calibration_head": [Heading("network"), *(Heading(clean(name), True) for name in calibrated)],
            "calibrations": _make_calibration_rows(learners, calibrated),
            "reliability": [distill_figures.draw_reliability(distilled, target) for target in calibrated],
        },
    )  # fmt: skip


def _format_interval(distilled: DistillationComparison) -> str:
    gain = distilled.gain
    if gain is None or gain.interval is None:
        return "no interval" if gain is None else gain.method
    return f"{write_signed(gain.interval[0])} to {write_signed(gain.interval[1])}"


def _make_learner_headings(distilled: DistillationComparison) -> list[Heading]:
    metric_headings = [Heading(name, True) for name in distilled.student.metrics]
    return [
        Heading("network"),
        Heading("parameters", True),
        Heading("size, bytes", True),
        Heading("latency, ms per row", True),
        *metric_headings,
    ]


def _make_learner_rows(distilled: DistillationComparison) -> list[Row]:
    has_generations = len(distilled.students) > 1
    named = [("teacher", distilled.teacher), ("baseline", distilled.baseline)]
    named += [(f"student {n}" if has_generations else "student", each) for n, each in enumerate(distilled.students, 1)]
    return [
        _make_learner_row(name, each, distilled, best=each is distilled.student)
        for name, each in named
        if each is not None
    ]


def _make_learner_row(name: str, learner: NetworkResult, distilled: DistillationComparison, best: bool) -> Row:
    latency = None if learner.latency_s is None else 1000 * learner.latency_s
    metric_cells = [make_number_cell(learner.metrics.get(metric)) for metric in distilled.student.metrics]
    cells = (
        Cell(name),
        make_number_cell(learner.parameters),
        make_number_cell(learner.size),
        make_number_cell(latency),
        *metric_cells,
    )
    return Row(cells, best)


def _make_seed_rows(distilled: DistillationComparison) -> list[Row]:
    gain, baseline = distilled.gain, distilled.baseline
    if gain is None or baseline is None or len(distilled.seeds) < 2:
        return []
    results = zip(distilled.seeds, baseline.by_seed, distilled.student.by_seed, gain.by_seed, strict=True)
    return [
        Row(
            (
                Cell(str(seed)),
                make_number_cell(baseline_metrics[gain.metric]),
                make_number_cell(student_metrics[gain.metric]),
                make_number_cell(seed_gain),
            )
        )
        for seed, baseline_metrics, student_metrics, seed_gain in results
    ]


def _make_agreement_rows(distilled: DistillationComparison, target: str) -> list[Row]:
    return [
        Row(
            (
                Cell(clean(each.name) or "all rows"), make_number_cell(each.rows), make_number_cell(each.student),
                *([make_number_cell(each.baseline)] if distilled.baseline else []),
            ),
            best=not each.name,
        )
        for each in distilled.agreement[target]
    ]  # fmt: skip


def _draw_confusion_changes(distilled: DistillationComparison) -> list[Markup]:
    """Draw the differences between the confusion matrices of student and baseline."""
    baseline = distilled.baseline
    if baseline is None:
        return []
    return [
        distill_figures.draw_confusion_change(target, distilled.classes[target], baseline, distilled.student)
        for target in distilled.student.confusion
        if target in baseline.confusion and 1 < len(distilled.classes.get(target, ())) <= MAX_CLASSES
    ]


def _make_calibration_rows(learners: list[NetworkResult], targets: list[str]) -> list[Row]:
    """Make a row with the expected calibration errors of each network."""
    if not targets:
        return []
    return [Row((Cell(each.name), *(_make_error_cell(each, target) for target in targets))) for each in learners]


def _make_error_cell(learner: NetworkResult, target: str) -> Cell:
    return make_number_cell(learner.calibration[target].error if target in learner.calibration else None)
