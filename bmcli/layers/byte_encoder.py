"""Encoding of raw texts as the bytes of UTF-8."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.token_encoder import TokenEncoder
from bmcli.token_ids import FIRST_TOKEN

_BYTES = 256


@keras.saving.register_keras_serializable(package="bmcli")
class ByteEncoder(TokenEncoder):
    """Ids of the bytes of texts: FIRST_TOKEN above their values.

    Further arguments are those of `TokenEncoder`.

    Args:
        length, bag: See `TokenEncoder`.

    Input shape:
        `(batch,)`, text.

    Output shape:
        `(batch, length)`, int32; of a bag `(batch, 2, length)`, bytes and counts.
    """

    def __init__(self, length: int, bag: bool, **kwargs: Any) -> None:
        super().__init__(FIRST_TOKEN + _BYTES, length, bag, **kwargs)

    def encode_ragged(self, texts):
        texts = self.normalize(texts)
        # One string of all texts, since texts of different lengths cannot be decoded at once.
        values = tf.io.decode_raw(tf.strings.reduce_join(texts, axis=0)[tf.newaxis], tf.uint8)[0]
        lengths = tf.cast(tf.strings.length(texts), "int64")
        return tf.RaggedTensor.from_row_lengths(tf.cast(values, "int64") + FIRST_TOKEN, lengths)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["size"]
        return config
