"""The report of a run: recipe, data, training, metrics and examples, with the results of other commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bmcli import inputs as input_kinds
from bmcli.answers import Answers
from bmcli.answers.decisions import Decision
from bmcli.answers.figures import Table
from bmcli.data.raw_rows import RawSplits
from bmcli.evaluation.explanation_record import Explanation
from bmcli.evaluation.folds import CrossValidationResult
from bmcli.evaluation.intervals import compute_wilson_interval
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.predictions import Predictions, find_examples
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.classification import ClassMetrics
from bmcli.metrics.proportions import Interval
from bmcli.objectives import open_answers
from bmcli.printable import clean
from bmcli.quoting import listed
from bmcli.reports import artefacts, decisions, groups, pixels, run_figures, validation
from bmcli.reports.artefacts import ArtefactSummary
from bmcli.reports.costs import Cost
from bmcli.reports.explanation import (
    LAYER_HEADINGS,
    NEIGHBOUR_HEADINGS,
    SANITY_HEADINGS,
    SHARE_HEADINGS,
    make_explanation_view,
)
from bmcli.reports.page import Cell, Fact, Heading, Row, format_duration, format_number, make_number_cell, render_page
from bmcli.specs import SPLITS, Column, DataSpec, PreparedData

if TYPE_CHECKING:
    from markupsafe import Markup

EXAMPLES, EXAMPLE_COLUMNS, MAX_CELL_LENGTH = 6, 8, 160


@dataclass(frozen=True)
class RelatedResults:
    """Results of other commands than `train` for a run.

    Args:
        origin: The search or the distillation that the run belongs to, as sentences.
        decisions: Temperature and threshold of each target.
        folds: Cross-validation of its recipe; None if there is none.
        curves: Learning curves of its recipe, one for each target.
        explanation: Of its predictions; None if there is none.
        artefacts: Exported artefacts, rejected ones last.
        costs: Of the artefacts with a benchmark.
        model_sha256: SHA-256 of the run's model.
    """

    origin: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    folds: CrossValidationResult | None = None
    curves: tuple[LearningCurve, ...] = ()
    explanation: Explanation | None = None
    artefacts: tuple[ArtefactSummary, ...] = ()
    costs: tuple[Cost, ...] = ()
    model_sha256: str = ""


@dataclass(frozen=True)
class RunReportData:
    """Contents of the report of a run.

    Args:
        name, folder: Of the run.
        recipe_text, resolved_recipe: The recipe as written, and with all defaults and measured values.
        findings: Warnings of the data checks.
        data_was_checked: Whether the data checks ran.
        epochs: Records of `metrics.jsonl`.
        status, environment, evaluations: Contents of the run's files.
        parameters: Of the network.
        size: Bytes of the saved model.
        raw: Cells of the source; without columns if the source has no text cells.
        predicted_rows: The evaluated rows, from which examples are taken.
        evaluation: Of the same rows.
        related: Results of other commands.
    """

    name: str
    folder: str
    recipe_text: str
    resolved_recipe: str
    findings: Sequence[str]
    data_was_checked: bool
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
    related: RelatedResults = RelatedResults()

    @property
    def spec(self) -> DataSpec:
        return self.prepared.spec

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """Answers of the outputs, by name."""
        return open_answers(self.spec)


def render_run_report(data: RunReportData) -> str:
    """Render the page as a self-contained HTML file."""
    related = data.related
    return render_page(
        "run.html",
        {
            "run": data,
            "stop_reasons": _STOP_REASONS,
            "spec": data.spec,
            "facts": list(_list_facts(data)),
            "columns_head": _COLUMN_HEADINGS,
            "columns": list(_iterate_column_rows(data)),
            "distributions": list(_draw_target_distributions(data)),
            "sample": _sample_rows(data),
            "curves": run_figures.draw_curves(data.epochs, data.status.get("selected_epoch")),
            "metrics_head": [Heading("metric"), *(Heading(clean(split), True) for split in _list_evaluated(data))],
            "metrics": _make_metric_rows(data),
            "targets": [_make_target_view(data, answers, index) for index, answers in enumerate(data.answers.values())],
            "meanings": [clean(sentence) for sentence in data.evaluation.meanings],
            "methods": _describe_interval_methods(data.evaluation.intervals),
            "tables": [
                *groups.make_slice_tables(data.evaluation.slices),
                *groups.make_fairness_tables(data.evaluation.fairness),
            ],
            "per_class_head": PER_CLASS_HEADINGS,
            "confusion_head": CONFUSION_HEADINGS,
            "origin": [clean(sentence) for sentence in related.origin],
            "decisions": decisions.make_decision_views(related.decisions),
            "folds": None if related.folds is None else validation.make_folds_view(related.folds),
            "learning_curves": [validation.make_curve_view(each, index) for index, each in enumerate(related.curves)],
            "artefacts": artefacts.make_artefact_rows(related.artefacts, related.model_sha256),
            "artefacts_head": artefacts.ARTEFACT_HEADINGS,
            "comparisons": artefacts.describe_comparisons(related.artefacts),
            "compared_on": _describe_compared_rows(related.artefacts),
            "costs": artefacts.make_cost_rows(related.costs),
            "costs_head": artefacts.COST_HEADINGS,
            "explanation": None
            if related.explanation is None
            else make_explanation_view(related.explanation, data.prepared, data.raw),
            "explanation_heads": {
                "shares": SHARE_HEADINGS,
                "sanity": SANITY_HEADINGS,
                "layers": LAYER_HEADINGS,
                "neighbours": NEIGHBOUR_HEADINGS,
            },
            "environment": [
                Row((Cell(clean(name)), Cell(clean(_format_setting(value)))))
                for name, value in data.environment.items()
            ],
        },
    )


_STOP_REASONS = {
    "epochs": "all epochs were completed",
    "patience": "early stopping, since the metric no longer improved",
    "overfit": "the validation loss increased while the training loss decreased",
    "steps": "the limit of steps was reached",
    "time": "the time limit was reached",
    "metric": "the metric passed its threshold",
    "callback": "a callback stopped it",
}
"""Descriptions of the stop reasons of trainings."""


def _describe_interval_methods(intervals: Mapping[str, Interval]) -> list[str]:
    """Describe the method of each metric's interval, the most common one for all others."""
    names_by_method: dict[str, list[str]] = {}
    for name, each in intervals.items():
        names_by_method.setdefault(f"{each.percent}, {each.method}", []).append(clean(name))
    ordered = sorted(names_by_method.items(), key=lambda item: len(item[1]))
    descriptions = [f"{', '.join(names)}: {method}" for method, names in ordered[:-1]]
    return [*descriptions, *(f"all others: {method}" if descriptions else method for method, _ in ordered[-1:])]


