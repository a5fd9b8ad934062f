"""The report of a distillation: what the student gained, and how it came to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli.distillations import DistillationComparison, NetworkResult
from bmcli.printable import clean
from bmcli.reports import distill_figures as drawing
from bmcli.reports.page import Cell, Heading, Row, make_number_cell, render_page

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_CLASSES = 30  # more would make no matrix that can be read


def render_distillation(distilled: DistillationComparison) -> str:
    """The page as HTML, one file that needs nothing else."""
    learners = [each for each in (distilled.teacher, distilled.baseline, *distilled.students) if each is not None]
    return render_page(
        "distill.html",
        {
            "distilled": distilled,
            "gain": distilled.gain,
            "interval": _format_interval(distilled),
            "ratio": distilled.teacher.parameters / max(distilled.student.parameters, 1),
            "learners_head": _make_learner_headings(distilled),
            "learners": _make_learner_rows(distilled),
            "seeds_head": [Heading("seed"), Heading("baseline", True), Heading("student", True), Heading("gain", True)],
            "seeds": _make_seed_rows(distilled),
            "curves": drawing.draw_losses(distilled) if distilled.curves else None,
            "agreement": {target: _make_agreement_rows(distilled, target) for target in distilled.agreement},
            "agreement_head": [Heading("class"), Heading("rows", True), Heading("student", True),
                               *([Heading("baseline", True)] if distilled.baseline else [])],
            "confusions": _draw_confusion_changes(distilled),
            "calibration_head": [Heading(""), *(Heading(clean(name), True) for name in distilled.teacher.calibration)],
            "calibrations": _make_calibration_rows(learners, list(distilled.teacher.calibration)),
            "reliability": [drawing.draw_reliability(distilled, target) for target in distilled.teacher.calibration],
        },
    )  # fmt: skip


def _format_interval(distilled: DistillationComparison) -> str:
    gain = distilled.gain
    if gain is None or gain.interval is None:
        return "no interval" if gain is None else gain.method
    return f"{gain.interval[0]:+.4g} to {gain.interval[1]:+.4g}"


def _make_learner_headings(distilled: DistillationComparison) -> list[Heading]:
    metrics = [Heading(name, True) for name in distilled.student.metrics]
    return [Heading(""), Heading("parameters", True), Heading("bytes", True), Heading("latency, ms", True), *metrics]


def _make_learner_rows(distilled: DistillationComparison) -> list[Row]:
    several = len(distilled.students) > 1
    named = [("teacher", distilled.teacher), ("baseline", distilled.baseline)]
    named += [(f"student {n}" if several else "student", each) for n, each in enumerate(distilled.students, 1)]
    return [
        _make_learner_row(name, each, distilled, best=each is distilled.student)
        for name, each in named
        if each is not None
    ]


def _make_learner_row(name: str, learner: NetworkResult, distilled: DistillationComparison, best: bool) -> Row:
    latency = None if learner.latency_s is None else 1000 * learner.latency_s
    told = [make_number_cell(learner.metrics.get(metric)) for metric in distilled.student.metrics]
    cells = (
        Cell(name),
        make_number_cell(learner.parameters),
        make_number_cell(learner.size),
        make_number_cell(latency),
        *told,
    )
    return Row(cells, best)


def _make_seed_rows(distilled: DistillationComparison) -> list[Row]:
    gain, baseline = distilled.gain, distilled.baseline
    if gain is None or baseline is None or len(distilled.seeds) < 2:
        return []
    found = zip(distilled.seeds, baseline.by_seed, distilled.student.by_seed, gain.by_seed, strict=True)
    return [
        Row(
            (
                Cell(str(seed)),
                make_number_cell(one[gain.metric]),
                make_number_cell(two[gain.metric]),
                make_number_cell(each),
            )
        )
        for seed, one, two, each in found
    ]


def _make_agreement_rows(distilled: DistillationComparison, target: str) -> list[Row]:
    return [
        Row(
            (
                Cell(clean(each.name) or "all"), make_number_cell(each.rows), make_number_cell(each.student),
                *([make_number_cell(each.baseline)] if distilled.baseline else []),
            ),
            best=not each.name,
        )
        for each in distilled.agreement[target]
    ]  # fmt: skip


def _draw_confusion_changes(distilled: DistillationComparison) -> list[Markup]:
    """How the student's confusions differ from the baseline's."""
    baseline = distilled.baseline
    if baseline is None:
        return []
    return [
        drawing.draw_confusion_change(target, distilled.classes[target], baseline, distilled.student)
        for target in distilled.student.confusion
        if target in baseline.confusion and 1 < len(distilled.classes.get(target, ())) <= MAX_CLASSES
    ]


def _make_calibration_rows(learners: list[NetworkResult], targets: list[str]) -> list[Row]:
    """Expected calibration error of each learner by target."""
    if not targets:
        return []
    return [Row((Cell(each.name), *(_make_error_cell(each, target) for target in targets))) for each in learners]


def _make_error_cell(learner: NetworkResult, target: str) -> Cell:
    return make_number_cell(learner.calibration[target].error if target in learner.calibration else None)
