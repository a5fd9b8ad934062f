"""Explanations of a model's predictions, as plain values that pass through JSON unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bmcli.records import validate_as

PixelMap = tuple[tuple[float, ...], ...]
"""A number for each pixel, rows from top to bottom."""


@dataclass(frozen=True)
class PermutationImportance:
    """Permutation importance of an input column (Breiman 2001; Fisher, Rudin and Dominici 2019).

    Args:
        increase: Increase in the mean loss when the column's values are permuted among the rows.
        low, high: 95 % interval of the increase.
        metric_decrease: Decrease in the accuracy; for a number, increase in the mean absolute error.
    """

    column: str
    increase: float
    low: float
    high: float
    metric_decrease: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the increase lies above 0."""
        return self.low > 0


@dataclass(frozen=True)
class FeatureAttribution:
    """Mean absolute integrated gradients of a feature, as a share of the sum over all features."""

    feature: str
    share: float


@dataclass(frozen=True)
class ExampleExplanation:
    """Attributions of the prediction for one example.

    Args:
        row: Its position in the split.
        truth, prediction: As text.
        explained_output: The output that the contributions explain: a class, or the name of a number target.
        features: Contribution of each feature.
        words: Terms of the column `text` with their contributions, in the order of the text.
        pixels: Contribution of each pixel of the column `image`.
        grad_cam: Grad-CAM heat from 0 to 1, in the resolution of the last convolution: pixels, or one row of steps.
        completeness_gap: Difference between the sum of the contributions and the change of the output from baseline
            to example, as a share of that change; 0 for exact integrated gradients.
    """

    row: int
    truth: str
    prediction: str
    explained_output: str
    features: Mapping[str, float]
    text: str = ""
    words: tuple[tuple[str, float], ...] = ()
    image: str = ""
    pixels: PixelMap = ()
    grad_cam: PixelMap = ()
    completeness_gap: float = 0.0


@dataclass(frozen=True)
class LayerActivity:
    """Statistics of a layer's outputs on some rows.

    Args:
        units: Size of its last axis.
        dead: Number of units with the same output at every row and position.
        is_embedding: Whether its outputs are the input of the first target's output layer.
    """

    name: str
    kind: str
    units: int
    mean: float
    standard_deviation: float
    dead: int
    is_embedding: bool = False


@dataclass(frozen=True)
class NearestNeighbours:
    """The training examples whose embeddings are nearest to that of one example, by cosine similarity.

    Args:
        row: Position in the split that is explained.
        nearest: Position in the training split, cosine similarity and target of each, the nearest first.
    """

    row: int
    truth: str
    nearest: tuple[tuple[int, float, str], ...]


@dataclass(frozen=True)
class SanityCheck:
    """Comparison of a method's results for the trained network and for random weights (Adebayo et al. 2018).

    Args:
        method, paper: Name of the method, and its source.
        figure: The compared quantity, in words.
        value: Its value.
        limit: The value must be below.
    """

    method: str
    paper: str
    figure: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value < self.limit


@dataclass(frozen=True)
class TargetExplanation:
    """Explanations of the predictions of one target.

    Args:
        loss: Name of the loss that permutation importance is measured by.
        importances: The largest first.
        shares: The largest first.
        wrong, least_confident: The most wrong and the least confident examples.
        sanity: A check for each method.
    """

    target: str
    loss: str
    importances: tuple[PermutationImportance, ...]
    shares: tuple[FeatureAttribution, ...]
    wrong: tuple[ExampleExplanation, ...]
    least_confident: tuple[ExampleExplanation, ...]
    sanity: tuple[SanityCheck, ...]

    def compute_importance_shares(self) -> list[float]:
        """Compute the share of each column in the sum of all increases, 0 for a column without an increase."""
        increases = [max(each.increase, 0.0) for each in self.importances]
        total = sum(increases) or 1.0
        return [increase / total for increase in increases]


@dataclass(frozen=True)
class Explanation:
    """Result of `bmcli explain`.

    Args:
        split, rows: The split, and the number of its rows that importance was measured on.
        repeats: Permutations of each column.
        similarity: Linear CKA of each pair of `layers`, from 0 to 1.
        left_out: Number of columns whose importance was not measured, since there are too many.
    """

    split: str
    rows: int
    repeats: int
    targets: tuple[TargetExplanation, ...]
    layers: tuple[LayerActivity, ...]
    similarity: tuple[tuple[float, ...], ...]
    neighbours: tuple[NearestNeighbours, ...]
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Explanation:
        return validate_as(cls, values)
