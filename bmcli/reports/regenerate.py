"""The page of a cross-validation or of a learning curve, which train a recipe anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.console import clean
from bmcli.evaluation.folds import Folds
from bmcli.evaluation.learning_curve import LearningCurve
from bmcli.evaluation.result import Evaluation
from bmcli.reports import groups, run_figures
from bmcli.reports.page import Fact, Row, number, page
from bmcli.reports.run import PER_CLASS_HEAD, class_row
from bmcli.reports.validation import headlines, shown_curve, shown_folds

if TYPE_CHECKING:
    from markupsafe import Markup


def of_folds(name: str, folder: str, written: str, found: Folds) -> str:
    """The page of a cross-validation.

    Args:
        name: Of the recipe.
        folder: Where it is kept, as a user would write it.
        written: The recipe.
    """
    together = found.together
    return page("folds.html", {
        **_frame(f"{name}, cross-validated", folder, written),
        "facts": list(_facts(found)),
        "folds": shown_folds(found),
        "targets": list(_targets(together)),
        "tables": [*groups.slices(together.slices), *groups.fairness(together.fairness)],
    })  # fmt: skip


def of_curves(name: str, folder: str, written: str, found: Sequence[LearningCurve]) -> str:
    """The page of the learning curves of a recipe's targets; arguments as of `of_folds`."""
    curves = [shown_curve(each, place) for place, each in enumerate(found)]
    return page("folds.html", {**_frame(f"{name}, learning curve", folder, written), "curves": curves})


def _frame(title: str, folder: str, written: str) -> dict[str, object]:
    empty = {"facts": [], "folds": None, "curves": [], "targets": [], "tables": [], "per_class_head": PER_CLASS_HEAD}
    return {**empty, "title": clean(title), "folder": clean(folder), "written": written}


def _facts(found: Folds) -> Iterator[Fact]:
    for name in headlines(list(found.means), 4):
        mean = found.means[name]
        told = f"mean of {mean.folds} folds, {number(mean.low)} to {number(mean.high)}; spread {number(mean.spread)}"
        yield Fact(clean(name), number(mean.mean), told)


@dataclass(frozen=True)
class _Target:
    name: str
    confusion: Markup | None
    reliability: Markup | None
    calibrated: str
    per_class: list[Row]


def _targets(together: Evaluation) -> Iterator[_Target]:
    """Targets of classes or labels, as all tested rows show them."""
    for place, (name, rows) in enumerate(together.per_class.items()):
        matrix, found = together.confusion.get(name), together.calibration.get(name)
        classes = [row.name for row in rows]
        yield _Target(
            clean(name),
            run_figures.confusion(name, matrix, classes, f"confusion-{place}") if matrix else None,
            run_figures.reliability(found, f"reliability-{place}") if found else None,
            clean(found.words) if found else "",
            [class_row(row) for row in rows],
        )
