"""Encoded pictures to those a network sees: for preparing data, and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.image_encoder import fit_pictures
from bmcli.pictures import COMMENT_MARKER, EXIF, EXIF_MARKER, EXIF_SEARCH_BYTES, FIRST_MARKER, LAST_MARKER, ORIENTATION


@keras.saving.register_keras_serializable(package="bmcli")
class PictureDecoder(keras.layers.Layer):
    """Decodes JPEG, PNG, BMP and the first frame of GIF, converts channels and resizes.

    Transparency is dropped, 16 bits a channel become 8, and a JPEG picture is turned upright by what its camera noted.

    Args:
        size: Height and width of the output.
        channels: 1 for grey, 3 for colour.
        fit: As of `fit_pictures`.

    Input shape:
        `(batch,)`, the bytes of a file each, as strings; an empty one stands for a missing picture, which is black.

    Output shape:
        `(batch, *size, channels)`, uint8.
    """

    def __init__(self, size: Sequence[int], channels: int, fit: str = "stretch", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.fit = [int(side) for side in size], channels, fit

    def decode(self, data):
        """One picture, `(height, width, channels)`, from its bytes."""
        small = fit_pictures(decode_upright(data)[tf.newaxis], self.size, self.fit, antialias=True)[0]
        # Grey is one channel, or two with transparency.
        places = tf.where(tf.shape(small)[2] < 3, tf.constant([0, 0, 0]), tf.constant([0, 1, 2]))
        picture = tf.gather(small, places, axis=2)
        return tf.image.rgb_to_grayscale(picture) if self.channels == 1 else picture

    def call(self, inputs):
        shape = (*self.size, self.channels)

        def picture(data):
            return tf.cond(tf.equal(data, ""), lambda: tf.zeros(shape, tf.uint8), lambda: self.decode(data))

        return tf.map_fn(picture, inputs, fn_output_signature=tf.TensorSpec(shape, tf.uint8))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, *self.size, self.channels), "uint8")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "channels": self.channels, "fit": self.fit}


def decode_upright(data: Any) -> Any:
    """The picture of a file as it is looked at, uint8 `(height, width, channels)`, transparency included."""
    decoded = tf.io.decode_image(data, channels=0, dtype=tf.uint8, expand_animations=False)
    return _turn_upright(tf.ensure_shape(decoded, (None, None, None)), _orientation(data))


def _orientation(data):
    """What `bmcli.pictures.read_orientation` finds, int64 `()`; 1 for other formats than JPEG."""
    notes = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, EXIF_SEARCH_BYTES), tf.uint8), tf.int64)
    size = tf.size(notes, tf.int64)
    padded = tf.concat([notes, tf.zeros(1, tf.int64)], 0)

    def byte(places):
        return tf.gather(padded, tf.minimum(tf.cast(places, tf.int64), size))  # 0 where there is none

    def is_exif(place):
        names = tf.reduce_all(tf.equal(byte(place + 4 + tf.range(6, dtype=tf.int64)), list(EXIF)))
        return tf.equal(byte(place + 1), EXIF_MARKER) & names

    def is_segment(place):
        marker = byte(place + 1)
        is_note = tf.equal(marker, COMMENT_MARKER) | ((marker >= FIRST_MARKER) & (marker <= LAST_MARKER))
        return tf.equal(byte(place), 0xFF) & is_note & (place + 4 <= size)

    def goes_on(place):
        return is_segment(place) & ~is_exif(place)

    def after(place):
        return [place + 2 + 256 * byte(place + 2) + byte(place + 3)]

    is_jpeg = tf.reduce_all(tf.equal(byte(tf.range(3)), [0xFF, 0xD8, 0xFF]))
    (place,) = tf.while_loop(goes_on, after, [tf.constant(2, tf.int64)])
    return tf.cond(
        is_jpeg & is_segment(place), lambda: _read_orientation(byte, place + 10), lambda: tf.constant(1, tf.int64)
    )


def _read_orientation(byte, start):
    """The orientation in the directory of fields that begins at `start`, int64 `()`."""
    little = tf.reduce_all(tf.equal(byte(start + tf.range(2, dtype=tf.int64)), list(b"II")))

    def number(places, size=2):
        low_first = [byte(start + places + at) * 256**at for at in range(size)]
        high_first = [byte(start + places + at) * 256 ** (size - 1 - at) for at in range(size)]
        return tf.where(little, sum(low_first), sum(high_first))

    first = number(tf.constant(4, tf.int64), 4) + 2
    fields = first + 12 * tf.range(number(first - 2))
    is_orientation = tf.equal(number(fields), ORIENTATION)

    def found():
        value = number(fields[tf.argmax(tf.cast(is_orientation, tf.int32))] + 8)
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.reduce_any(is_orientation), found, lambda: tf.constant(1, tf.int64))


def _turn_upright(picture, orientation):
    """A picture `(height, width, channels)` as it is looked at, by one of the 8 ways that it may lie."""

    def among(*ways):
        return tf.reduce_any(tf.equal(orientation, ways))

    def turned():
        sideways = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
        mirrored = tf.cond(among(2, 3, 6, 7), lambda: sideways[:, ::-1], lambda: sideways)
        return tf.cond(among(3, 4, 7, 8), lambda: mirrored[::-1], lambda: mirrored)

    return tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: picture), (None, None, None))
