"""Target columns as the data room hands them over, the answers of their usual objectives, and metrics of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from bmcli import parts
from bmcli.answers import Answers
from bmcli.evaluation import metrics
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.weighted_metrics import WeightedMetrics
from bmcli.specs import Column

Quantiles = Mapping[str, tuple[float, ...]]
NO_QUANTILES: Quantiles = {}


def category(*classes: str, name: str = "label") -> Column:
    return Column(name=name, kind="category", shape=(), dtype="int32", classes=classes)


def number(name: str = "price") -> Column:
    return Column(name=name, kind="number", shape=(), dtype="float32")


def labels(*names: str, name: str = "tags") -> Column:
    return Column(name=name, kind="labels", shape=(len(names),), dtype="uint8", classes=names, state={"separator": ";"})


def ordered(*classes: str, name: str = "grade") -> Column:
    return Column(name=name, kind="ordered", shape=(), dtype="int32", classes=classes)


def count(name: str = "visits") -> Column:
    return Column(name=name, kind="count", shape=(), dtype="float32", state={"mean": 4.0})


def answers_of(*columns: Column, quantiles: Quantiles = NO_QUANTILES) -> dict[str, Answers]:
    """Answers of targets, by name: of the usual objective of their kind, or of quantiles."""
    return {column.name: _answers(column, quantiles.get(column.name)) for column in columns}


def _answers(column: Column, quantiles: tuple[float, ...] | None) -> Answers:
    usual = parts.load("data.targets", column.kind).OBJECTIVE
    objective = parts.load("objectives", "quantile" if quantiles else usual)
    made: Answers = objective.make_answers(
        objective.describe(SimpleNamespace(quantiles=quantiles, positive="auto"), column), column
    )
    return made


def measure(
    truth: Any, predictions: Any, columns: tuple[Column, ...], top_k: int, quantiles: Quantiles = NO_QUANTILES
) -> Evaluation:
    truth, predictions = (
        {name: np.asarray(values) for name, values in arrays.items()} for arrays in (truth, predictions)
    )
    return metrics.measure(truth, predictions, answers_of(*columns, quantiles=quantiles), top_k)


def metric_names(columns: tuple[Column, ...], top_k: int, quantiles: Quantiles = NO_QUANTILES) -> tuple[str, ...]:
    return tuple(metrics.list_metrics(answers_of(*columns, quantiles=quantiles), top_k))


def make_weighted_metrics(
    truth: Any, predictions: Any, columns: tuple[Column, ...], top_k: int, quantiles: Quantiles = NO_QUANTILES
) -> WeightedMetrics:
    return metrics.make_weighted_metrics(truth, predictions, answers_of(*columns, quantiles=quantiles), top_k)
