"""Comparisons of made-up models, whose right answers are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bmcli.evaluation.comparison import Comparison, Contender
from bmcli.evaluation.intervals import (
    ResampledMetrics,
    Resampling,
    compute_differences,
    compute_intervals,
    resample_metrics,
)
from bmcli.metrics.weighted_metrics import WeightedMetrics
from bmcli.specs import Column
from tests.evaluation.columns import make_weighted_metrics, measure

ROWS = 300
COLUMN = Column("label", "category", (), "int32", classes=("no", "yes"))
HOW = Resampling(resamples=200)


def answers(accuracy: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Truth and probabilities of a model that is right in just this share of the rows."""
    truth = np.arange(ROWS) % 2
    wrong = np.random.default_rng(round(1e4 * accuracy)).permutation(ROWS) >= round(accuracy * ROWS)
    predicted = np.where(wrong, 1 - truth, truth)
    return {"label": truth}, {"label": np.where(np.eye(2)[predicted] > 0, 0.8, 0.2).astype("float32")}


def weighted(accuracy: float) -> WeightedMetrics:
    return make_weighted_metrics(*answers(accuracy), (COLUMN,), 5)


def drawn(accuracy: float) -> ResampledMetrics:
    return resample_metrics(weighted(accuracy), ROWS, HOW)


def contender(name: str, parameters: int, accuracy: float) -> Contender:
    """A run with a curve, whose costs grow with its parameters."""
    truth, predictions = answers(accuracy)
    found = measure(truth, predictions, (COLUMN,), 5)
    around, _ = compute_intervals(drawn(accuracy))
    epochs = [{"epoch": e, "train/loss": 1 / e, "validation/loss": 1.2 / e} for e in (1, 2, 3)]
    kept = {name: each for name, each in around.items() if name in found.metrics}
    costs = (parameters, 4 * parameters, 1e-6 * parameters, 0.1 * parameters)
    return Contender(name, f"runs/{name}", found.metrics, kept, *costs, epochs)


def comparison(models: Mapping[str, tuple[int, float]]) -> Comparison:
    """Models by name, with their parameters and accuracy."""
    contenders = tuple(contender(name, *each) for name, each in models.items())
    names = list(models)
    first = {name: compute_differences(drawn(models[names[0]][1]), drawn(models[name][1])) for name in names[1:]}
    best = max(names, key=lambda name: models[name][1])
    others = {
        name: compute_differences(drawn(models[best][1]), drawn(models[name][1]))["accuracy"]
        for name in names
        if name != best
    }
    recipes = {"model.hidden": tuple(f"[{each[0]}]" for each in models.values())}
    return Comparison("test", ROWS, "accuracy", "max", contenders, recipes, {}, "", first, others)
