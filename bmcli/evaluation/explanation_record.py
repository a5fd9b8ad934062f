"""What was found out about why a model answers as it does, as plain values that pass through JSON unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bmcli.records import validate_as

PixelMap = tuple[tuple[float, ...], ...]
"""A number for each pixel, rows from above."""


@dataclass(frozen=True)
class PermutationImportance:
    """How much a model needs an input column (Breiman 2001; Fisher, Rudin and Dominici 2019).

    Args:
        increase: Of the mean loss when the column's cells are dealt anew among the rows.
        low, high: 95 % interval of the increase.
        fall: Of the accuracy, or rise of the absolute error; 0.0 for targets that have neither.
    """

    column: str
    increase: float
    low: float
    high: float
    fall: float

    @property
    def is_significant(self) -> bool:
        """Whether the increase is told from none."""
        return self.low > 0


@dataclass(frozen=True)
class FeatureAttribution:
    """How much of the answers is owed to a feature: the mean size of its integrated gradients, as a share of all."""

    feature: str
    share: float


@dataclass(frozen=True)
class ExampleExplanation:
    """One example, and what speaks for its answer.

    Args:
        row: Its position in the split.
        truth, answer: In words.
        explained: What the figures explain: a class, or the number itself.
        features: Contribution of each feature to the answer.
        words: Terms of a text with their contributions, in their order, of the column `text`.
        pixels: Contribution of each pixel, of the column `image`.
        heat: Where a convolution looked, from 0 to 1, as large as its last maps: pixels, or one row of steps.
        gap: By how much contributions miss the difference that they should add up to, as a share of it.
    """

    row: int
    truth: str
    answer: str
    explained: str
    features: Mapping[str, float]
    text: str = ""
    words: tuple[tuple[str, float], ...] = ()
    image: str = ""
    pixels: PixelMap = ()
    heat: PixelMap = ()
    gap: float = 0.0


@dataclass(frozen=True)
class LayerActivity:
    """What the units of a layer give on some rows.

    Args:
        units: Of its last axis.
        dead: Units that give the same on every row and place.
        embeds: Whether its outputs are what the last layer judges.
    """

    name: str
    kind: str
    units: int
    mean: float
    spread: float
    dead: int
    embeds: bool = False


@dataclass(frozen=True)
class NearestNeighbours:
    """The examples whose embeddings lie nearest to that of one, by cosine.

    Args:
        row: Position in the split that is explained.
        nearest: Positions in the training split and cosines, the nearest first.
    """

    row: int
    truth: str
    nearest: tuple[tuple[int, float, str], ...]


@dataclass(frozen=True)
class SanityCheck:
    """Whether a method tells a trained network from one with random weights (Adebayo et al. 2018).

    Args:
        method, paper: Which, and where it was described.
        figure: What was compared, in words.
        value: What it came to.
        limit: What it has to stay below.
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
    """How one target is answered.

    Args:
        loss: The name of the loss whose increase tells importance.
        importances: The largest first.
        shares: The largest first.
        wrong, doubtful: The most wrong and the most doubtful examples.
    """

    target: str
    loss: str
    importances: tuple[PermutationImportance, ...]
    shares: tuple[FeatureAttribution, ...]
    wrong: tuple[ExampleExplanation, ...]
    doubtful: tuple[ExampleExplanation, ...]
    sanity: tuple[SanityCheck, ...]


@dataclass(frozen=True)
class Explanation:
    """Everything that `bmcli explain` found.

    Args:
        on, rows: The split, and how many of its rows importance was measured on.
        repeats: How often each column was dealt anew.
        similarity: Linear CKA of each pair of `layers`, from 0 to 1.
        left_out: Columns whose importance was not measured, since there are too many.
    """

    on: str
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
