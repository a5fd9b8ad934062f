"""The report of a run: what was asked, what it was trained on, how well it does, and on what it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.data.raw_rows import RawSplits
from bmcli.evaluation import predictions as judgements
from bmcli.evaluation.calibration import Calibration
from bmcli.evaluation.decisions import Decision
from bmcli.evaluation.explanation_record import Explanation
from bmcli.evaluation.folds import CrossValidationResult
from bmcli.evaluation.intervals import compute_wilson_interval
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.predictions import Predictions
from bmcli.evaluation.proportions import Interval
from bmcli.evaluation.ranking_curves import compute_ranking_curves
from bmcli.evaluation.result import ClassMetrics, Evaluation
from bmcli.printable import clean
from bmcli.quoting import LONGEST, brief, listed
from bmcli.reports import artefacts, decisions, groups, pixels, run_figures, validation
from bmcli.reports import explanation as explanations
from bmcli.reports.artefacts import ArtefactSummary
from bmcli.reports.costs import Cost
from bmcli.reports.page import Cell, Fact, Heading, Row, format_duration, format_number, make_number_cell, render_page
from bmcli.specs import SPLITS, Column, DataSpec, PreparedData

if TYPE_CHECKING:
    from markupsafe import Markup

EXAMPLES, COLUMNS_OF_EXAMPLES, LONGEST_CELL = 6, 8, 160


@dataclass(frozen=True)
class RelatedResults:
    """What other commands than the training found about a run.

    Args:
        origin: The search or the distillation that it comes from, as sentences.
        decisions: What temperatures and thresholds were chosen by.
        folds: Cross-validation of its recipe; None if that was not asked.
        curves: Learning curves of its recipe, by target.
        explanation: Why it answers so; None if that was not asked.
        artefacts: What was exported, rejected ones last.
        costs: Of those that were measured.
        model: SHA-256 of the run's model.
    """

    origin: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    folds: CrossValidationResult | None = None
    curves: tuple[LearningCurve, ...] = ()
    explanation: Explanation | None = None
    artefacts: tuple[ArtefactSummary, ...] = ()
    costs: tuple[Cost, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class RunReportData:
    """Everything that a report tells.

    Args:
        name, folder: Of the run.
        written, resolved: The recipe as it was written, and with everything resolved.
        findings: What is suspicious about the data.
        was_checked: Whether anything was looked for.
        epochs: The rows of `metrics.jsonl`.
        status, environment, evaluations: As the run's files tell.
        parameters: Of the network.
        size: Bytes of the saved model.
        raw: Cells as they were written; without columns if the source holds none to be read.
        predicted_rows: What is shown in detail.
        evaluation: Of the same rows.
        quantiles: Which ones are predicted, by target.
        related: What other commands found.
    """

    name: str
    folder: str
    written: str
    resolved: str
    findings: Sequence[str]
    was_checked: bool
    epochs: Sequence[Mapping[str, Any]]
    status: Mapping[str, Any]
    environment: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    parameters: int
    size: int
    prepared: PreparedData
    raw: RawSplits
    predicted_rows: Predictions
    evaluation: Evaluation
    quantiles: Mapping[str, tuple[float, ...]]
    related: RelatedResults = RelatedResults()

    @property
    def spec(self) -> DataSpec:
        return self.prepared.spec


def render_run_report(data: RunReportData) -> str:
    """The page as HTML, one file that needs nothing else."""
    beside = data.related
    return render_page(
        "run.html",
        {
            "material": data,
            "spec": data.spec,
            "facts": list(_list_facts(data)),
            "columns_head": _COLUMN_HEADINGS,
            "columns": list(_column_rows(data)),
            "spread": list(_draw_target_distributions(data)),
            "some": _sample_rows(data),
            "curves": run_figures.draw_curves(data.epochs, data.status.get("selected_epoch")),
            "metrics_head": [Heading("metric"), *(Heading(clean(on), True) for on in _list_evaluated(data))],
            "metrics": _make_metric_rows(data),
            "targets": [_make_target_view(data, column, place) for place, column in enumerate(data.spec.targets)],
            "methods": _describe_interval_methods(data.evaluation.intervals),
            "tables": [
                *groups.make_slice_tables(data.evaluation.slices),
                *groups.make_fairness_tables(data.evaluation.fairness),
            ],
            "per_class_head": PER_CLASS_HEADINGS,
            "confused_head": CONFUSION_HEADINGS,
            "origin": [clean(told) for told in beside.origin],
            "decisions": decisions.make_decision_views(beside.decisions),
            "folds": None if beside.folds is None else validation.make_folds_view(beside.folds),
            "learning": [validation.make_curve_view(each, place) for place, each in enumerate(beside.curves)],
            "artefacts": artefacts.make_artefact_rows(beside.artefacts, beside.model),
            "artefacts_head": artefacts.ARTEFACT_HEADINGS,
            "compared_on": _describe_compared_rows(beside.artefacts),
            "costs": artefacts.make_cost_rows(beside.costs),
            "costs_head": artefacts.COST_HEADINGS,
            "explanation": None
            if beside.explanation is None
            else explanations.make_explanation_view(beside.explanation, data.prepared, data.raw),
            "explanation_heads": {
                "shares": explanations.SHARE_HEADINGS,
                "sanity": explanations.SANITY_HEADINGS,
                "layers": explanations.LAYER_HEADINGS,
                "neighbours": explanations.NEIGHBOUR_HEADINGS,
            },
            "environment": [
                Row((Cell(clean(name)), Cell(clean(_format_setting(value)))))
                for name, value in data.environment.items()
            ],
        },
    )


def _describe_interval_methods(intervals: Mapping[str, Interval]) -> list[str]:
    """How intervals were made, each method with its metrics, the most common one for all others."""
    of: dict[str, list[str]] = {}
    for name, each in intervals.items():
        of.setdefault(f"{each.percent}, {each.method}", []).append(clean(name))
    ordered = sorted(of.items(), key=lambda item: len(item[1]))
    told = [f"{', '.join(names)}: {method}" for method, names in ordered[:-1]]
    return [*told, *(f"all others: {method}" if told else method for method, _ in ordered[-1:])]


def _describe_compared_rows(summaries: Sequence[ArtefactSummary]) -> str:
    """The rows that artefacts were compared with the model on, in words."""
    return clean("; ".join(sorted({f"{each.samples:,} {each.split} rows" for each in summaries})))


def _list_facts(data: RunReportData) -> Iterator[Fact]:
    """The figures to see first."""
    found, prefixed = data.evaluation.metrics, len(data.spec.targets) > 1
    for name in validation.select_headlines(list(found), 6 if prefixed else 4):
        yield Fact(clean(name), format_number(found[name]), _describe_context(data, name))
    status = data.status
    if "seconds" in status:
        kept = f"epoch {status.get('selected_epoch')} of {status.get('epochs')} kept"
        yield Fact("training", format_duration(status["seconds"]), kept)
    yield Fact("parameters", f"{data.parameters:,}", f"{format_number(data.size / 1e6)} MB saved")


def _describe_context(data: RunReportData, name: str) -> str:
    """Where the true value of a figure lies, and what it is to be compared with."""
    interval = data.evaluation.intervals.get(name)
    around = f"{format_number(interval.low)} to {format_number(interval.high)}" if interval else ""
    target = data.spec.targets[0]
    if name != "accuracy" or target.kind not in ("category", "ordered"):
        return around
    counts = np.bincount(data.predicted_rows.truth[target.name], minlength=len(target.classes))
    usual = brief(target.classes[counts.argmax()], LONGEST)
    return f"{around}; always “{usual}” would reach {format_number(counts.max() / counts.sum())}"


_MOST_COLUMNS = 300
_COLUMN_HEADINGS = [
    Heading("column"), Heading("role"), Heading("kind"), Heading("what it holds"), Heading("missing", True),
    Heading("unreadable", True),
]  # fmt: skip


def _list_columns(spec: DataSpec) -> Iterator[tuple[str, Column]]:
    yield from (("target", column) for column in spec.targets)
    yield from (("input", column) for column in spec.inputs)


def _column_rows(material: RunReportData) -> Iterator[Row]:
    """A row for each column, of very many the first."""
    columns = list(_list_columns(material.spec))
    for role, column in columns[:_MOST_COLUMNS]:
        yield _make_column_row(material, role, column)
    if left_out := columns[_MOST_COLUMNS:]:
        told = f"{len(left_out):,} more inputs are left out here; data.json in the run tells of all."
        yield Row(
            (Cell("…"), Cell("input"), Cell(""), Cell(told, "long"), Cell("", "number", ""), make_number_cell(None))
        )


def _make_column_row(data: RunReportData, role: str, column: Column) -> Row:
    cells = (
        Cell(clean(column.name)),
        Cell(role),
        Cell(column.kind),
        Cell(_describe_cells(data, column), "long"),
        _make_missing_cell(data, column.name),
        make_number_cell(data.spec.invalid.get(column.name)),
    )
    return Row(cells)


def _describe_cells(data: RunReportData, column: Column) -> str:
    """What the cells of a column are like, in words."""
    if column.classes:
        return f"{len(column.classes)} classes: {listed(column.classes, 6)}"
    if column.kind == "boolean":
        return f"yes in {100 * column.state['fill']:.1f} % of the training rows"
    if column.kind == "text":
        unit = "different terms" if column.state["bag"] else "terms"
        return f"{len(column.state['vocabulary']):,} terms known, the first {column.state['length']} {unit} of a text"
    if column.kind == "image":
        return f"{_format_shape(column.shape)} pixels"
    span = data.raw.number_range(column.name) if column.kind == "number" else None
    if span is not None:
        low, mean, high = map(format_number, span)
        return f"{low} to {high}, mean {mean}"
    return f"{_format_shape(column.shape)} numbers" if column.kind in ("number", "count") else ""


def _format_shape(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape)) or "single"


def _make_missing_cell(data: RunReportData, name: str) -> Cell:
    if name not in data.raw.columns:
        return Cell("", "number", "")
    gone, rows = sum(data.raw.count_missing(name).values()), sum(data.spec.counts.values())
    return Cell(f"{gone:,} ({100 * gone / rows:.1f} %)" if gone else "0", "number", str(gone))


def _draw_target_distributions(data: RunReportData) -> Iterator[tuple[str, Markup]]:
    """How each target is spread in the splits."""
    for place, column in enumerate(data.spec.targets):
        decode = target_kinds.kind_of(column).decode
        splits = [split for split in SPLITS if data.spec.counts[split]]
        values = {split: decode(data.prepared.split(split).targets[column.name], column) for split in splits}
        name, drawn = clean(column.name), f"spread-{place}"
        if not column.classes:
            yield name, run_figures.draw_histogram(column.name, values, drawn)
        else:
            counts = {split: _count_classes(column, own) for split, own in values.items()}
            yield name, run_figures.draw_classes(column.name, counts, column.classes, drawn)


def _count_classes(column: Column, values: np.ndarray) -> list[int]:
    own = values.sum(axis=0) if values.ndim == 2 else np.bincount(values, minlength=len(column.classes))
    return [int(count) for count in own]


@dataclass(frozen=True)
class _SampleRows:
    """Some training rows, as a table or as pictures."""

    head: list[Heading]
    rows: list[Row]
    pictures: list[CaptionedPicture]


def _sample_rows(data: RunReportData) -> _SampleRows:
    """Training rows from the first to the last, with what is to be told of them."""
    split, spec = data.prepared.split("train"), data.spec
    rows = np.unique(np.linspace(0, len(split) - 1, EXAMPLES).astype(int))
    told = []
    for column in spec.targets:
        values = target_kinds.kind_of(column).decode(split.targets[column.name][rows], column)
        told.append([clean(judgements.format_target(column, value)) for value in values])
    image = next((each for each in spec.inputs if each.kind == "image"), None)
    if image is not None:
        drawn = (_encode_picture(image, split.inputs[image.name][row]) for row in rows)
        titles = zip(*told, strict=True)
        return _SampleRows(
            [], [], [CaptionedPicture(at, ", ".join(t), "", True) for at, t in zip(drawn, titles, strict=True)]
        )
    names = [column.name for column in spec.inputs if column.name in data.raw.columns][:COLUMNS_OF_EXAMPLES]
    cells = [data.raw.cells(name, "train", rows) for name in names]
    head = [Heading(clean(name)) for name in (*(column.name for column in spec.targets), *names)]
    of_rows = zip(zip(*told, strict=True), zip(*cells, strict=True) if cells else [()] * len(rows), strict=True)
    return _SampleRows(
        head, [Row((*map(Cell, of_it), *map(_make_example_cell, given))) for of_it, given in of_rows], []
    )


def _encode_picture(column: Column, values: np.ndarray) -> str:
    """The address of an encoded picture."""
    span = (float(column.state["range"][0]), float(column.state["range"][1]))
    return pixels.encode_data_url(pixels.scale_pixels(np.asarray(values), span))


def _list_evaluated(data: RunReportData) -> list[str]:
    found = data.evaluations
    return [on for on in found if isinstance(found[on], dict) and isinstance(found[on].get("metrics"), dict)]


def _make_metric_rows(data: RunReportData) -> list[Row]:
    """Every metric on everything that the run was measured on."""
    found = {on: data.evaluations[on]["metrics"] for on in _list_evaluated(data)}
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    around = {on: data.evaluations[on].get("intervals", {}) for on in found}

    def cell(on: str, name: str) -> Cell:
        interval = around[on].get(name)
        return groups.make_interval_cell(found[on].get(name), Interval.from_json(interval) if interval else None)

    return [Row((Cell(clean(name)), *(cell(on, name) for on in found))) for name in names]


@dataclass(frozen=True)
class _TargetView:
    """What is shown of one target.

    Args:
        figures: Titles and figures, side by side.
        confused: What is most often taken for what, where there are too many classes for a figure.
        lists: Titles, what they mean, and examples.
        calibrated: How well probabilities are calibrated, in words.
    """

    name: str
    confusion: Markup | None
    confused: list[Row]
    figures: list[tuple[str, Markup]]
    per_class: list[Row]
    calibrated: str
    lists: list[tuple[str, str, list[Row], list[CaptionedPicture]]]
    head: list[Heading]


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with what is told of it."""

    address: str
    title: str
    told: str
    good: bool