def _describe_compared_rows(summaries: Sequence[ArtefactSummary]) -> str:
    """Describe the rows on which artefacts were compared with the model."""
    return clean("; ".join(sorted({f"{each.samples:,} {each.split} rows" for each in summaries})))


def _list_facts(data: RunReportData) -> Iterator[Fact]:
    """Yield the headline numbers."""
    metrics, has_several = data.evaluation.metrics, len(data.spec.outputs) > 1
    for name in validation.select_headlines(list(metrics), 6 if has_several else 4):
        yield Fact(clean(name), format_number(metrics[name]), _describe_context(data, name))
    status = data.status
    if "seconds" in status:
        note = f"weights of epoch {status.get('selected_epoch')} of {status.get('epochs')}"
        yield Fact("training time", format_duration(status["seconds"]), note)
    yield Fact("parameters", f"{data.parameters:,}", f"model file: {format_number(data.size / 1e6)} MB")


def _describe_context(data: RunReportData, name: str) -> str:
    """Describe the interval of a metric, and its value for the best constant prediction."""
    interval = data.evaluation.intervals.get(name)
    if interval is None:
        bounds = "no confidence interval"
    else:
        bounds = f"{interval.percent} interval {format_number(interval.low)} to {format_number(interval.high)}"
    baseline = next((each for each in data.evaluation.baselines if each.metric == name), None)
    if baseline is None:
        return bounds
    return f"{bounds}; {clean(baseline.prediction)} gives {format_number(baseline.metrics[name])}"


_MAX_COLUMNS = 300
_COLUMN_HEADINGS = [
    Heading("column"), Heading("role"), Heading("kind"), Heading("content"), Heading("missing", True),
    Heading("unreadable", True),
]  # fmt: skip


def _list_columns(spec: DataSpec) -> Iterator[tuple[str, Column]]:
    yield from (("target", column) for column in spec.targets)
    yield from (("learned", column) for column in spec.derived)
    yield from (("input", column) for column in spec.inputs)


