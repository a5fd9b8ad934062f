"""Metrics of all outputs, and their names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bmcli.answers import Answers
from bmcli.errors import BmcliError
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.info import MetricInfo
from bmcli.metrics.weighted_metrics import (
    WeightedMetrics,
    join_metrics,
    join_with_prefixes,
    name_row_weighted,
    weight_rows,
)

Arrays = Mapping[str, np.ndarray]


def measure(
    truth: Arrays,
    predictions: Arrays,
    answers: Mapping[str, Answers],
    top_k: int,
    row_weights: np.ndarray | None = None,
) -> Evaluation:
    """Compute every metric of every output.

    Args:
        truth: By output, decoded.
        predictions: By output.
        answers: The outputs to measure, by name.
        top_k: k of the top-k accuracy.
        row_weights: Weights of the rows, `(rows,)`, with which every metric is computed a second time; None without.

    Raises:
        BmcliError: There is no row.
        RunFailed: A prediction is not finite.
        ValueError: An array does not have the shape or range of its output.
    """
    for name, each in answers.items():
        if len(truth[name]) == 0:
            raise BmcliError(
                "the split has no rows to evaluate.",
                path="evaluate.split",
                suggestion="Name a split with rows, or give this one a share in data.split.",
            )
        each.check(truth[name], predictions[name])
    rows = len(next(iter(truth.values())))
    weighted_metrics = make_weighted_metrics(truth, predictions, answers, top_k, row_weights)
    values, reasons = weighted_metrics.measure(rows)
    per_class = {name: each.compute_class_metrics(truth[name], predictions[name]) for name, each in answers.items()}
    confusion = {name: each.count_confusions(truth[name], predictions[name]) for name, each in answers.items()}
    return Evaluation(
        metrics={name: values[name] for name in weighted_metrics.info if name in values},
        per_class={name: table for name, table in per_class.items() if table},
        confusion={name: matrix for name, matrix in confusion.items() if matrix is not None},
        count=rows,
        undefined={name: reasons[name] for name in weighted_metrics.info if name in reasons},
        positive=list_positive_classes(answers),
    )


def list_positive_classes(answers: Mapping[str, Answers]) -> dict[str, str]:
    """List the class that metrics such as precision speak of, by output, where there is one."""
    return {name: each.output.names[each.positive] for name, each in answers.items() if each.positive is not None}


def list_metrics(answers: Mapping[str, Answers], top_k: int, has_row_weights: bool = False) -> dict[str, MetricInfo]:
    """List the names for which `measure` returns a value or a reason, in the order of the outputs."""
    plain = {
        prefix + name: info
        for prefix, each in _add_prefixes(answers)
        for name, info in each.list_metrics(top_k).items()
    }
    return {**plain, **({name_row_weighted(name): info for name, info in plain.items()} if has_row_weights else {})}


def make_weighted_metrics(
    truth: Arrays,
    predictions: Arrays,
    answers: Mapping[str, Answers],
    top_k: int,
    row_weights: np.ndarray | None = None,
) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows; arguments that `measure` accepts."""
    plain = join_with_prefixes(
        [
            (prefix, each.make_weighted_metrics(truth[each.name], predictions[each.name], top_k))
            for prefix, each in _add_prefixes(answers)
        ]
    )
    return plain if row_weights is None else join_metrics(plain, weight_rows(plain, row_weights))


def _add_prefixes(answers: Mapping[str, Answers]) -> list[tuple[str, Answers]]:
    """Pair the answers with the beginnings of their metrics' names: empty for a single output."""
    return [(f"{each.name}/" if len(answers) > 1 else "", each) for each in answers.values()]
