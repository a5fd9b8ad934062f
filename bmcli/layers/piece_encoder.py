"""Encoding of raw texts as pieces of words, by the operation of tensorflow-text for sentencepiece."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.token_encoder import TokenEncoder
from bmcli.native_output import hide_native_stderr
from bmcli.token_ids import FIRST_TOKEN

_BYTES = 256
_MARK = "\x00"  # in no normalised text


@keras.saving.register_keras_serializable(package="bmcli")
class PieceEncoder(TokenEncoder):
    """Ids of the pieces of texts, and of the bytes that no piece covers. It needs the package tensorflow-text.

    Further arguments are those of `TokenEncoder`.

    Args:
        algorithm: `bpe` or `unigram`.
        pieces: Texts of the pieces; U+2581 is a space.
        scores: Score of each.
        length, bag: See `TokenEncoder`.

    Input shape:
        `(batch,)`, text.

    Output shape:
        `(batch, length)`, int32; of a bag `(batch, 2, length)`, pieces and counts.
    """

    def __init__(
        self, algorithm: str, pieces: Sequence[str], scores: Sequence[float], length: int, bag: bool, **kwargs: Any
    ) -> None:
        super().__init__(FIRST_TOKEN + _BYTES + len(pieces), length, bag, **kwargs)
        self.algorithm, self.pieces, self.scores = algorithm, list(pieces), list(scores)
        with hide_native_stderr():  # it logs that there is no table of normalisation
            import tensorflow_text

            model = _write_model(algorithm, pieces, scores)
            # Models of one name are one in a SavedModel, and in a process that loads several.
            name = f"pieces_{hashlib.sha256(model).hexdigest()}"
            self.splitter = tensorflow_text.SentencepieceTokenizer(model=model, name=name)
            self.splitter.tokenize([""])

    def encode_ragged(self, texts):
        texts = tf.strings.regex_replace(self.normalize(texts), "\u2581", " ")
        # Words with the space before them: no piece has one elsewhere.
        words = tf.strings.split(tf.strings.regex_replace(texts, " ", _MARK + " "), _MARK)
        distinct, index = tf.unique(words.values)
        ids = tf.gather(self.splitter.tokenize(distinct), index)
        return tf.cast(words.with_values(ids).merge_dims(1, 2), "int64")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["size"]
        return {**config, "algorithm": self.algorithm, "pieces": self.pieces, "scores": self.scores}


def _write_model(algorithm: str, pieces: Sequence[str], scores: Sequence[float]) -> bytes:
    """Write the model file of sentencepiece."""
    from sentencepiece import sentencepiece_model_pb2 as definitions

    model = definitions.ModelProto()
    model.trainer_spec.model_type = definitions.TrainerSpec.ModelType.Value(algorithm.upper())
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.pad_id, model.trainer_spec.unk_id = 0, 1
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    kinds = definitions.ModelProto.SentencePiece
    model.pieces.add(piece="<pad>", score=0.0, type=kinds.CONTROL)
    model.pieces.add(piece="<unk>", score=0.0, type=kinds.UNKNOWN)
    for value in range(_BYTES):
        model.pieces.add(piece=f"<0x{value:02X}>", score=0.0, type=kinds.BYTE)
    for piece, score in zip(pieces, scores, strict=True):
        model.pieces.add(piece=piece, score=score, type=kinds.NORMAL)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model.SerializeToString(deterministic=True)
