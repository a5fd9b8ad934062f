"""RandAugment: random operations, chosen for each picture (Cubuk, Zoph, Shlens and Le 2020)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli.augmentations import RandomSource, Strength, Transform
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False

_MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_COLOURS = ("brightness", "contrast", "sharpness", "solarize", "posterize", "auto_contrast", "saturation")


class Options(Kind):
    """RandAugment: rotation, shear, translation, brightness, sharpness, solarization and others, all equally likely.

    One of the operations leaves the image unchanged. Unlike in the paper, histograms are not equalized.
    """

    # Keras' RandAugment would draw the operations only once for the whole batch.
    kind: Literal["rand_augment"] = "rand_augment"
    num_ops: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Operations per image.")
    factor: Strength = Field(
        default=0.3,
        description="Strength of all operations: 1 rotates by 30 degrees, translates by 0.45 of the side and shears "
        "by 0.3.",
    )


def build(options: Options, column: Column) -> Transform:
    height, width, channels = column.shape
    colours = _COLOURS if channels == 3 else _COLOURS[:-1]
    operations = ("identity", *_MOVES, *colours)

    def change(pictures: Any, random: RandomSource) -> Any:
        import tensorflow as tf

        for _ in range(options.num_ops):
            chance, side = tf.unstack(random.uniform(2), axis=1)
            choice = tf.cast(chance * len(operations), tf.int32)
            strength = options.factor * tf.where(side < 0.5, -1.0, 1.0)
            # A graph cannot branch per picture: all operations are computed for all pictures, and masks select one.
            chosen = {name: choice == position for position, name in enumerate(operations)}
            pictures = _apply_geometry(pictures, chosen, strength, height, width)
            pictures = _apply_colour(pictures, {name: chosen[name] for name in colours}, strength)
        return pictures

    return change


def _apply_geometry(pictures: Any, chosen: dict[str, Any], strength: Any, height: int, width: int) -> Any:
    """Apply to each picture the chosen geometric operation around its centre, if it has one."""
    import keras
    import tensorflow as tf

    # All operations are affine: one matrix per picture, which is the identity if its strengths are all 0.
    by = {name: tf.where(chosen[name], strength, 0.0) for name in _MOVES}
    sine, cosine = tf.sin(by["rotate"] * math.pi / 6), tf.cos(by["rotate"] * math.pi / 6)
    across, down = 0.3 * by["shear_x"] - sine, 0.3 * by["shear_y"] + sine
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    start_x = middle_x * (1 - cosine) - across * middle_y + 0.45 * width * by["translate_x"]
    start_y = middle_y * (1 - cosine) - down * middle_x + 0.45 * height * by["translate_y"]
    none = tf.zeros_like(sine)
    matrix = tf.stack([cosine, across, start_x, down, cosine, start_y, none, none], axis=1)
    return keras.ops.image.affine_transform(pictures, matrix, fill_mode="reflect", data_format="channels_last")


def _apply_colour(pictures: Any, chosen: dict[str, Any], strength: Any) -> Any:
    """Apply to each picture the chosen operation on colours, if it has one."""
    import tensorflow as tf

    factor = 1 + 0.9 * strength[:, None, None, None]
    size = tf.abs(strength)[:, None, None, None]
    grey = tf.reduce_mean(pictures, axis=-1, keepdims=True)
    levels = 2.0 ** tf.round(8 - 4 * size) - 1
    low, high = (find(pictures, axis=(1, 2), keepdims=True) for find in (tf.reduce_min, tf.reduce_max))
    changed = {
        "brightness": pictures * factor,
        "contrast": _blend(tf.reduce_mean(grey, axis=(1, 2), keepdims=True), pictures, factor),
        "sharpness": _blend(tf.nn.avg_pool2d(pictures, 3, 1, "SAME"), pictures, factor),
        "saturation": _blend(grey, pictures, factor),
        "solarize": tf.where(pictures >= 1 - size, 1 - pictures, pictures),
        "posterize": tf.round(pictures * levels) / levels,
        "auto_contrast": tf.where(high > low, (pictures - low) / tf.where(high > low, high - low, 1.0), pictures),
    }
    for name, mask in chosen.items():
        pictures = tf.where(mask[:, None, None, None], tf.clip_by_value(changed[name], 0.0, 1.0), pictures)
    return pictures


def _blend(start: Any, end: Any, factor: Any) -> Any:
    """Interpolate between `start` (factor 0) and `end` (factor 1), or extrapolate."""
    return start + factor * (end - start)