def _make_target_view(data: RunReportData, column: Column, place: int) -> _TargetView:
    truth, predictions = data.predicted_rows.truth[column.name], data.predicted_rows.predictions[column.name]
    evaluation = data.evaluation
    matrix, rows = evaluation.confusion.get(column.name), evaluation.per_class.get(column.name, ())
    found = evaluation.calibration.get(column.name)
    drawn = run_figures.draw_confusion(column.name, matrix, column.classes, f"confusion-{place}") if matrix else None
    return _TargetView(
        clean(column.name),
        drawn,
        _make_confusion_rows(column, np.array(matrix)) if matrix and drawn is None else [],
        _draw_figures(data, column, truth, predictions, place, found),
        [make_class_row(row) for row in rows],
        clean(found.summary) if found else "",
        _make_example_lists(data, column, truth, predictions),
        _make_example_headings(data, column),
    )


PER_CLASS_HEADINGS = [
    Heading("class"), Heading("rows", True), Heading("precision", True), Heading("recall", True), Heading("F1", True),
    Heading("ROC AUC", True), Heading("average precision", True),
]  # fmt: skip
CONFUSION_HEADINGS = [Heading("true"), Heading("predicted"), Heading("rows", True)]


def make_class_row(row: ClassMetrics) -> Row:
    """A class, with the intervals of the two figures that are shares of rows."""
    hits = 0 if row.recall is None else round(row.recall * row.support)
    guesses = round(hits / row.precision) if row.precision else 0
    shares = (_make_share_cell(row.precision, hits, guesses), _make_share_cell(row.recall, hits, row.support))
    others = (make_number_cell(each) for each in (row.f1, row.roc_auc, row.pr_auc))
    return Row((Cell(clean(row.name)), make_number_cell(row.support), *shares, *others))


