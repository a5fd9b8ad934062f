"""Integrated gradients: what each feature adds to an answer, on the way from a baseline to the example.

Sundararajan, Taly and Yan 2017. Contributions add up to the difference between the answer and that of the baseline,
but for the error of a sum instead of an integral. The baseline of a picture is black, of a text one of no terms, of
all else the mean over the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bmcli.explanation import graph
from bmcli.explanation.scores import TargetScore
from bmcli.networks.network import Network
from bmcli.specs import Column, DataSpec, Split

PAPER = "Sundararajan, Taly and Yan 2017"
STEPS = 32
_ROWS = 32  # at a time


@dataclass(frozen=True)
class Attribution:
    """Contributions of some rows.

    Args:
        features: Of the features.
        values: What each feature is, less its baseline, `(rows, ...)` for each place.
        contributions: `(rows, ...)` for each place, of the shape of the feature.
        gaps: By how much contributions miss the difference that they add up to, as a share of it, `(rows,)`.
    """

    features: tuple[graph.FeatureTensor, ...]
    values: tuple[np.ndarray, ...]
    contributions: tuple[np.ndarray, ...]
    completeness_gaps: np.ndarray

    def sum_by_feature(self) -> dict[str, np.ndarray]:
        """The sum over each feature's numbers, `(rows,)`."""
        found: dict[str, np.ndarray] = {}
        for place, each in zip(self.features, self.contributions, strict=True):
            if place.widths:
                ends = np.cumsum(place.widths)[:-1]
                parts = [part.sum(axis=1) for part in np.split(each, ends, axis=1)]
                totals = dict(zip(place.columns, parts, strict=True))
            else:
                totals = {place.name: each.reshape(len(each), -1).sum(axis=1)}
            for name, total in totals.items():
                found[name] = found.get(name, 0.0) + total
        return found

    def select_column(self, name: str) -> np.ndarray | None:
        """The contributions of the numbers of one column alone, `(rows, ...)`; None if it has no place of its own."""
        own = (c for place, c in zip(self.features, self.contributions, strict=True) if place.columns == (name,))
        return next(own, None)


class IntegratedGradients:
    """The method for one network and target.

    Args:
        average: Rows whose mean is the baseline of what is neither picture nor text.
    """

    def __init__(self, network: Network, spec: DataSpec, score: TargetScore, average: Split) -> None:
        self.score = score
        self.features = tuple(graph.find_features(network))
        tensors = [place.tensor for place in self.features]
        self._front, self._back = graph.build_front(network, tensors), graph.build_back(network, tensors)
        kinds = {column.name: column.kind for column in spec.inputs}
        means = self._compute_features(average)
        self._baselines = [_build_baseline(_kinds(place, kinds), means[i]) for i, place in enumerate(self.features)]
        black = {name: np.zeros_like(cells[:1]) for name, cells in average.inputs.items()}
        for i, place in enumerate(self.features):
            if _kinds(place, kinds) == {"image"}:
                self._baselines[i] = self._compute_features(Split(black, {}))[i][0]
        self._gradient = tf.function(self._compute_gradient, autograph=False, reduce_retracing=True)

    def __call__(self, rows: Split, chosen: np.ndarray) -> Attribution:
        """Contributions to the score of a class of each row.

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
        """Features of encoded rows, `(rows, ...)` each."""
        encoded = {name: tf.constant(np.asarray(cells)) for name, cells in rows.inputs.items()}
        found = self._front(encoded, training=False)
        return [found[str(i)].numpy().astype("float32") for i in range(len(self.features))]

    def _attribute_batch(
        self, rows: Split, chosen: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        encoded = {name: tf.constant(np.asarray(cells)) for name, cells in rows.inputs.items()}
        ends = [tf.constant(each) for each in self._compute_features(rows)]
        classes = tf.constant(chosen)
        starts = [tf.zeros_like(end) + start for end, start in zip(ends, self._baselines, strict=True)]
        totals = [np.zeros(end.shape, "float64") for end in ends]
        for share in (np.arange(STEPS) + 0.5) / STEPS:
            between = [start + (end - start) * np.float32(share) for start, end in zip(starts, ends, strict=True)]
            for total, gradient in zip(totals, self._gradient(between, encoded, classes)[0], strict=True):
                total += np.nan_to_num(gradient.numpy())
        # Where an example is padded with NaN there is nothing to attribute.
        away = [np.nan_to_num((end - start).numpy()) for start, end in zip(starts, ends, strict=True)]
        contributions = [total / STEPS * each for total, each in zip(totals, away, strict=True)]
        at_end, at_start = (self._gradient(points, encoded, classes)[1].numpy() for points in (ends, starts))
        return away, contributions, _gaps(contributions, at_end - at_start)

    def _compute_gradient(self, values, encoded, chosen):  # type: ignore[no-untyped-def]
        """Gradients of the scores by each feature, and the scores."""
        with tf.GradientTape() as tape:
            tape.watch(values)
            scores = self.score(self._back(values, encoded), chosen)
        found = tape.gradient(scores, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(each) for each in found], scores


def _gaps(contributions: list[np.ndarray], differences: np.ndarray) -> np.ndarray:
    total = sum(each.reshape(len(each), -1).sum(axis=1) for each in contributions)
    return np.abs(total - differences) / np.maximum(np.abs(differences), 1e-3)


def _slice_rows(rows: Split, start: int) -> Split:
    return Split({name: cells[start : start + _ROWS] for name, cells in rows.inputs.items()}, {})


def _kinds(place: graph.FeatureTensor, kinds: Mapping[str, str]) -> set[str]:
    return {kinds[name] for name in place.columns}


def _build_baseline(kinds: set[str], rows: np.ndarray) -> np.ndarray:
    """What a feature is before the example tells anything, of its shape without the batch."""
    if kinds == {"text"}:
        return np.zeros(rows.shape[1:], "float32")
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.nanmean(rows, axis=0)).astype("float32")


def attribute_terms(column: Column, encoded: np.ndarray, contributions: np.ndarray) -> list[tuple[str, float]]:
    """The terms of one text with their contributions: in their order, or those of a bag by their size.

    Args:
        encoded: Of the text, `column.shape`.
        contributions: Of its feature: `(length, dimension)` of a sequence, `(2 + terms,)` of a bag.
    """
    from bmcli.layers.text_encoder import FIRST_TERM, PADDING

    vocabulary = column.state["vocabulary"]

    def told(number: int) -> str:
        return vocabulary[number - FIRST_TERM] if number >= FIRST_TERM else "?"

    if column.state["bag"]:
        there = [int(number) for number in encoded[0] if number != PADDING]
        found = [(told(number), float(contributions[number])) for number in there]
        return sorted(found, key=lambda each: -abs(each[1]))
    sums = contributions.sum(axis=-1)
    return [(told(int(number)), float(sums[i])) for i, number in enumerate(encoded) if number != PADDING]


def has_terms(column: Column) -> bool:
    """Whether the feature of a text tells its terms apart, as a sum of embeddings does not."""
    return column.kind == "text" and not (column.state["bag"] and column.state["dimension"])


def mean_magnitudes(found: Attribution) -> Mapping[str, float]:
    """The mean size of each feature's contribution."""
    return {name: float(np.abs(each).mean()) for name, each in found.sum_by_feature().items()}
