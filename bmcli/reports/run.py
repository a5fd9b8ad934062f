"""The report of a run: what was asked, what it was trained on, how well it does, and on what it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bmcli.console import clean
from bmcli.data import targets as target_kinds
from bmcli.data.raw_rows import RawRows
from bmcli.evaluation import predictions as judgements
from bmcli.evaluation.calibration import Calibration
from bmcli.evaluation.decisions import Decision
from bmcli.evaluation.explanation_record import Explanation
from bmcli.evaluation.folds import Folds
from bmcli.evaluation.intervals import wilson
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.predictions import Judged
from bmcli.evaluation.proportions import Interval
from bmcli.evaluation.ranking_curves import rankings
from bmcli.evaluation.result import ClassRow, Evaluation
from bmcli.quoting import LONGEST, brief, listed
from bmcli.reports import artefacts, decisions, groups, pixels, run_figures, validation
from bmcli.reports import explanation as explanations
from bmcli.reports.artefacts import Artefact
from bmcli.reports.costs import Cost
from bmcli.reports.page import Cell, Fact, Heading, Row, duration, number, number_cell, page
from bmcli.specs import SPLITS, Column, DataSpec, Prepared

if TYPE_CHECKING:
    from markupsafe import Markup

EXAMPLES, COLUMNS_OF_EXAMPLES, LONGEST_CELL = 6, 8, 160


@dataclass(frozen=True)
class Beside:
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
    folds: Folds | None = None
    curves: tuple[LearningCurve, ...] = ()
    explanation: Explanation | None = None
    artefacts: tuple[Artefact, ...] = ()
    costs: tuple[Cost, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Material:
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
        judged: What is shown in detail.
        evaluation: Of the same rows.
        quantiles: Which ones are predicted, by target.
        beside: What other commands found.
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
    prepared: Prepared
    raw: RawRows
    judged: Judged
    evaluation: Evaluation
    quantiles: Mapping[str, tuple[float, ...]]
    beside: Beside = Beside()

    @property
    def spec(self) -> DataSpec:
        return self.prepared.spec


def report(material: Material) -> str:
    """The page as HTML, one file that needs nothing else."""
    beside = material.beside
    return page(
        "run.html",
        {
            "material": material,
            "spec": material.spec,
            "facts": list(_facts(material)),
            "columns_head": _COLUMNS_HEAD,
            "columns": list(_column_rows(material)),
            "spread": list(_spread(material)),
            "some": _some_rows(material),
            "curves": run_figures.curves(material.epochs, material.status.get("selected_epoch")),
            "metrics_head": [Heading("metric"), *(Heading(clean(on), True) for on in _measured(material))],
            "metrics": _metrics(material),
            "targets": [_target(material, column, place) for place, column in enumerate(material.spec.targets)],
            "methods": _methods(material.evaluation.intervals),
            "tables": [*groups.slices(material.evaluation.slices), *groups.fairness(material.evaluation.fairness)],
            "per_class_head": PER_CLASS_HEAD,
            "confused_head": CONFUSED_HEAD,
            "origin": [clean(told) for told in beside.origin],
            "decisions": decisions.shown(beside.decisions),
            "folds": None if beside.folds is None else validation.shown_folds(beside.folds),
            "learning": [validation.shown_curve(each, place) for place, each in enumerate(beside.curves)],
            "artefacts": artefacts.rows(beside.artefacts, beside.model),
            "artefacts_head": artefacts.HEAD,
            "compared_on": _compared_on(beside.artefacts),
            "costs": artefacts.cost_rows(beside.costs),
            "costs_head": artefacts.COSTS_HEAD,
            "explanation": None
            if beside.explanation is None
            else explanations.shown(beside.explanation, material.prepared, material.raw),
            "explanation_heads": {
                "shares": explanations.SHARES_HEAD,
                "sanity": explanations.SANITY_HEAD,
                "layers": explanations.LAYERS_HEAD,
                "neighbours": explanations.NEIGHBOURS_HEAD,
            },
            "environment": [
                Row((Cell(clean(name)), Cell(clean(_plain(value))))) for name, value in material.environment.items()
            ],
        },
    )


def _methods(found: Mapping[str, Interval]) -> list[str]:
    """How intervals were made, each method with its metrics, the most common one for all others."""
    of: dict[str, list[str]] = {}
    for name, each in found.items():
        of.setdefault(f"{each.percent}, {each.method}", []).append(clean(name))
    ordered = sorted(of.items(), key=lambda item: len(item[1]))
    told = [f"{', '.join(names)}: {method}" for method, names in ordered[:-1]]
    return [*told, *(f"all others: {method}" if told else method for method, _ in ordered[-1:])]


def _compared_on(found: Sequence[Artefact]) -> str:
    """The rows that artefacts were compared with the model on, in words."""
    return clean("; ".join(sorted({f"{each.samples:,} {each.split} rows" for each in found})))


def _facts(material: Material) -> Iterator[Fact]:
    """The figures to see first."""
    found, prefixed = material.evaluation.metrics, len(material.spec.targets) > 1
    for name in validation.headlines(list(found), 6 if prefixed else 4):
        yield Fact(clean(name), number(found[name]), _beside(material, name))
    status = material.status
    if "seconds" in status:
        kept = f"epoch {status.get('selected_epoch')} of {status.get('epochs')} kept"
        yield Fact("training", duration(status["seconds"]), kept)
    yield Fact("parameters", f"{material.parameters:,}", f"{number(material.size / 1e6)} MB saved")


def _beside(material: Material, name: str) -> str:
    """Where the true value of a figure lies, and what it is to be compared with."""
    interval = material.evaluation.intervals.get(name)
    around = f"{number(interval.low)} to {number(interval.high)}" if interval else ""
    target = material.spec.targets[0]
    if name != "accuracy" or target.kind not in ("category", "ordered"):
        return around
    counts = np.bincount(material.judged.truth[target.name], minlength=len(target.classes))
    usual = brief(target.classes[counts.argmax()], LONGEST)
    return f"{around}; always “{usual}” would reach {number(counts.max() / counts.sum())}"


_MOST_COLUMNS = 300
_COLUMNS_HEAD = [
    Heading("column"), Heading("role"), Heading("kind"), Heading("what it holds"), Heading("missing", True),
    Heading("unreadable", True),
]  # fmt: skip


def _columns(spec: DataSpec) -> Iterator[tuple[str, Column]]:
    yield from (("target", column) for column in spec.targets)
    yield from (("input", column) for column in spec.inputs)


def _column_rows(material: Material) -> Iterator[Row]:
    """A row for each column, of very many the first."""
    columns = list(_columns(material.spec))
    for role, column in columns[:_MOST_COLUMNS]:
        yield _column_row(material, role, column)
    if left_out := columns[_MOST_COLUMNS:]:
        told = f"{len(left_out):,} more inputs are left out here; data.json in the run tells of all."
        yield Row((Cell("…"), Cell("input"), Cell(""), Cell(told, "long"), Cell("", "number", ""), number_cell(None)))


def _column_row(material: Material, role: str, column: Column) -> Row:
    cells = (
        Cell(clean(column.name)),
        Cell(role),
        Cell(column.kind),
        Cell(_held(material, column), "long"),
        _missing(material, column.name),
        number_cell(material.spec.invalid.get(column.name)),
    )
    return Row(cells)


def _held(material: Material, column: Column) -> str:
    """What the cells of a column are like, in words."""
    if column.classes:
        return f"{len(column.classes)} classes: {listed(column.classes, 6)}"
    if column.kind == "boolean":
        return f"yes in {100 * column.state['fill']:.1f} % of the training rows"
    if column.kind == "text":
        unit = "different terms" if column.state["bag"] else "terms"
        return f"{len(column.state['vocabulary']):,} terms known, the first {column.state['length']} {unit} of a text"
    if column.kind == "image":
        return f"{_sizes(column.shape)} pixels"
    span = material.raw.span(column.name) if column.kind == "number" else None
    if span is not None:
        low, mean, high = map(number, span)
        return f"{low} to {high}, mean {mean}"
    return f"{_sizes(column.shape)} numbers" if column.kind in ("number", "count") else ""


def _sizes(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape)) or "single"


def _missing(material: Material, name: str) -> Cell:
    if name not in material.raw.columns:
        return Cell("", "number", "")
    gone, rows = sum(material.raw.missing(name).values()), sum(material.spec.counts.values())
    return Cell(f"{gone:,} ({100 * gone / rows:.1f} %)" if gone else "0", "number", str(gone))


def _spread(material: Material) -> Iterator[tuple[str, Markup]]:
    """How each target is spread in the splits."""
    for place, column in enumerate(material.spec.targets):
        decode = target_kinds.kind_of(column).decode
        splits = [split for split in SPLITS if material.spec.counts[split]]
        values = {split: decode(material.prepared.split(split).targets[column.name], column) for split in splits}
        name, drawn = clean(column.name), f"spread-{place}"
        if not column.classes:
            yield name, run_figures.histogram(column.name, values, drawn)
        else:
            counts = {split: _counted(column, own) for split, own in values.items()}
            yield name, run_figures.classes(column.name, counts, column.classes, drawn)


def _counted(column: Column, values: np.ndarray) -> list[int]:
    own = values.sum(axis=0) if values.ndim == 2 else np.bincount(values, minlength=len(column.classes))
    return [int(count) for count in own]


@dataclass(frozen=True)
class _Some:
    """Some training rows, as a table or as pictures."""

    head: list[Heading]
    rows: list[Row]
    pictures: list[Shown]


def _some_rows(material: Material) -> _Some:
    """Training rows from the first to the last, with what is to be told of them."""
    split, spec = material.prepared.split("train"), material.spec
    rows = np.unique(np.linspace(0, len(split) - 1, EXAMPLES).astype(int))
    told = []
    for column in spec.targets:
        values = target_kinds.kind_of(column).decode(split.targets[column.name][rows], column)
        told.append([clean(judgements.told(column, value)) for value in values])
    image = next((each for each in spec.inputs if each.kind == "image"), None)
    if image is not None:
        drawn = (_picture(image, split.inputs[image.name][row]) for row in rows)
        titles = zip(*told, strict=True)
        return _Some([], [], [Shown(at, ", ".join(t), "", True) for at, t in zip(drawn, titles, strict=True)])
    names = [column.name for column in spec.inputs if column.name in material.raw.columns][:COLUMNS_OF_EXAMPLES]
    cells = [material.raw.cells(name, "train", rows) for name in names]
    head = [Heading(clean(name)) for name in (*(column.name for column in spec.targets), *names)]
    of_rows = zip(zip(*told, strict=True), zip(*cells, strict=True) if cells else [()] * len(rows), strict=True)
    return _Some(head, [Row((*map(Cell, of_it), *map(_example_cell, given))) for of_it, given in of_rows], [])


def _picture(column: Column, values: np.ndarray) -> str:
    """The address of an encoded picture."""
    span = (float(column.state["range"][0]), float(column.state["range"][1]))
    return pixels.address(pixels.scaled(np.asarray(values), span))


def _measured(material: Material) -> list[str]:
    found = material.evaluations
    return [on for on in found if isinstance(found[on], dict) and isinstance(found[on].get("metrics"), dict)]


def _metrics(material: Material) -> list[Row]:
    """Every metric on everything that the run was measured on."""
    found = {on: material.evaluations[on]["metrics"] for on in _measured(material)}
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    around = {on: material.evaluations[on].get("intervals", {}) for on in found}

    def cell(on: str, name: str) -> Cell:
        interval = around[on].get(name)
        return groups.with_interval(found[on].get(name), Interval.from_json(interval) if interval else None)

    return [Row((Cell(clean(name)), *(cell(on, name) for on in found))) for name in names]


@dataclass(frozen=True)
class _Target:
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
    lists: list[tuple[str, str, list[Row], list[Shown]]]
    head: list[Heading]


@dataclass(frozen=True)
class Shown:
    """A picture with what is told of it."""

    address: str
    title: str
    told: str
    good: bool


def _target(material: Material, column: Column, place: int) -> _Target:
    truth, predictions = material.judged.truth[column.name], material.judged.predictions[column.name]
    evaluation = material.evaluation
    matrix, rows = evaluation.confusion.get(column.name), evaluation.per_class.get(column.name, ())
    found = evaluation.calibration.get(column.name)
    drawn = run_figures.confusion(column.name, matrix, column.classes, f"confusion-{place}") if matrix else None
    return _Target(
        clean(column.name),
        drawn,
        _most_confused(column, np.array(matrix)) if matrix and drawn is None else [],
        _figures(material, column, truth, predictions, place, found),
        [class_row(row) for row in rows],
        clean(found.words) if found else "",
        _lists(material, column, truth, predictions),
        _examples_head(material, column),
    )


PER_CLASS_HEAD = [
    Heading("class"), Heading("rows", True), Heading("precision", True), Heading("recall", True), Heading("F1", True),
    Heading("ROC AUC", True), Heading("average precision", True),
]  # fmt: skip
CONFUSED_HEAD = [Heading("true"), Heading("predicted"), Heading("rows", True)]


def class_row(row: ClassRow) -> Row:
    """A class, with the intervals of the two figures that are shares of rows."""
    hits = 0 if row.recall is None else round(row.recall * row.support)
    guesses = round(hits / row.precision) if row.precision else 0
    shares = (_share(row.precision, hits, guesses), _share(row.recall, hits, row.support))
    others = (number_cell(each) for each in (row.f1, row.roc_auc, row.pr_auc))
    return Row((Cell(clean(row.name)), number_cell(row.support), *shares, *others))


def _share(value: float | None, hits: int, rows: int) -> Cell:
    return groups.with_interval(value, wilson(hits, rows) if rows and value is not None else None)


def _most_confused(column: Column, counts: np.ndarray) -> list[Row]:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:15]
    pairs = [divmod(int(at), len(counts)) for at in order if wrong.flat[at]]
    return [
        Row((Cell(clean(column.classes[a])), Cell(clean(column.classes[b])), number_cell(int(wrong[a, b]))))
        for a, b in pairs
    ]


def _figures(
    material: Material,
    column: Column,
    truth: np.ndarray,
    predictions: np.ndarray,
    place: int,
    calibrated: Calibration | None,
) -> list[tuple[str, Markup]]:
    if not column.classes:
        point = judgements.points(column, predictions, material.quantiles.get(column.name, ()))
        return [
            ("Predicted and true", run_figures.predicted(column.name, truth, point, f"predicted-{place}")),
            ("Errors", run_figures.errors(column.name, truth, point, f"errors-{place}")),
        ]
    ranked = sorted(rankings(column, truth, predictions), key=lambda each: each.roc_auc)[: run_figures.MOST_CURVES]
    if not ranked:
        return []
    few = " of the hardest classes" if len(column.classes) > len(ranked) > 1 else ""
    return [
        (f"ROC{few}", run_figures.roc(ranked, f"roc-{place}")),
        (f"Precision and recall{few}", run_figures.precision_recall(ranked, f"pr-{place}")),
        *([("Calibration", run_figures.reliability(calibrated, f"reliability-{place}"))] if calibrated else []),
    ]


def _lists(
    material: Material, column: Column, truth: np.ndarray, predictions: np.ndarray
) -> list[tuple[str, str, list[Row], list[Shown]]]:
    """Examples right and wrong."""
    quantiles = material.quantiles.get(column.name, ())
    found = judgements.examples(column, truth, predictions, EXAMPLES, quantiles)
    by_number = not column.classes
    titled = (
        ("Largest errors" if by_number else "Most wrong",
         "The largest differences." if by_number else "Errors whose true class was held for least probable.",
         found.wrong),
        ("Most doubtful", "Where the prediction was least certain, right or wrong.", found.doubtful),
        ("Smallest errors" if by_number else "Surest of the right ones", "", found.right),
    )  # fmt: skip
    point = judgements.points(column, predictions, quantiles)
    sure = judgements.surety(column, predictions)
    lists = []
    for title, meaning, rows in titled:
        if rows:
            chosen = np.array(rows)
            lists.append((title, meaning, *_shown(material, column, chosen, truth, point, sure)))
    return lists


def _examples_head(material: Material, column: Column) -> list[Heading]:
    sure = [Heading("probability", True)] if column.classes else []
    return [Heading("true"), Heading("predicted"), *sure, *(Heading(clean(name)) for name in _told_columns(material))]


def _told_columns(material: Material) -> list[str]:
    names = [column.name for column in material.spec.inputs if column.name in material.raw.columns]
    return names[:COLUMNS_OF_EXAMPLES] if material.judged.on in SPLITS else []


def _shown(
    material: Material, column: Column, rows: np.ndarray, truth: np.ndarray, point: np.ndarray, sure: np.ndarray | None
) -> tuple[list[Row], list[Shown]]:
    """Examples as rows of a table, and as pictures if an input is one."""
    told = [(judgements.told(column, truth[i]), judgements.told(column, point[i])) for i in rows]
    image = next((each for each in material.spec.inputs if each.kind == "image"), None)
    if image is not None:
        return [], [
            Shown(
                _picture(image, material.judged.rows.inputs[image.name][i]),
                clean(was),
                _said(was, said, column, None if sure is None else float(sure[i])),
                was == said,
            )
            for i, (was, said) in zip(rows, told, strict=True)
        ]
    cells = [material.raw.cells(name, material.judged.on, rows) for name in _told_columns(material)]
    return [
        Row(
            (
                Cell(clean(was)),
                Cell(clean(said), "" if was == said or not column.classes else "failed"),
                *([] if sure is None else [number_cell(float(sure[i]), f"{sure[i]:.3f}")]),
                *(_example_cell(column_cells[at]) for column_cells in cells),
            )
        )
        for at, (i, (was, said)) in enumerate(zip(rows, told, strict=True))
    ], []


def _said(was: str, said: str, column: Column, sure: float | None) -> str:
    """What is told below a picture, beside its true class."""
    probable = "" if sure is None else f" {sure:.2f}"
    if column.classes and was == said:
        return f"right{probable}"
    return f"predicted {clean(said)}{probable}"


def _example_cell(cell: str) -> Cell:
    text = clean(cell)
    text = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    return Cell(text, "long" if len(text) > 40 else "")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