def _make_share_cell(value: float | None, hits: int, rows: int) -> Cell:
    return groups.make_interval_cell(value, compute_wilson_interval(hits, rows) if rows and value is not None else None)


def _make_confusion_rows(column: Column, counts: np.ndarray) -> list[Row]:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:15]
    pairs = [divmod(int(at), len(counts)) for at in order if wrong.flat[at]]
    return [
        Row((Cell(clean(column.classes[a])), Cell(clean(column.classes[b])), make_number_cell(int(wrong[a, b]))))
        for a, b in pairs
    ]


def _draw_figures(
    data: RunReportData,
    column: Column,
    truth: np.ndarray,
    predictions: np.ndarray,
    place: int,
    calibrated: Calibration | None,
) -> list[tuple[str, Markup]]:
    if not column.classes:
        point = judgements.predict_points(column, predictions, data.quantiles.get(column.name, ()))
        return [
            ("Predicted and true", run_figures.draw_predictions(column.name, truth, point, f"predicted-{place}")),
            ("Errors", run_figures.draw_errors(column.name, truth, point, f"errors-{place}")),
        ]
    ranked = sorted(compute_ranking_curves(column, truth, predictions), key=lambda each: each.roc_auc)[
        : run_figures.MAX_CURVES
    ]
    if not ranked:
        return []
    few = " of the hardest classes" if len(column.classes) > len(ranked) > 1 else ""
    return [
        (f"ROC{few}", run_figures.draw_roc(ranked, f"roc-{place}")),
        (f"Precision and recall{few}", run_figures.draw_precision_recall(ranked, f"pr-{place}")),
        *([("Calibration", run_figures.draw_reliability(calibrated, f"reliability-{place}"))] if calibrated else []),
    ]


