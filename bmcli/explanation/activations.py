"""What the layers of a network give: how much, which units are dead, which layers say the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from bmcli.evaluation.explanation_record import LayerActivity
from bmcli.explanation import graph
from bmcli.networks.network import Network
from bmcli.specs import Split

PAPER = "Kornblith et al. 2019"
MOST_LAYERS = 24
_ROWS = 64  # at a time


@dataclass
class _ActivationStatistics:
    """What a layer gave so far; numbers are added up over batches."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    means: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """Takes `(rows, ..., units)`."""
        values = values.astype("float64")
        flat = values.reshape(-1, values.shape[-1])
        low, high = flat.min(axis=0), flat.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.count += flat.size
        self.total += float(flat.sum())
        self.squares += float((flat**2).sum())
        self.means.append(values.reshape(len(values), -1, values.shape[-1]).mean(axis=1))


def measure_activity(network: Network, rows: Split) -> tuple[tuple[LayerActivity, ...], np.ndarray]:
    """What each of the last layers gives on some rows, and their similarity to each other.

    Similarity is linear centred kernel alignment (CKA; Kornblith et al. 2019, section 3) of what layers give, averaged
    over pixels or steps: 1 if one is a rotation of the other.

    Returns:
        The layers in the order of the data flow, and `(layers, layers)`.
    """
    found = graph.list_layer_outputs(network)[-MOST_LAYERS:]
    inner = graph.find_embedding(network)
    look = graph.build_front(network, [tensor for _, tensor in found])
    seen = [_ActivationStatistics() for _ in found]
    for start in range(0, len(rows), _ROWS):
        outputs = look(_encode_batch(rows, start), training=False)
        for i, each in enumerate(seen):
            each.add(outputs[str(i)].numpy())
    layers = tuple(
        _summarize_layer(layer.name, type(layer).__name__, each, tensor is inner)
        for (layer, tensor), each in zip(found, seen, strict=True)
    )
    return layers, similarity([np.concatenate(each.means) for each in seen])


def _summarize_layer(name: str, kind: str, seen: _ActivationStatistics, embeds: bool) -> LayerActivity:
    assert seen.low is not None, "there are rows"
    assert seen.high is not None
    mean = seen.total / seen.count
    spread = max(0.0, seen.squares / seen.count - mean**2) ** 0.5
    dead = int((seen.high - seen.low <= 1e-12).sum())
    return LayerActivity(name, kind, len(seen.low), mean, spread, dead, embeds)


def similarity(given: list[np.ndarray]) -> np.ndarray:
    """Linear CKA of each pair, `(layers, layers)`; 0 beside one that gives the same on every row.

    Args:
        given: `(rows, units)` of each layer.
    """
    grams = []
    for each in given:
        centred = each - each.mean(axis=0)
        gram = centred @ centred.T
        size = np.linalg.norm(gram)
        grams.append(gram / size if size > 0 else gram)
    stacked = np.stack([gram.ravel() for gram in grams])
    return np.clip(stacked @ stacked.T, 0.0, 1.0)


def embeddings(network: Network, rows: Split) -> np.ndarray:
    """What the heads judge of each row, `(rows, width)`."""
    look = graph.build_front(network, [graph.find_embedding(network)])
    found = [look(_encode_batch(rows, start), training=False)["0"].numpy() for start in range(0, len(rows), _ROWS)]
    joined: np.ndarray = np.concatenate(found).astype("float32")
    return joined.reshape(len(joined), -1)


def find_nearest(of: np.ndarray, among: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of some embeddings to each of others, by cosine: positions and cosines, `(rows, most)` each."""
    one, other = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (of, among))
    cosines = one @ other.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(cosines, order, axis=1)


def _encode_batch(rows: Split, start: int) -> dict[str, tf.Tensor]:
    return {name: tf.constant(np.asarray(cells[start : start + _ROWS])) for name, cells in rows.inputs.items()}
