"""Relations: distances between the examples of a batch (Park et al. 2019, section 3.2.1)."""

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

    identity = ops.diag(ops.ones_like(weights))  # the batch size may be known only at run time
    others = weights[None, :] * (1.0 - identity)  # (examples, others)
    differences = _compute_distances(student, others, weights) - _compute_distances(teacher, others, weights)
    magnitudes = ops.abs(differences)
    huber = ops.where(magnitudes < 1.0, 0.5 * ops.square(differences), magnitudes - 0.5)
    return ops.sum(others * huber, axis=-1) / ops.maximum(ops.sum(others, axis=-1), 1e-12)


def _compute_distances(layer: Any, others: Any, weights: Any) -> Any:
    """Compute the distances between examples, divided by the mean distance, `(batch, batch)`."""
    from keras import ops

    rows = flatten_features(layer)
    squares = ops.sum(ops.square(rows), axis=-1)
    squared = squares[:, None] + squares[None, :] - 2 * ops.matmul(rows, ops.transpose(rows))
    # The root has no gradient at 0, the distance of an example from itself or from a duplicate.
    distances = ops.sqrt(ops.maximum(squared, 1e-12))
    pairs = weights[:, None] * others
    mean = ops.sum(pairs * distances) / ops.maximum(ops.sum(pairs), 1e-12)
    return distances / ops.maximum(mean, 1e-12)
