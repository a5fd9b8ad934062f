"""Augmentations: each changes the training examples a little, at every step in another way.

They compute inside the training step, on the device, never while measuring, and are no part of a served model. Pictures
come with pixels from 0 to 1, numbers as their column encodes them, both as float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

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

    They are a function of the recipe's seed, the step, the example's place in the whole batch, and how many were drawn
    before: the same however the batch is divided among devices.
    """

    def uniform(self, *shape: int) -> Any:
        """From 0 to 1, float32 `(examples, *shape)`."""

    def normal(self, *shape: int) -> Any:
        """Of mean 0 and deviation 1, float32 `(examples, *shape)`."""

    def beta(self, alpha: float) -> Any:
        """Of the symmetric beta distribution, float32 `(examples,)`."""

    def apply_layer(self, layer: keras.layers.Layer, pictures: Any) -> Any:
        """Pictures after one of Keras' augmentation layers."""


Transform = Callable[[Any, RandomSource], Any]
"""From examples `(examples, ...)` to changed ones of the same shape."""

Mixer = Callable[[Any, Any, RandomSource], tuple[Any, Any]]
"""From examples and others of the batch to their mixture, and the share of the first in each, `(examples,)`."""


class Augmentation(Protocol):
    """What a module in this folder offers."""

    Options: type[Kind]
    INPUTS: tuple[str, ...]  # kinds of input that it can change
    MIXES: bool  # whether it mixes examples, and so their targets

    def build(self, options: Any, column: Column) -> Transform | Mixer:
        """What changes an input in a step; Keras' layers are made here, outside of it.

        Raises:
            BmcliError: It cannot change this column.
        """


def transform_with_layers(*layers: keras.layers.Layer) -> Transform:
    """Pictures changed by some of Keras' layers, one after the other."""

    def change(pictures: Any, dice: RandomSource) -> Any:
        for layer in layers:
            pictures = dice.apply_layer(layer, pictures)
        return pictures

    return change


def require_colours(column: Column) -> None:
    """Raises BmcliError unless the pictures have the three channels of colours."""
    if column.shape[-1] != 3:
        raise BmcliError(f"column {quoted(column.name)}: its pictures have no colours; expected 3 channels, received "
                         f"{column.shape[-1]}.", suggestion="Leave it out.")  # fmt: skip


def check_range(value: NumberRange, name: str, limit: float) -> NumberRange:
    """The range, if it goes upwards and to no more than `limit`; else raises fault()."""
    if not value[0] <= value[1] <= limit:
        raise fault(name, f"expected two numbers that rise to {limit:g} at most, received {list(value)}.")
    return value


def window_sizes(height: int, width: int, area: Any, aspect: Any) -> tuple[Any, Any]:
    """Height and width of windows of some share of a picture's area, no larger than the picture, in pixels.

    Args:
        area: Share of the picture, `(examples,)`.
        aspect: Width by height of the window, beside that of the picture, `(examples,)`.
    """
    import tensorflow as tf

    tall = tf.minimum(tf.sqrt(area / aspect), 1.0)
    return tall * height, tf.minimum(tf.sqrt(area * aspect), 1.0) * width


def window_mask(height: int, width: int, top: Any, left: Any, tall: Any, wide: Any) -> Any:
    """Which pixels lie in a window of each picture, `(examples, height, width, 1)`, true or false."""
    import tensorflow as tf

    rows = tf.range(height, dtype=tf.float32)[None, :, None] + 0.5
    columns = tf.range(width, dtype=tf.float32)[None, None, :] + 0.5
    top, left, tall, wide = (each[:, None, None] for each in (top, left, tall, wide))
    within = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    return within[..., None]