def _make_example_lists(
    data: RunReportData, column: Column, truth: np.ndarray, predictions: np.ndarray
) -> list[tuple[str, str, list[Row], list[CaptionedPicture]]]:
    """Examples right and wrong."""
    quantiles = data.quantiles.get(column.name, ())
    found = judgements.find_examples(column, truth, predictions, EXAMPLES, quantiles)
    by_number = not column.classes
    titled = (
        ("Largest errors" if by_number else "Most wrong",
         "The largest differences." if by_number else "Errors whose true class was held for least probable.",
         found.wrong),
        ("Least confident", "Predictions with the smallest margin, right or wrong.", found.doubtful),
        ("Smallest errors" if by_number else "Most confident correct", "", found.right),
    )  # fmt: skip
    point = judgements.predict_points(column, predictions, quantiles)
    sure = judgements.compute_confidence(column, predictions)
    lists = []
    for title, meaning, rows in titled:
        if rows:
            chosen = np.array(rows)
            lists.append((title, meaning, *_make_examples(data, column, chosen, truth, point, sure)))
    return lists


def _make_example_headings(data: RunReportData, column: Column) -> list[Heading]:
    sure = [Heading("probability", True)] if column.classes else []
    return [
        Heading("true"),
        Heading("predicted"),
        *sure,
        *(Heading(clean(name)) for name in _list_example_columns(data)),
    ]