def _iterate_column_rows(data: RunReportData) -> Iterator[Row]:
    """Yield a row for each of the first columns."""
    columns = list(_list_columns(data.spec))
    for role, column in columns[:_MAX_COLUMNS]:
        yield _make_column_row(data, role, column)
    if left_out := columns[_MAX_COLUMNS:]:
        note = f"{len(left_out):,} more inputs are not shown; data.json in the run directory has all."
        yield Row(
            (Cell("…"), Cell("input"), Cell(""), Cell(note, "long"), Cell("", "number", ""), make_number_cell(None))
        )


def _make_column_row(data: RunReportData, role: str, column: Column) -> Row:
    cells = (
        Cell(clean(column.name)),
        Cell(role),
        Cell(column.kind),
        Cell(_describe_input(data, column) if role == "input" else _describe_target(data, column), "long"),
        _make_missing_cell(data, column.name),
        make_number_cell(data.spec.invalid_cells.get(column.name)),
    )
    return Row(cells)


def _describe_input(data: RunReportData, column: Column) -> str:
    """Describe the cells of an input: by its kind, or by the range of its numbers."""
    summary = input_kinds.get_traits(column).summarize()
    if summary is not None:
        return summary
    return data.raw.describe_numbers(column.name) or f"{_format_shape(column.shape)} numbers"


def _describe_target(data: RunReportData, column: Column) -> str:
    """Describe the values of a target."""
    if names := data.spec.output(column.name).names:
        return f"{len(names)} classes: {listed(names, 6)}"
    return f"{_format_shape(column.shape)} numbers"


def _format_shape(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape)) or "single"


def _make_missing_cell(data: RunReportData, name: str) -> Cell:
    if name not in data.raw.columns:
        return Cell("", "number", "")
    missing, rows = sum(data.raw.count_missing(name).values()), sum(data.spec.counts.values())
    return Cell(f"{missing:,} ({100 * missing / rows:.1f} %)" if missing else "0", "number", str(missing))


def _draw_target_distributions(data: RunReportData) -> Iterator[tuple[str, Markup]]:
    """Draw the distribution of each target in the splits."""
    splits = [split for split in SPLITS if data.spec.counts[split]]
    for index, (name, answers) in enumerate(data.answers.items()):
        drawn = {split: answers.get_distribution(answers.read_truth(data.prepared.split(split))) for split in splits}
        distributions = {split: each for split, each in drawn.items() if each is not None}
        if not distributions:
            continue
        names, figure_id = next(iter(distributions.values())).names, f"distribution-{index}"
        values = {split: each.values for split, each in distributions.items()}
        if names:
            counts = {split: [int(count) for count in values_of_split] for split, values_of_split in values.items()}
            yield clean(name), run_figures.draw_classes(name, counts, names, figure_id)
        else:
            yield clean(name), run_figures.draw_histogram(name, values, figure_id)


@dataclass(frozen=True)
class _SampleRows:
    """A sample of the training rows, as a table or as pictures."""

    head: list[Heading]
    rows: list[Row]
    pictures: list[CaptionedPicture]


def _sample_rows(data: RunReportData) -> _SampleRows:
    """Sample training rows, evenly spread, with their targets."""
    split, spec = data.prepared.split("train"), data.spec
    rows = np.unique(np.linspace(0, len(split) - 1, EXAMPLES).astype(int))
    target_texts = []
    for answers in data.answers.values():
        values = answers.read_truth(split, rows)
        target_texts.append([clean(answers.format_value(value)) for value in values])
    image = _find_picture(spec)
    if image is not None:
        drawn = (_encode_picture(image, split.inputs[image.name][row]) for row in rows)
        titles = zip(*target_texts, strict=True)
        return _SampleRows(
            [], [], [CaptionedPicture(at, ", ".join(t), "", True) for at, t in zip(drawn, titles, strict=True)]
        )
    names = [column.name for column in spec.inputs if column.name in data.raw.columns][:EXAMPLE_COLUMNS]
    cells = [data.raw.cells(name, "train", rows) for name in names]
    head = [Heading(clean(name)) for name in (*data.answers, *names)]
    cells_by_row = zip(
        zip(*target_texts, strict=True), zip(*cells, strict=True) if cells else [()] * len(rows), strict=True
    )
    return _SampleRows(
        head, [Row((*map(Cell, targets), *map(_make_example_cell, inputs))) for targets, inputs in cells_by_row], []
    )


def _find_picture(spec: DataSpec) -> Column | None:
    """Find the first input that is shown as a picture."""
    return next((each for each in spec.inputs if input_kinds.get_traits(each).display == "picture"), None)


