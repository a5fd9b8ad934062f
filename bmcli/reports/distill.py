"""The report of a distillation: what the student gained, and how it came to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli.console import clean
from bmcli.distillations import Distilled, Learner
from bmcli.reports import distill_figures as drawing
from bmcli.reports.page import Cell, Heading, Row, number_cell, page

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CLASSES = 30  # more would make no matrix that can be read


def report(distilled: Distilled) -> str:
    """The page as HTML, one file that needs nothing else."""
    learners = [each for each in (distilled.teacher, distilled.baseline, *distilled.students) if each is not None]
    return page(
        "distill.html",
        {
            "distilled": distilled,
            "gain": distilled.gain,
            "interval": _interval(distilled),
            "ratio": distilled.teacher.parameters / max(distilled.student.parameters, 1),
            "learners_head": _learners_head(distilled),
            "learners": _learners(distilled),
            "seeds_head": [Heading("seed"), Heading("baseline", True), Heading("student", True), Heading("gain", True)],
            "seeds": _seeds(distilled),
            "curves": drawing.curves(distilled) if distilled.curves else None,
            "agreement": {target: _agreement(distilled, target) for target in distilled.agreement},
            "agreement_head": [Heading("class"), Heading("rows", True), Heading("student", True),
                               *([Heading("baseline", True)] if distilled.baseline else [])],
            "confusions": _confusions(distilled),
            "calibration_head": [Heading(""), *(Heading(clean(name), True) for name in distilled.teacher.calibration)],
            "calibrations": _calibrations(learners, list(distilled.teacher.calibration)),
            "reliability": [drawing.reliability(distilled, target) for target in distilled.teacher.calibration],
        },
    )  # fmt: skip


def _interval(distilled: Distilled) -> str:
    gain = distilled.gain
    if gain is None or gain.interval is None:
        return "no interval" if gain is None else gain.method
    return f"{gain.interval[0]:+.4g} to {gain.interval[1]:+.4g}"


def _learners_head(distilled: Distilled) -> list[Heading]:
    metrics = [Heading(name, True) for name in distilled.student.metrics]
    return [Heading(""), Heading("parameters", True), Heading("bytes", True), Heading("latency, ms", True), *metrics]


def _learners(distilled: Distilled) -> list[Row]:
    several = len(distilled.students) > 1
    named = [("teacher", distilled.teacher), ("baseline", distilled.baseline)]
    named += [(f"student {n}" if several else "student", each) for n, each in enumerate(distilled.students, 1)]
    return [
        _learner(name, each, distilled, best=each is distilled.student) for name, each in named if each is not None
    ]  # fmt: skip


def _learner(name: str, learner: Learner, distilled: Distilled, best: bool) -> Row:
    latency = None if learner.latency_s is None else 1000 * learner.latency_s
    told = [number_cell(learner.metrics.get(metric)) for metric in distilled.student.metrics]
    cells = (Cell(name), number_cell(learner.parameters), number_cell(learner.size), number_cell(latency), *told)
    return Row(cells, best)


def _seeds(distilled: Distilled) -> list[Row]:
    gain, baseline = distilled.gain, distilled.baseline
    if gain is None or baseline is None or len(distilled.seeds) < 2:
        return []
    found = zip(distilled.seeds, baseline.by_seed, distilled.student.by_seed, gain.by_seed, strict=True)
    return [
        Row((Cell(str(seed)), number_cell(one[gain.metric]), number_cell(two[gain.metric]), number_cell(each)))
        for seed, one, two, each in found
    ]


def _agreement(distilled: Distilled, target: str) -> list[Row]:
    return [
        Row(
            (
                Cell(clean(each.name) or "all"), number_cell(each.rows), number_cell(each.student),
                *([number_cell(each.baseline)] if distilled.baseline else []),
            ),
            best=not each.name,
        )
        for each in distilled.agreement[target]
    ]  # fmt: skip


def _confusions(distilled: Distilled) -> list[Markup]:
    """How the student's confusions differ from the baseline's."""
    baseline = distilled.baseline
    if baseline is None:
        return []
    return [
        drawing.confusion_change(target, distilled.classes[target], baseline, distilled.student)
        for target in distilled.student.confusion
        if target in baseline.confusion and 1 < len(distilled.classes.get(target, ())) <= MOST_CLASSES
    ]


def _calibrations(learners: list[Learner], targets: list[str]) -> list[Row]:
    """Expected calibration error of each learner by target."""
    if not targets:
        return []
    return [Row((Cell(each.name), *(_error(each, target) for target in targets))) for each in learners]


def _error(learner: Learner, target: str) -> Cell:
    return number_cell(learner.calibration[target].error if target in learner.calibration else None)
