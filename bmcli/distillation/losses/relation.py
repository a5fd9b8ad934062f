"""Relations: how far the examples of a batch are from each other (Park et al. 2019, section 3.2.1)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import LayerOptions, LossInputs, OutputForm, flatten_features, sum_losses

FORMS: tuple[OutputForm, ...] = ()
WHOLE_BATCH = True


class Options(LayerOptions):
    """Huber loss between pairwise distances of examples in a student layer and in a teacher layer.

    Distances are divided by their mean over the batch, which makes layers of any width comparable. The loss of an
    example is its mean over all other examples of the batch.
    """

    kind: Literal["relation"] = Field(default="relation", description="Distances between examples.")


def loss(options: Options, inputs: LossInputs) -> Any:
    return sum_losses([_compute_pair_loss(student, teacher, inputs.weights) for student, teacher in inputs.layers])


def _compute_pair_loss(student: Any, teacher: Any, weights: Any) -> Any:
    from keras import ops

    itself = ops.diag(ops.ones_like(weights))  # how many examples there are may show only when it runs
    others = weights[None, :] * (1.0 - itself)  # (examples, others)
    apart = _distances(student, others, weights) - _distances(teacher, others, weights)
    size_of = ops.abs(apart)
    huber = ops.where(size_of < 1.0, 0.5 * ops.square(apart), size_of - 0.5)
    return ops.sum(others * huber, axis=-1) / ops.maximum(ops.sum(others, axis=-1), 1e-12)


def _distances(layer: Any, others: Any, weights: Any) -> Any:
    """Distance of each example from each other one by the mean distance, `(batch, batch)`."""
    from keras import ops

    rows = flatten_features(layer)
    squares = ops.sum(ops.square(rows), axis=-1)
    squared = squares[:, None] + squares[None, :] - 2 * ops.matmul(rows, ops.transpose(rows))
    # The root has no gradient at 0, where an example meets itself or its double.
    distances = ops.sqrt(ops.maximum(squared, 1e-12))
    pairs = weights[:, None] * others
    mean = ops.sum(pairs * distances) / ops.maximum(ops.sum(pairs), 1e-12)
    return distances / ops.maximum(mean, 1e-12)
