"""Integrated gradients: the contribution of each feature to an output, relative to a baseline.

Sundararajan, Taly and Yan 2017. Contributions add up to the difference between the outputs for the example and for the
baseline, up to the error of a sum in place of an integral. The baseline of a picture is black, of a text empty, and of
other inputs the mean over rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bmcli import inputs
from bmcli.explanation import graph
from bmcli.explanation.scores import TargetScore
from bmcli.inputs import Baseline
from bmcli.networks.network import Network
from bmcli.specs import DataSpec, Split

PAPER = "Sundararajan, Taly and Yan 2017"
STEPS = 32
_ROWS = 32  # in one batch


@dataclass(frozen=True)
class Attribution:
    """Contributions of some rows.

    Args:
        features: The tensors that contributions belong to.
        values: Value of each feature minus its baseline, `(rows, ...)` for each feature.
        contributions: In the shapes of `values`.
        completeness_gaps: Difference between the sum of the contributions and the change of the output, as a share of
            that change, `(rows,)`.
    """

    features: tuple[graph.FeatureTensor, ...]
    values: tuple[np.ndarray, ...]
    contributions: tuple[np.ndarray, ...]
    completeness_gaps: np.ndarray

    def sum_by_feature(self) -> dict[str, np.ndarray]:
        """Sum the contributions of each column, or of columns that are mixed in one feature, `(rows,)`."""
        totals_by_feature: dict[str, np.ndarray] = {}
        for feature, contribution in zip(self.features, self.contributions, strict=True):
            if feature.widths:
                ends = np.cumsum(feature.widths)[:-1]
                parts = [part.sum(axis=1) for part in np.split(contribution, ends, axis=1)]
                totals = dict(zip(feature.columns, parts, strict=True))
            else:
                totals = {feature.name: contribution.reshape(len(contribution), -1).sum(axis=1)}
            for name, total in totals.items():
                totals_by_feature[name] = totals_by_feature.get(name, 0.0) + total
        return totals_by_feature

    def select_column(self, name: str) -> np.ndarray | None:
        """Get the contributions of one column, `(rows, ...)`; None if no feature holds this column alone."""
        contributions = (
            contribution
            for feature, contribution in zip(self.features, self.contributions, strict=True)
            if feature.columns == (name,)
        )
        return next(contributions, None)


class IntegratedGradients:
    """Integrated gradients of one network and target.

    Args:
        average: Rows whose mean is the baseline of inputs other than pictures and texts.
    """

    def __init__(self, network: Network, spec: DataSpec, score: TargetScore, average: Split) -> None:
        self.score = score
        self.features = tuple(graph.find_features(network))
        tensors = [feature.tensor for feature in self.features]
        self._front, self._back = graph.build_front(network, tensors), graph.build_back(network, tensors)
        baselines = {column.name: inputs.get_traits(column).baseline for column in spec.inputs}
        means = self._compute_features(average)
        self._baselines = [
            _build_baseline(_get_baselines(feature, baselines), means[i]) for i, feature in enumerate(self.features)
        ]
        zeros = {name: np.zeros_like(cells[:1]) for name, cells in average.inputs.items()}
        for i, feature in enumerate(self.features):
            if _get_baselines(feature, baselines) == {"zero_cell"}:
                self._baselines[i] = self._compute_features(Split(zeros, {}))[i][0]
        # One trace for all batches, of which the last can be smaller.
        self._gradient = tf.function(self._compute_gradient, autograph=False, reduce_retracing=True)

    def __call__(self, rows: Split, chosen: np.ndarray) -> Attribution:
        """Compute contributions to the score of one class for each row.

        Args:
            chosen: Class of each row, `(rows,)`.
        """
        parts = [
            self._attribute_batch(_slice_rows(rows, start), chosen[start : start + _ROWS])
            for start in range(0, len(rows), _ROWS)
        ]
        values, contributions, gaps = zip(*parts, strict=True)
        return Attribution(
            self.features,
            tuple(np.concatenate(each) for each in zip(*values, strict=True)),
            tuple(np.concatenate(each) for each in zip(*contributions, strict=True)),
            np.concatenate(gaps),
        )

    def _compute_features(self, rows: Split) -> list[np.ndarray]:
        """Compute the features of encoded rows, `(rows, ...)` each."""
        encoded = self.score.read_rows(rows)
        outputs = self._front(encoded, training=False)
        return [outputs[str(i)].numpy().astype("float32") for i in range(len(self.features))]

    def _attribute_batch(
        self, rows: Split, chosen: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        encoded = self.score.read_rows(rows)
        ends = [tf.constant(each) for each in self._compute_features(rows)]
        classes = tf.constant(chosen)
        starts = [tf.zeros_like(end) + start for end, start in zip(ends, self._baselines, strict=True)]
        totals = [np.zeros(end.shape, "float64") for end in ends]
        # The midpoint rule, whose error decreases with the square of the number of steps.
        for alpha in (np.arange(STEPS) + 0.5) / STEPS:
            interpolated = [start + (end - start) * np.float32(alpha) for start, end in zip(starts, ends, strict=True)]
            for total, gradient in zip(totals, self._gradient(interpolated, encoded, classes)[0], strict=True):
                total += np.nan_to_num(gradient.numpy())
        # NaN marks padding of a sequence, which has no contribution.
        differences = [np.nan_to_num((end - start).numpy()) for start, end in zip(starts, ends, strict=True)]
        contributions = [total / STEPS * each for total, each in zip(totals, differences, strict=True)]
        at_end, at_start = (
            self._gradient(interpolated, encoded, classes)[1].numpy() for interpolated in (ends, starts)
        )
        return differences, contributions, _compute_gaps(contributions, at_end - at_start)

    def _compute_gradient(
        self, values: list[tf.Tensor], encoded: Mapping[str, tf.Tensor], chosen: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Compute the gradients of the scores with respect to each feature, and the scores."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            scores = self.score(self._back(values, encoded), encoded, chosen)
        gradients = tape.gradient(scores, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(each) for each in gradients], scores


def _compute_gaps(contributions: list[np.ndarray], differences: np.ndarray) -> np.ndarray:
    total = sum(each.reshape(len(each), -1).sum(axis=1) for each in contributions)
    # An example with the output of its baseline has no difference to divide by.
    return np.abs(total - differences) / np.maximum(np.abs(differences), 1e-3)


def _slice_rows(rows: Split, start: int) -> Split:
    return Split({name: cells[start : start + _ROWS] for name, cells in rows.inputs.items()}, {})


def _get_baselines(feature: graph.FeatureTensor, baselines: Mapping[str, Baseline]) -> set[Baseline]:
    return {baselines[name] for name in feature.columns}


def _build_baseline(baselines: set[Baseline], rows: np.ndarray) -> np.ndarray:
    """Build the baseline of a feature, in its shape without the batch axis."""
    if baselines == {"zero_feature"}:
        return np.zeros(rows.shape[1:], "float32")
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.nanmean(rows, axis=0)).astype("float32")


def compute_mean_magnitudes(attribution: Attribution) -> Mapping[str, float]:
    """Compute the mean absolute contribution of each feature."""
    return {name: float(np.abs(each).mean()) for name, each in attribution.sum_by_feature().items()}
