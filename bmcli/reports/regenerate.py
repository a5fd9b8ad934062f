"""The page of a cross-validation or of a learning curve, which train a recipe anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.evaluation.folds import CrossValidationResult
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.result import Evaluation
from bmcli.printable import clean
from bmcli.reports import groups, run_figures
from bmcli.reports.page import Fact, Row, format_number, render_page
from bmcli.reports.run import PER_CLASS_HEADINGS, make_class_row
from bmcli.reports.validation import make_curve_view, make_folds_view, select_headlines

if TYPE_CHECKING:
    from markupsafe import Markup


def render_folds(name: str, folder: str, written: str, folds: CrossValidationResult) -> str:
    """The page of a cross-validation.

    Args:
        name: Of the recipe.
        folder: Where it is kept, as a user would write it.
        written: The recipe.
    """
    together = folds.together
    return render_page("folds.html", {
        **_make_page_values(f"{name}, cross-validated", folder, written),
        "facts": list(_list_facts(folds)),
        "folds": make_folds_view(folds),
        "targets": list(_list_target_views(together)),
        "tables": [*groups.make_slice_tables(together.slices), *groups.make_fairness_tables(together.fairness)],
    })  # fmt: skip


def render_learning_curves(name: str, folder: str, written: str, curves_by_target: Sequence[LearningCurve]) -> str:
    """The page of the learning curves of a recipe's targets; arguments as of `render_folds`."""
    curves = [make_curve_view(each, place) for place, each in enumerate(curves_by_target)]
    return render_page(
        "folds.html", {**_make_page_values(f"{name}, learning curve", folder, written), "curves": curves}
    )


def _make_page_values(title: str, folder: str, written: str) -> dict[str, object]:
    empty = {
        "facts": [],
        "folds": None,
        "curves": [],
        "targets": [],
        "tables": [],
        "per_class_head": PER_CLASS_HEADINGS,
    }
    return {**empty, "title": clean(title), "folder": clean(folder), "written": written}


def _list_facts(folds: CrossValidationResult) -> Iterator[Fact]:
    for name in select_headlines(list(folds.means), 4):
        mean = folds.means[name]
        low, high, spread = map(format_number, (mean.low, mean.high, mean.spread))
        told = f"mean of {mean.folds} folds, {low} to {high}; spread {spread}"
        yield Fact(clean(name), format_number(mean.mean), told)


@dataclass(frozen=True)
class _FoldTargetView:
    name: str
    confusion: Markup | None
    reliability: Markup | None
    calibrated: str
    per_class: list[Row]


def _list_target_views(together: Evaluation) -> Iterator[_FoldTargetView]:
    """Targets of classes or labels, as all tested rows show them."""
    for place, (name, rows) in enumerate(together.per_class.items()):
        matrix, found = together.confusion.get(name), together.calibration.get(name)
        classes = [row.name for row in rows]
        yield _FoldTargetView(
            clean(name),
            run_figures.draw_confusion(name, matrix, classes, f"confusion-{place}") if matrix else None,
            run_figures.draw_reliability(found, f"reliability-{place}") if found else None,
            clean(found.summary) if found else "",
            [make_class_row(row) for row in rows],
        )
