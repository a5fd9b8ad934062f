"""The score that attributions explain, and the loss for permutation importance."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.data import targets as target_kinds
from bmcli.objectives import TargetObjective, find_median_index
from bmcli.specs import Column

_FLOOR = 1e-7


class TargetScore:
    """The explained score of an output: the log-odds of a class or label, or the number in the unit of the target.

    Args:
        quantiles: The predicted ones, if any; the one nearest to the median is explained.
    """

    def __init__(self, column: Column, objective: TargetObjective, quantiles: tuple[float, ...] = ()) -> None:
        self.column, self.objective, self.quantiles = column, objective, quantiles

    def __call__(self, outputs: Any, chosen: Any) -> Any:
        """Compute scores, `(batch,)` float32, from outputs by target and the chosen class of each row, `(batch,)`."""
        predicted = tf.cast(self.objective.predict(outputs[self.column.name]), tf.float32)
        if not self.column.classes:
            return predicted[:, find_median_index(self.quantiles)] if self.quantiles else predicted
        probabilities = tf.gather(predicted, chosen, batch_dims=1)
        return tf.math.log(tf.maximum(probabilities, _FLOOR)) - tf.math.log(tf.maximum(1 - probabilities, _FLOOR))


def choose_classes(column: Column, predictions: np.ndarray) -> np.ndarray:
    """Choose the class to explain, int32 `(rows,)`: the predicted one, or the most probable label; 0 for numbers."""
    if not column.classes:
        return np.zeros(len(predictions), "int32")
    if column.kind == "labels":
        return predictions.argmax(axis=1).astype("int32")
    return target_kinds.kind_of(column).predict_point(predictions, column).astype("int32")


def compute_row_losses(
    column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]
) -> np.ndarray:
    """Compute the loss of each row, `(rows,)`; `get_loss_name` is its name."""
    predictions = predictions.astype(np.float64)
    if column.kind == "labels":
        true_probabilities = np.where(truth, predictions, 1 - predictions)
        return -np.log(np.maximum(true_probabilities, _FLOOR)).mean(axis=1)
    if column.classes:
        return -np.log(np.maximum(np.take_along_axis(predictions, truth[:, None], axis=1)[:, 0], _FLOOR))
    if quantiles:
        shares, errors = np.array(quantiles), truth[:, None] - predictions
        return np.maximum(shares * errors, (shares - 1) * errors).mean(axis=1)
    if column.kind == "count":
        rates = np.maximum(predictions, 1e-37)
        return 2 * (np.where(truth > 0, truth * np.log(np.maximum(truth, 1) / rates), 0) - truth + rates)
    return (truth - predictions) ** 2


def get_loss_name(column: Column, quantiles: tuple[float, ...]) -> str:
    if column.classes:
        return "log loss"
    if quantiles:
        return "pinball loss"
    return "Poisson deviance" if column.kind == "count" else "squared error"


def measure_correctness(column: Column, truth: np.ndarray, point: np.ndarray) -> float:
    """Compute the accuracy, for labels the subset accuracy, for numbers the negative mean absolute error."""
    if column.kind == "labels":
        return float((truth == point).all(axis=1).mean())
    return float((truth == point).mean()) if column.classes else -float(np.abs(truth - point).mean())
