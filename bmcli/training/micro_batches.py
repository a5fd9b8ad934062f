"""Parts of a batch that are computed one after the other, so that memory holds the activations of one part only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from bmcli.training.graph_ops import merge_axes, repeat


class MicroBatches(NamedTuple):
    """Division of a replica's share of a batch.

    Args:
        share: Number of examples of the share.
        each: Number of examples of every part but the last, which may have fewer.
    """

    share: int
    each: int

    @classmethod
    def divide(cls, share: int, parts: int) -> MicroBatches:
        """Divide a share into at most some parts, none of them empty."""
        return cls(share, -(-share // parts))

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.share // self.each)

    def sum_gradients(
        self, compute: Callable[[Any], tuple[list[Any], Any]], arrays: Any, weights: Sequence[Any]
    ) -> tuple[list[Any], Any]:
        """Sum the gradients and losses of all parts.

        Args:
            compute: Computes the gradient of each weight, and a loss, from the arrays of a part.
            arrays: Any structure of arrays of the share, or None, `(share, ...)`.
        """
        if self.parts == 1:
            return compute(arrays)
        full, rest = divmod(self.share, self.each)
        total = [tf.zeros(weight.shape) for weight in weights]
        loss = tf.zeros(())
        # A graph loop cannot carry None: weights without a gradient have zeros in it, and are recorded while the body
        # is traced. The optimizer skips a weight without a gradient; with zeros it would still decay its momentum.
        has_gradient = [True] * len(weights)

        def add_part(number: Any, total: list[Any], loss: Any) -> tuple[Any, list[Any], Any]:
            gradients, part_loss = compute(self._slice(arrays, number, self.each))
            has_gradient[:] = [gradient is not None for gradient in gradients]
            return number + 1, _add_gradients(total, gradients), loss + part_loss

        total, loss = repeat(full, add_part, total, loss)
        if rest:
            gradients, part_loss = compute(self._slice(arrays, full, rest))
            total, loss = _add_gradients(total, gradients), loss + part_loss
        return [gradient if has else None for gradient, has in zip(total, has_gradient, strict=True)], loss

    def map(self, compute: Callable[[Any], Any], arrays: Any) -> Any:
        """Compute all parts in the order of `sum_gradients`; returns their results as arrays of the share.

        Args:
            compute: Computes any structure of tensors, `(examples, ...)`, from the arrays of a part.
            arrays: Any structure of arrays of the share, `(share, ...)`.
        """
        full, rest = divmod(self.share, self.each)
        pieces = [compute(self._slice(arrays, 0, self.each))]
        if full > 1:
            specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, pieces[0])
            # Not in parallel, since generators of random numbers draw in the order of the parts.
            others = tf.map_fn(
                lambda number: compute(self._slice(arrays, number, self.each)),
                tf.range(1, full), fn_output_signature=specs, parallel_iterations=1,
            )  # fmt: skip
            count = (full - 1) * self.each
            pieces.append(tf.nest.map_structure(lambda array: merge_axes(array, count), others))
        if rest:
            pieces.append(compute(self._slice(arrays, full, rest)))
        if len(pieces) == 1:
            return pieces[0]
        return tf.nest.map_structure(lambda *several: tf.concat(several, 0), *pieces)

    def _slice(self, arrays: Any, number: Any, length: int) -> Any:
        """Slice a part by its number."""
        start = number * self.each

        def slice_array(array: Any) -> Any:
            if array is None:
                return None
            return tf.ensure_shape(array[start : start + length], (length, *array.shape[1:]))

        return tf.nest.map_structure(slice_array, arrays)


def _add_gradients(total: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    # Gradients of embeddings are sparse.
    return [
        sum_ if gradient is None else sum_ + tf.convert_to_tensor(gradient)
        for sum_, gradient in zip(total, gradients, strict=True)
    ]
