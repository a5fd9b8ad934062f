"""Decoding of picture files for a network; for preparing data and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.image_encoder import fit_pictures
from bmcli.pictures import (
    COMMENT_MARKER,
    EXIF,
    EXIF_MARKER,
    EXIF_SEARCH_BYTES,
    FIRST_MARKER,
    GIF_SEARCH_BYTES,
    LAST_MARKER,
    ORIENTATION,
    PNG_SEARCH_BYTES,
    SERVED_FORMATS,
)

WHITE = (255, 255, 255)


@keras.saving.register_keras_serializable(package="bmcli")
class PictureDecoder(keras.layers.Layer):
    """Pictures decoded from JPEG, PNG, BMP and the first frame of GIF, with other channels and another size.

    JPEG pictures are turned upright by their EXIF orientation. Transparent pixels show the background, unless there are
    four channels.

    Args:
        size: Height and width of the output.
        channels: 1 for grey, 3 for colour, 4 for colour and opacity.
        fit: `stretch`, `pad` or `crop`; see `fit_pictures`.
        background: Red, green and blue behind transparent pixels, from 0 to 255.
        bits: 8 for pixels from 0 to 255, 16 for those from 0 to 65,535, which files of 8 bits are scaled to.

    Input shape:
        `(batch,)`, the bytes of one file each, as strings; an empty one is a missing picture, which becomes black.

    Output shape:
        `(batch, *size, channels)`, uint8, or float32 for 16 bits.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int,
        fit: str = "stretch",
        background: Sequence[int] = WHITE,
        bits: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.fit = [int(side) for side in size], channels, fit
        self.background, self.bits = [int(value) for value in background], bits
        self.pixel_dtype = "uint8" if bits == 8 else "float32"

    def decode(self, data):
        """Decode one picture, `(height, width, channels)`, from its bytes."""
        picture = decode_upright(data, self.bits)
        if self.channels < 4:
            picture = _lay_on_background(picture, self.background)
        small = fit_pictures(tf.cast(picture, self.pixel_dtype)[tf.newaxis], self.size, self.fit, antialias=True)[0]
        # The number of channels is known only at run time: grey has one, or two with transparency.
        colours = tf.gather(small, _pick_colours(small), axis=2)
        if self.channels == 4:
            has_alpha = tf.equal(tf.shape(small)[2] % 2, 0)
            largest = tf.cast(2**self.bits - 1, small.dtype)
            alpha = tf.cond(has_alpha, lambda: small[..., -1:], lambda: tf.fill(tf.shape(small[..., -1:]), largest))
            return tf.concat([colours, alpha], -1)
        if self.channels == 3:
            return colours
        # The weights of the colours add up to 0.9999: grey pixels are kept as they are.
        return tf.cond(tf.shape(small)[2] < 3, lambda: small[..., :1], lambda: tf.image.rgb_to_grayscale(colours))

    def call(self, inputs):
        shape = (*self.size, self.channels)

        def decode_or_black(data):
            return tf.cond(tf.equal(data, ""), lambda: tf.zeros(shape, self.pixel_dtype), lambda: self.decode(data))

        # One by one, because pictures differ in size until they are resized.
        return tf.map_fn(decode_or_black, inputs, fn_output_signature=tf.TensorSpec(shape, self.pixel_dtype))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, *self.size, self.channels), self.pixel_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "channels": self.channels, "fit": self.fit}
        return {**super().get_config(), **config, "background": self.background, "bits": self.bits}


def decode_upright(data: Any, bits: int = 8) -> Any:
    """Decode a picture in its upright orientation, `(height, width, channels)` with transparency.

    Args:
        bits: 8 for uint8; 16 for uint16, to which files of 8 bits are scaled.
    """
    _, byte = _read_bytes(data, PNG_SEARCH_BYTES)
    is_png = _begins_with(byte, b"\x89PNG")
    is_bmp = _begins_with(byte, b"BM")
    # Other files are converted before they come here, or refused: see `ImageHeader.is_native`. Animated WebP pictures
    # make TensorFlow's decoder write beyond its memory.
    is_native = (
        is_png
        | _begins_with(byte, b"\xff\xd8\xff")
        | (is_bmp & _is_plain_bitmap(byte))
        | (_begins_with(byte, b"GIF8") & ~_has_transparent_frame(data))
    )
    check = tf.debugging.Assert(is_native, [f"expected a {SERVED_FORMATS} file without transparency in a GIF"])
    with tf.control_dependencies([] if check is None else [check]):
        data = tf.identity(data)
    decoded = tf.cond(is_png, lambda: _decode_png(data, byte, bits), lambda: _decode_bytes(data, bits))
    # The fourth byte of a bitmap without compression has no meaning.
    decoded = tf.cond(is_bmp, lambda: decoded[..., :3], lambda: decoded)
    return _turn_upright(tf.ensure_shape(decoded, (None, None, None)), _orientation(data))


