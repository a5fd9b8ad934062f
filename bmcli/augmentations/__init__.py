"""Augmentations: random changes of training examples, different in every step.

They are computed inside the training step, on the device. Evaluation does not use them, and served models do not
include them. Pictures have pixels from 0 to 1, numbers are encoded as their column does; both are float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from bmcli import inputs
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras

Strength = Annotated[float, Field(gt=0, le=1)]
FillMode = Literal["reflect", "wrap", "constant", "nearest"]
FILL = (
    "Fill of the area outside the image: mirrored (reflect), repeated (wrap), black (constant) or the edge pixel "
    "(nearest)."
)
NumberRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class RandomSource(Protocol):
    """Random numbers for some examples of a batch.

    They are a function of the recipe's seed, the step, the example's position in the whole batch, and the number of
    earlier draws, so that they do not depend on how the batch is divided among devices.
    """

    def uniform(self, *shape: int) -> Any:
        """Draw from 0 to 1, float32 `(examples, *shape)`."""

    def normal(self, *shape: int) -> Any:
        """Draw with mean 0 and standard deviation 1, float32 `(examples, *shape)`."""

    def beta(self, alpha: float) -> Any:
        """Draw from the symmetric beta distribution, float32 `(examples,)`."""

    def apply_layer(self, layer: keras.layers.Layer, pictures: Any) -> Any:
        """Apply one of Keras' augmentation layers to pictures."""


Transform = Callable[[Any, RandomSource], Any]
"""Changes examples `(examples, ...)`; the shape stays."""


class MovingTransform(ABC):
    """A change of an input with which targets move, such as the boxes in a picture that is flipped."""

    TARGETS: tuple[str, ...]
    """Kinds of target that move."""

    @abstractmethod
    def change(self, values: Any, targets: Mapping[str, Any], random: RandomSource) -> tuple[Any, Mapping[str, Any]]:
        """Change examples and their targets; all shapes and types of the targets stay.

        Args:
            values: `(examples, ...)`, as for a `Transform`.
            targets: Encoded targets of these kinds by name, `(examples, ...)`; empty if the recipe has none.
        """


Mixer = Callable[[Any, Any, RandomSource], tuple[Any, Any]]
"""Mixes examples with partners of the batch; returns the mixtures and the shares of the first, `(examples,)`."""


class Augmentation(Protocol):
    """The interface of a module in this folder."""

    Options: type[Kind]
    INPUTS: tuple[str, ...]  # forms of values that it can change: see `InputOptions.AUGMENTED_AS`
    MIXES: bool  # whether it mixes examples, and with them their targets

    def build(self, options: Any, column: Column) -> Transform | MovingTransform | Mixer:
        """Build the change of an input.

        Keras' layers are made here, because they create variables, which a compiled step cannot do.

        Raises:
            BmcliError: It cannot change this column.
        """


def transform_with_layers(*layers: keras.layers.Layer) -> Transform:
    """Build a change of pictures by some of Keras' layers, one after the other."""

    def change(pictures: Any, random: RandomSource) -> Any:
        for layer in layers:
            pictures = random.apply_layer(layer, pictures)
        return pictures

    return change


def require_colours(column: Column) -> None:
    """Refuse pictures without the three channels of colours."""
    if column.shape[-1] != 3:
        raise BmcliError(f"column {quoted(column.name)}: its pictures have no colours; expected 3 channels, received "
                         f"{column.shape[-1]}.", suggestion="Leave the augmentation out.")  # fmt: skip


def require_vectors(column: Column, kind: str) -> None:
    """Refuse numbers that have steps.

    Args:
        kind: Of the augmentation.
    """
    if len(column.shape) != 1:
        raise BmcliError(f"column {quoted(column.name)}: {kind} changes numbers and vectors, not sequences.")


def require_scale(column: Column, kind: str) -> None:
    """Refuse numbers that have steps, or that the network receives as bins; arguments as for `require_vectors`."""
    require_vectors(column, kind)
    if not inputs.get_traits(column).is_number:
        raise BmcliError(
            f"column {quoted(column.name)}: {kind} changes numbers, but the column is cut into bins.",
            suggestion="Leave out one of `bins` and the augmentation.",
        )


def check_range(value: NumberRange, name: str, limit: float) -> NumberRange:
    """Return the range if it ascends to at most `limit`; raises `fault` otherwise."""
    if not value[0] <= value[1] <= limit:
        raise fault(name, f"expected two ascending numbers up to {limit:g}, received {list(value)}.")
    return value


def window_sizes(height: int, width: int, area: Any, aspect: Any) -> tuple[Any, Any]:
    """Compute heights and widths of windows in pixels, no larger than the picture.

    Args:
        height, width: Size of the picture.
        area: Area of each window as a share of the picture's, `(examples,)`.
        aspect: Width / height of each window, relative to the picture's, `(examples,)`.
    """
    import tensorflow as tf

    tall = tf.minimum(tf.sqrt(area / aspect), 1.0)
    return tall * height, tf.minimum(tf.sqrt(area * aspect), 1.0) * width


def window_mask(height: int, width: int, top: Any, left: Any, tall: Any, wide: Any) -> Any:
    """Compute the mask of the pixels inside a window of each picture, `(examples, height, width, 1)`."""
    import tensorflow as tf

    # A pixel is inside if its centre is.
    rows = tf.range(height, dtype=tf.float32)[None, :, None] + 0.5
    columns = tf.range(width, dtype=tf.float32)[None, None, :] + 0.5
    top, left, tall, wide = (each[:, None, None] for each in (top, left, tall, wide))
    within = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    return within[..., None]