def _encode_picture(column: Column, values: np.ndarray) -> str:
    """Encode a picture as a `data:` URL."""
    return pixels.encode_data_url(input_kinds.get_traits(column).draw(np.asarray(values)))


def _list_evaluated(data: RunReportData) -> list[str]:
    evaluations = data.evaluations
    return [
        split
        for split in evaluations
        if isinstance(evaluations[split], dict) and isinstance(evaluations[split].get("metrics"), dict)
    ]


def _make_metric_rows(data: RunReportData) -> list[Row]:
    """Make a row for each metric, with a cell for each split or file that the run was evaluated on."""
    metrics_by_split = {split: data.evaluations[split]["metrics"] for split in _list_evaluated(data)}
    names = dict.fromkeys(name for metrics in metrics_by_split.values() for name in metrics)
    intervals_by_split = {split: data.evaluations[split].get("intervals", {}) for split in metrics_by_split}

    def cell(split: str, name: str) -> Cell:
        interval = intervals_by_split[split].get(name)
        return groups.make_interval_cell(
            metrics_by_split[split].get(name), Interval.from_json(interval) if interval else None
        )

    return [Row((Cell(clean(name)), *(cell(split, name) for split in metrics_by_split))) for name in names]


@dataclass(frozen=True)
class _TargetView:
    """The results for one target, for the template.

    Args:
        confusion_rows: The most frequent confusions, where there are too many classes for a figure.
        figures: Titles and figures, side by side.
        tables: Titles, headings and rows of the tables among the figures.
        calibration: The result of the calibration, as text.
        lists: Titles, descriptions, and examples as rows and as pictures.
    """

    name: str
    confusion: Markup | None
    confusion_rows: list[Row]
    figures: list[tuple[str, Markup]]
    tables: list[tuple[str, list[Heading], list[Row]]]
    per_class: list[Row]
    calibration: str
    lists: list[tuple[str, str, list[Row], list[CaptionedPicture]]]
    head: list[Heading]


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with its true class and prediction."""

    address: str
    title: str
    caption: str
    is_correct: bool


def _make_target_view(data: RunReportData, answers: Answers, index: int) -> _TargetView:
    name, evaluation, classes = answers.name, data.evaluation, answers.output.names
    truth, predictions = data.predicted_rows.truth[name], data.predicted_rows.predictions[name]
    matrix, rows = evaluation.confusion.get(name), evaluation.per_class.get(name, ())
    calibration = evaluation.calibration.get(name)
    confusion = run_figures.draw_confusion(name, matrix, classes, f"confusion-{index}") if matrix else None
    listed_figures = answers.list_figures(truth, predictions, calibration)
    return _TargetView(
        clean(name),
        confusion,
        _make_confusion_rows(classes, np.array(matrix)) if matrix and confusion is None else [],
        [
            (clean(each.title), run_figures.draw_answer_figure(each, f"figure-{index}-{number}"))
            for number, each in enumerate(listed_figures)
            if not isinstance(each, Table)
        ],
        [_make_table(each) for each in listed_figures if isinstance(each, Table)],
        [make_class_row(row) for row in rows],
        clean(calibration.summary) if calibration else "",
        _make_example_lists(data, answers, truth, predictions),
        _make_example_headings(data, answers, predictions),
    )


def _make_table(table: Table) -> tuple[str, list[Heading], list[Row]]:
    """Make a table of the answers; a column of numbers is aligned to the right."""
    first = table.rows[0] if table.rows else ("",) * len(table.head)
    headings = [Heading(clean(name), not isinstance(cell, str)) for name, cell in zip(table.head, first, strict=True)]
    rows = [
        Row(tuple(Cell(clean(cell)) if isinstance(cell, str) else make_number_cell(cell) for cell in row))
        for row in table.rows
    ]
    return clean(table.title), headings, rows


PER_CLASS_HEADINGS = [
    Heading("class"), Heading("rows", True), Heading("precision", True), Heading("recall", True), Heading("F1", True),
    Heading("ROC AUC", True), Heading("average precision", True),
]  # fmt: skip
CONFUSION_HEADINGS = [Heading("true"), Heading("predicted"), Heading("rows", True)]


def make_class_row(row: ClassMetrics) -> Row:
    """Make the row of a class, with intervals of precision and recall."""
    hits = 0 if row.recall is None else round(row.recall * row.support)
    predicted_rows = round(hits / row.precision) if row.precision else 0
    shares = (_make_share_cell(row.precision, hits, predicted_rows), _make_share_cell(row.recall, hits, row.support))
    other_cells = (make_number_cell(each) for each in (row.f1, row.roc_auc, row.pr_auc))
    return Row((Cell(clean(row.name)), make_number_cell(row.support), *shares, *other_cells))


def _make_share_cell(value: float | None, hits: int, rows: int) -> Cell:
    return groups.make_interval_cell(value, compute_wilson_interval(hits, rows) if rows and value is not None else None)


def _make_confusion_rows(classes: Sequence[str], counts: np.ndarray) -> list[Row]:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:15]
    pairs = [divmod(int(at), len(counts)) for at in order if wrong.flat[at]]
    return [
        Row((Cell(clean(classes[a])), Cell(clean(classes[b])), make_number_cell(int(wrong[a, b])))) for a, b in pairs
    ]


def _make_example_lists(
    data: RunReportData, answers: Answers, truth: np.ndarray, predictions: np.ndarray
) -> list[tuple[str, str, list[Row], list[CaptionedPicture]]]:
    """Make the lists of wrong, least confident and correct examples."""
    examples, titles = find_examples(answers, truth, predictions, EXAMPLES), answers.example_titles
    sections = (
        (titles.wrong, titles.order, examples.wrong),
        ("Least confident", "Predictions with the smallest margin, correct or not.", examples.least_confident),
        (titles.correct, "", examples.correct),
    )
    return [
        (title, meaning, *_make_examples(data, answers, np.array(rows), truth, predictions))
        for title, meaning, rows in sections
        if rows
    ]


def _make_example_headings(data: RunReportData, answers: Answers, predictions: np.ndarray) -> list[Heading]:
    has_confidence = answers.compute_confidence(predictions[:1]) is not None
    return [
        Heading("true"),
        Heading("predicted"),
        *([Heading("probability", True)] if has_confidence else []),
        *(Heading(clean(name)) for name in _list_example_columns(data)),
    ]


def _list_example_columns(data: RunReportData) -> list[str]:
    names = [column.name for column in data.spec.inputs if column.name in data.raw.columns]
    return names[:EXAMPLE_COLUMNS] if data.predicted_rows.name in SPLITS else []


def _make_examples(
    data: RunReportData, answers: Answers, rows: np.ndarray, truth: np.ndarray, predictions: np.ndarray
) -> tuple[list[Row], list[CaptionedPicture]]:
    """Make examples as rows of a table, or as pictures if an input is a picture."""
    points, probabilities = answers.predict_points(predictions), answers.compute_confidence(predictions)
    texts = [(answers.format_value(truth[i]), answers.format_value(points[i])) for i in rows]
    is_correct = [probabilities is not None and true == predicted for true, predicted in texts]
    image = _find_picture(data.spec)
    if image is not None:
        return [], [
            CaptionedPicture(
                _encode_picture(image, data.predicted_rows.rows.inputs[image.name][i]),
                clean(true_text),
                _format_prediction(predicted_text, correct, None if probabilities is None else float(probabilities[i])),
                true_text == predicted_text,
            )
            for i, (true_text, predicted_text), correct in zip(rows, texts, is_correct, strict=True)
        ]
    cells = [data.raw.cells(name, data.predicted_rows.name, rows) for name in _list_example_columns(data)]
    return [
        Row(
            (
                Cell(clean(true_text)),
                Cell(clean(predicted_text), "" if correct or probabilities is None else "failed"),
                *([] if probabilities is None else [_make_probability_cell(float(probabilities[i]))]),
                *(_make_example_cell(column_cells[at]) for column_cells in cells),
            )
        )
        for at, (i, (true_text, predicted_text), correct) in enumerate(zip(rows, texts, is_correct, strict=True))
    ], []


def _make_probability_cell(probability: float) -> Cell:
    return make_number_cell(probability, f"{probability:.3f}")


def _format_prediction(predicted_text: str, is_correct: bool, probability: float | None) -> str:
    """Format the caption of a picture, below its true class."""
    probable = "" if probability is None else f" {probability:.2f}"
    return f"correct{probable}" if is_correct else f"predicted {clean(predicted_text)}{probable}"


def _make_example_cell(cell: str) -> Cell:
    text = clean(cell)
    text = text if len(text) <= MAX_CELL_LENGTH else f"{text[: MAX_CELL_LENGTH - 1]}…"
    return Cell(text, "long" if len(text) > 40 else "")


def _format_setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
