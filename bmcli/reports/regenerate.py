"""Pages of cross-validations and learning curves, which retrain a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.answers.figures import make_reliability_diagram
from bmcli.evaluation.folds import CrossValidationResult
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.calibration import Calibration
from bmcli.printable import clean
from bmcli.reports import groups, run_figures
from bmcli.reports.page import Fact, Row, format_number, render_page
from bmcli.reports.run import PER_CLASS_HEADINGS, make_class_row
from bmcli.reports.validation import make_curve_view, make_folds_view, select_headlines

if TYPE_CHECKING:
    from markupsafe import Markup


def render_folds(name: str, folder: str, recipe_text: str, folds: CrossValidationResult) -> str:
    """Render the page of a cross-validation.

    Args:
        name: Of the recipe.
        folder: Directory of the results, for display.
        recipe_text: The resolved recipe.
    """
    pooled = folds.pooled
    return render_page("folds.html", {
        **_make_page_values(f"Cross-validation of {name}", folder, recipe_text),
        "facts": list(_list_facts(folds)),
        "folds": make_folds_view(folds),
        "targets": list(_list_target_views(pooled)),
        "tables": [*groups.make_slice_tables(pooled.slices), *groups.make_fairness_tables(pooled.fairness)],
    })  # fmt: skip


def render_learning_curves(name: str, folder: str, recipe_text: str, curves_by_target: Sequence[LearningCurve]) -> str:
    """Render the page of the learning curves of a recipe's targets; arguments as for `render_folds`."""
    curves = [make_curve_view(each, index) for index, each in enumerate(curves_by_target)]
    return render_page(
        "folds.html", {**_make_page_values(f"Learning curve of {name}", folder, recipe_text), "curves": curves}
    )


def _make_page_values(title: str, folder: str, recipe_text: str) -> dict[str, object]:
    defaults = {
        "facts": [],
        "folds": None,
        "curves": [],
        "targets": [],
        "tables": [],
        "per_class_head": PER_CLASS_HEADINGS,
    }
    return {**defaults, "title": clean(title), "folder": clean(folder), "recipe": recipe_text}


def _list_facts(folds: CrossValidationResult) -> Iterator[Fact]:
    for name in select_headlines(list(folds.means), 4):
        mean = folds.means[name]
        low, high, deviation = map(format_number, (mean.low, mean.high, mean.standard_deviation))
        note = f"mean of {mean.folds} folds, 95 % interval {low} to {high}; standard deviation {deviation}"
        yield Fact(clean(name), format_number(mean.mean), note)


@dataclass(frozen=True)
class _FoldTargetView:
    name: str
    confusion: Markup | None
    reliability: Markup | None
    calibration: str
    per_class: list[Row]


def _list_target_views(pooled: Evaluation) -> Iterator[_FoldTargetView]:
    """Make the views of targets with classes or labels, from all out-of-fold predictions."""
    for index, (name, rows) in enumerate(pooled.per_class.items()):
        matrix, calibration = pooled.confusion.get(name), pooled.calibration.get(name)
        classes = [row.name for row in rows]
        yield _FoldTargetView(
            clean(name),
            run_figures.draw_confusion(name, matrix, classes, f"confusion-{index}") if matrix else None,
            _draw_reliability(calibration, f"reliability-{index}"),
            clean(calibration.summary) if calibration else "",
            [make_class_row(row) for row in rows],
        )


def _draw_reliability(calibration: Calibration | None, figure_id: str) -> Markup | None:
    if calibration is None:
        return None
    return run_figures.draw_answer_figure(make_reliability_diagram(calibration), figure_id)