def _decode_png(data, byte, bits):
    # Without channels, the decoder drops the one colour that stands for transparency in a picture without alpha.
    def decode(channels):
        return tf.io.decode_png(data, channels, tf.uint8 if bits == 8 else tf.uint16)

    return tf.cond(_has_transparent_colour(byte), lambda: decode(4), lambda: decode(0))


def _decode_bytes(data, bits):
    # By default a JPEG is transformed by an inexact method, from which the pixels of other decoders differ by several
    # levels: an artefact whose pictures are decoded outside of it would then see other pixels than the training did.
    def decode_jpeg():
        return tf.io.decode_jpeg(data, channels=0, dct_method="INTEGER_ACCURATE")

    # Neither decoder applies the EXIF orientation.
    def decode_other():
        return tf.io.decode_image(data, channels=0, dtype=tf.uint8, expand_animations=False)

    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    decoded = tf.cond(is_jpeg, decode_jpeg, decode_other)
    return decoded if bits == 8 else tf.cast(decoded, tf.uint16) * 257


def _lay_on_background(picture, background):
    """Lay a picture on a background, where it has two or four channels."""

    def lay():
        largest = picture.dtype.max
        colours = tf.cast(tf.gather(picture, _pick_colours(picture), axis=2), tf.float32)
        alpha = tf.cast(picture[..., -1:], tf.float32) / largest
        behind = tf.constant([value * (largest // 255) for value in background], tf.float32)
        return tf.saturate_cast(tf.round(colours * alpha + behind * (1 - alpha)), picture.dtype)

    return tf.ensure_shape(tf.cond(tf.equal(tf.shape(picture)[2] % 2, 0), lay, lambda: picture), (None, None, None))


def _pick_colours(picture):
    """Return the channels that are red, green and blue."""
    return tf.where(tf.shape(picture)[2] < 3, tf.constant([0, 0, 0]), tf.constant([0, 1, 2]))


def _read_bytes(data, limit):
    """Return the number of the first bytes of a file, and a function from places to bytes: int64, 0 beyond the end."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, limit), tf.uint8), tf.int64)
    size = tf.size(header, tf.int64)
    padded = tf.concat([header, tf.zeros(1, tf.int64)], 0)
    return size, lambda places: tf.gather(padded, tf.minimum(tf.cast(places, tf.int64), size))


def _begins_with(byte, magic):
    return tf.reduce_all(tf.equal(byte(tf.range(len(magic))), list(magic)))


def _is_plain_bitmap(byte):
    """Whether a BMP file has 24 or 32 bits a pixel, no compression, and no header of the oldest kind."""
    return tf.reduce_any(tf.equal(byte(28), [24, 32])) & tf.equal(byte(30), 0) & (byte(14) > 12)


def _has_transparent_frame(data):
    """Whether a GIF declares a transparent colour."""
    _, byte = _read_bytes(data, GIF_SEARCH_BYTES)
    places = tf.range(GIF_SEARCH_BYTES - 3)
    begins = tf.equal(byte(places), 0x21) & tf.equal(byte(places + 1), 0xF9) & tf.equal(byte(places + 2), 4)
    flags = byte(places + 3)
    return tf.reduce_any(begins & tf.equal(flags % 2, 1) & (flags < 32))


def _has_transparent_colour(byte):
    """Whether a PNG has a chunk of transparent colours, like `bmcli.pictures.read_header`."""

    def name_is(place, name):
        return tf.reduce_all(tf.equal(byte(place + 4 + tf.range(4, dtype=tf.int64)), list(name)))

    def is_other_chunk(place):
        is_end = (place + 8 > PNG_SEARCH_BYTES) | tf.equal(byte(place + 4), 0)
        return ~(is_end | name_is(place, b"IDAT") | name_is(place, b"tRNS"))

    def next_chunk(place):
        length = sum(byte(place + at) * 256 ** (3 - at) for at in range(4))
        return [place + 12 + length]

    (place,) = tf.while_loop(is_other_chunk, next_chunk, [tf.constant(8, tf.int64)])
    return name_is(place, b"tRNS")


def _orientation(data):
    """Read the EXIF orientation like `bmcli.pictures.read_orientation`, int64 `()`; 1 for other formats than JPEG."""
    # With graph operations, because served models decode files as well. JPEG is a list of segments: 0xFF, a marker, and
    # two bytes for the length of the rest.
    size, byte = _read_bytes(data, EXIF_SEARCH_BYTES)

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

    is_jpeg = _begins_with(byte, b"\xff\xd8\xff")
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
