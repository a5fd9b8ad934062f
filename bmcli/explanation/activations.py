"""Activations of layers: statistics, dead units, and the similarity of layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from bmcli.evaluation.explanation_record import LayerActivity
from bmcli.explanation import graph
from bmcli.networks.network import Network
from bmcli.specs import Split

PAPER = "Kornblith et al. 2019"
MAX_LAYERS = 24
_ROWS = 64  # in one batch


@dataclass
class _ActivationStatistics:
    """Statistics of a layer's outputs, accumulated over batches."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    means: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """Add the outputs of a batch, `(rows, ..., units)`."""
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
    """Measure the outputs of the last layers on some rows, and their similarity to each other.

    Similarity is linear centred kernel alignment (CKA; Kornblith et al. 2019, section 3) of the outputs, averaged over
    pixels or steps: 1 if one is a rotation of the other.

    Returns:
        The layers in the order of the data flow, and `(layers, layers)`.
    """
    outputs_of_layers = graph.list_layer_outputs(network)[-MAX_LAYERS:]
    embedding = graph.find_embedding(network)
    submodel = graph.build_front(network, [tensor for _, tensor in outputs_of_layers])
    statistics = [_ActivationStatistics() for _ in outputs_of_layers]
    for start in range(0, len(rows), _ROWS):
        outputs = submodel(_encode_batch(rows, start), training=False)
        for i, each in enumerate(statistics):
            each.add(outputs[str(i)].numpy())
    layers = tuple(
        _summarize_layer(layer.name, type(layer).__name__, each, tensor is embedding)
        for (layer, tensor), each in zip(outputs_of_layers, statistics, strict=True)
    )
    return layers, compute_similarity([np.concatenate(each.means) for each in statistics])


def _summarize_layer(name: str, kind: str, statistics: _ActivationStatistics, is_embedding: bool) -> LayerActivity:
    assert statistics.low is not None, "there are rows"
    assert statistics.high is not None
    mean = statistics.total / statistics.count
    # Rounding can make the difference slightly negative for constant outputs.
    standard_deviation = max(0.0, statistics.squares / statistics.count - mean**2) ** 0.5
    dead = int((statistics.high - statistics.low <= 1e-12).sum())
    return LayerActivity(name, kind, len(statistics.low), mean, standard_deviation, dead, is_embedding)


def compute_similarity(activations: list[np.ndarray]) -> np.ndarray:
    """Compute linear CKA of each pair of layers, `(layers, layers)`; 0 for a layer with constant outputs.

    Args:
        activations: `(rows, units)` of each layer.
    """
    grams = []
    for outputs in activations:
        centred = outputs - outputs.mean(axis=0)
        # Gram matrices of the rows have the same size for all layers, whatever their width.
        gram = centred @ centred.T
        norm = np.linalg.norm(gram)
        grams.append(gram / norm if norm > 0 else gram)
    stacked = np.stack([gram.ravel() for gram in grams])
    return np.clip(stacked @ stacked.T, 0.0, 1.0)


def compute_embeddings(network: Network, rows: Split) -> np.ndarray:
    """Compute the input of the first target's output layer for each row, `(rows, width)`."""
    submodel = graph.build_front(network, [graph.find_embedding(network)])
    batches = [
        submodel(_encode_batch(rows, start), training=False)["0"].numpy() for start in range(0, len(rows), _ROWS)
    ]
    joined: np.ndarray = np.concatenate(batches).astype("float32")
    return joined.reshape(len(joined), -1)


def find_nearest(queries: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the candidates nearest to each query by cosine similarity: positions and cosines, `(rows, count)` each."""
    normalized_queries, normalized_candidates = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (queries, candidates)
    )
    cosines = normalized_queries @ normalized_candidates.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def _encode_batch(rows: Split, start: int) -> dict[str, tf.Tensor]:
    return {name: tf.constant(np.asarray(cells[start : start + _ROWS])) for name, cells in rows.inputs.items()}
