"""Decoding of picture files for a network; for preparing data and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.image_encoder import fit_pictures
from bmcli.pictures import COMMENT_MARKER, EXIF, EXIF_MARKER, EXIF_SEARCH_BYTES, FIRST_MARKER, LAST_MARKER, ORIENTATION


@keras.saving.register_keras_serializable(package="bmcli")
class PictureDecoder(keras.layers.Layer):
    """Pictures decoded from JPEG, PNG, BMP and the first frame of GIF, with other channels and another size.

    Transparency is dropped, 16 bits per channel become 8, and JPEG pictures are turned upright by their EXIF
    orientation.

    Args:
        size: Height and width of the output.
        channels: 1 for grey, 3 for colour.
        fit: `stretch`, `pad` or `crop`; see `fit_pictures`.

    Input shape:
        `(batch,)`, the bytes of one file each, as strings; an empty one is a missing picture, which becomes black.

    Output shape:
        `(batch, *size, channels)`, uint8.
    """

    def __init__(self, size: Sequence[int], channels: int, fit: str = "stretch", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.fit = [int(side) for side in size], channels, fit

    def decode(self, data):
        """Decode one picture, `(height, width, channels)`, from its bytes."""
        small = fit_pictures(decode_upright(data)[tf.newaxis], self.size, self.fit, antialias=True)[0]
        # The number of channels is known only at run time: grey has one, or two with transparency.
        places = tf.where(tf.shape(small)[2] < 3, tf.constant([0, 0, 0]), tf.constant([0, 1, 2]))
        picture = tf.gather(small, places, axis=2)
        return tf.image.rgb_to_grayscale(picture) if self.channels == 1 else picture

    def call(self, inputs):
        shape = (*self.size, self.channels)

        def decode_or_black(data):
            return tf.cond(tf.equal(data, ""), lambda: tf.zeros(shape, tf.uint8), lambda: self.decode(data))

        # One by one, because pictures differ in size until they are resized.
        return tf.map_fn(decode_or_black, inputs, fn_output_signature=tf.TensorSpec(shape, tf.uint8))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, *self.size, self.channels), "uint8")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "channels": self.channels, "fit": self.fit}


def decode_upright(data: Any) -> Any:
    """Decode a picture in its upright orientation, uint8 `(height, width, channels)`, with transparency."""
    # `decode_image` ignores the EXIF orientation.
    decoded = tf.io.decode_image(data, channels=0, dtype=tf.uint8, expand_animations=False)
    return _turn_upright(tf.ensure_shape(decoded, (None, None, None)), _orientation(data))


def _orientation(data):
    """Read the EXIF orientation like `bmcli.pictures.read_orientation`, int64 `()`; 1 for other formats than JPEG."""
    # With graph operations, because served models decode files as well. JPEG is a list of segments: 0xFF, a marker, and
    # two bytes for the length of the rest.
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, EXIF_SEARCH_BYTES), tf.uint8), tf.int64)
    size = tf.size(header, tf.int64)
    padded = tf.concat([header, tf.zeros(1, tf.int64)], 0)

    def byte(places):
        return tf.gather(padded, tf.minimum(tf.cast(places, tf.int64), size))  # 0 beyond the end

    def is_exif(place):
        names = tf.reduce_all(tf.equal(byte(place + 4 + tf.range(6, dtype=tf.int64)), list(EXIF)))
        return tf.equal(byte(place + 1), EXIF_MARKER) & names

    def is_segment(place):
        marker = byte(place + 1)
        is_metadata = tf.equal(marker, COMMENT_MARKER) | ((marker >= FIRST_MARKER) & (marker <= LAST_MARKER))
        return tf.equal(byte(place), 0xFF) & is_metadata & (place + 4 <= size)

    def is_other_segment(place):
        return is_segment(place) & ~is_exif(place)

    def next_segment(place):
        return [place + 2 + 256 * byte(place + 2) + byte(place + 3)]

    is_jpeg = tf.reduce_all(tf.equal(byte(tf.range(3)), [0xFF, 0xD8, 0xFF]))
    (place,) = tf.while_loop(is_other_segment, next_segment, [tf.constant(2, tf.int64)])
    return tf.cond(
        is_jpeg & is_segment(place), lambda: _read_orientation(byte, place + 10), lambda: tf.constant(1, tf.int64)
    )


def _read_orientation(byte, start):
    """Read the orientation from the TIFF header that begins at `start`, int64 `()`."""
    # The header begins with the byte order, II or MM, and the offset of a list of fields of 12 bytes each.
    is_little_endian = tf.reduce_all(tf.equal(byte(start + tf.range(2, dtype=tf.int64)), list(b"II")))

    def number(places, size=2):
        little = [byte(start + places + at) * 256**at for at in range(size)]
        big = [byte(start + places + at) * 256 ** (size - 1 - at) for at in range(size)]
        return tf.where(is_little_endian, sum(little), sum(big))

    first = number(tf.constant(4, tf.int64), 4) + 2
    fields = first + 12 * tf.range(number(first - 2))
    is_orientation = tf.equal(number(fields), ORIENTATION)

    def read_value():
        value = number(fields[tf.argmax(tf.cast(is_orientation, tf.int32))] + 8)
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.reduce_any(is_orientation), read_value, lambda: tf.constant(1, tf.int64))


def _turn_upright(picture, orientation):
    """Turn a picture `(height, width, channels)` upright, by its orientation from 1 (upright) to 8."""

    def is_one_of(*orientations):
        return tf.reduce_any(tf.equal(orientation, orientations))

    def turn():
        # Each orientation is a transposition, then a flip of columns, then one of rows, or some of them.
        transposed = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
        mirrored = tf.cond(is_one_of(2, 3, 6, 7), lambda: transposed[:, ::-1], lambda: transposed)
        return tf.cond(is_one_of(3, 4, 7, 8), lambda: mirrored[::-1], lambda: mirrored)

    return tf.ensure_shape(tf.cond(orientation > 1, turn, lambda: picture), (None, None, None))
