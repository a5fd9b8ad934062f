"""Truth and predictions of a target of each kind, with metrics of samples of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmcli.evaluation.result import Evaluation
from bmcli.metrics.weighted_metrics import WeightedMetrics
from bmcli.specs import Column
from tests.evaluation.columns import category, count, labels, make_weighted_metrics, measure, number, ordered

TOP_K = 2
KINDS = ("two classes", "five classes", "ordered", "labels", "number", "quantiles", "count")


@dataclass(frozen=True)
class Case:
    column: Column
    truth: np.ndarray
    predictions: np.ndarray
    quantiles: tuple[float, ...] = ()

    def take(self, places: np.ndarray) -> Case:
        return Case(self.column, self.truth[places], self.predictions[places], self.quantiles)

    @property
    def measured(self) -> Evaluation:
        return measure(*self._arguments)

    @property
    def weighted(self) -> WeightedMetrics:
        return make_weighted_metrics(*self._arguments)

    @property
    def _arguments(self):
        name = self.column.name
        quantiles = {name: self.quantiles} if self.quantiles else {}
        return {name: self.truth}, {name: self.predictions}, (self.column,), TOP_K, quantiles


def case(kind: str, rows: int, seed: int, skill: float = 1.0) -> Case:
    """Rows drawn from a model of known skill; scores are rounded, so that some are tied."""
    dice = np.random.default_rng(seed)
    if kind == "labels":
        truth = dice.integers(0, 2, (rows, 3)).astype("uint8")
        scores = 1 / (1 + np.exp(-skill * (2.0 * truth - 1) - dice.normal(size=(rows, 3))))
        return Case(labels("a", "b", "c"), truth, np.round(scores, 2).astype("float32"))
    if kind in ("two classes", "five classes", "ordered"):
        classes = 2 if kind == "two classes" else 5
        truth = dice.integers(0, classes, rows)
        logits = dice.normal(size=(rows, classes)) + skill * np.eye(classes)[truth]
        scores = np.round(np.exp(logits), 1) + 0.05
        names = "abcde"[:classes]
        column = ordered(*names) if kind == "ordered" else category(*names)
        return Case(column, truth, (scores / scores.sum(axis=1, keepdims=True)).astype("float32"))
    if kind == "count":
        rates = np.exp(skill * dice.normal(size=rows))
        return Case(count(), dice.poisson(rates).astype(float), rates * 1.1)
    truth = skill * dice.normal(size=rows) + 1e4
    if kind == "quantiles":
        return Case(number(), truth, np.sort(dice.normal(size=(rows, 3)), axis=1) + 1e4, (0.1, 0.5, 0.9))
    return Case(number(), truth, truth + dice.normal(size=rows))