def _list_example_columns(data: RunReportData) -> list[str]:
    names = [column.name for column in data.spec.inputs if column.name in data.raw.columns]
    return names[:COLUMNS_OF_EXAMPLES] if data.predicted_rows.on in SPLITS else []


def _make_examples(
    data: RunReportData, column: Column, rows: np.ndarray, truth: np.ndarray, point: np.ndarray, sure: np.ndarray | None
) -> tuple[list[Row], list[CaptionedPicture]]:
    """Examples as rows of a table, and as pictures if an input is one."""
    told = [(judgements.format_target(column, truth[i]), judgements.format_target(column, point[i])) for i in rows]
    image = next((each for each in data.spec.inputs if each.kind == "image"), None)
    if image is not None:
        return [], [
            CaptionedPicture(
                _encode_picture(image, data.predicted_rows.rows.inputs[image.name][i]),
                clean(was),
                _format_prediction(was, said, column, None if sure is None else float(sure[i])),
                was == said,
            )
            for i, (was, said) in zip(rows, told, strict=True)
        ]
    cells = [data.raw.cells(name, data.predicted_rows.on, rows) for name in _list_example_columns(data)]
    return [
        Row(
            (
                Cell(clean(was)),
                Cell(clean(said), "" if was == said or not column.classes else "failed"),
                *([] if sure is None else [make_number_cell(float(sure[i]), f"{sure[i]:.3f}")]),
                *(_make_example_cell(column_cells[at]) for column_cells in cells),
            )
        )
        for at, (i, (was, said)) in enumerate(zip(rows, told, strict=True))
    ], []


def _format_prediction(true_text: str, predicted_text: str, column: Column, probability: float | None) -> str:
    """What is told below a picture, beside its true class."""
    probable = "" if probability is None else f" {probability:.2f}"
    if column.classes and true_text == predicted_text:
        return f"right{probable}"
    return f"predicted {clean(predicted_text)}{probable}"


def _make_example_cell(cell: str) -> Cell:
    text = clean(cell)
    text = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    return Cell(text, "long" if len(text) > 40 else "")


def _format_setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
