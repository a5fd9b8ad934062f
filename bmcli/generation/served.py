"""The functions of artefacts that write: texts from raw text to raw text, and one step of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bmcli.generation import Sampling
from bmcli.generation.loop import TokenLoop
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.tokenization.base import Tokenizer

# As Python's `str.isspace`, which `Tokenizer.find_joint` uses.
_ENDS_WITHOUT_SPACE = r"(?s).*[^\s\p{Z}\x{1C}-\x{1F}\x{85}]"


class ServedWriter:
    """Writer whose loop, tokens and limits are all in one graph.

    Args:
        window: Largest number of tokens that the network reads, with that of the begin.
        is_cached: See TokenLoop.
    """

    def __init__(self, network: IncrementalNetwork, tokenizer: Tokenizer, window: int, is_cached: bool) -> None:
        self._tokenizer = tokenizer
        self._loop = TokenLoop(network, tokenizer, window, is_cached)
        self.encoder = tokenizer.make_layer(1)

    def make_function(self) -> Any:
        """Make the function from tensors by name to tensors by name.

        Inputs are `prompt`, text `(batch,)`, and scalars: `tokens`, the largest number of tokens of a text, `seed`, and
        the fields of `Sampling`. Outputs are `text`, without the prompt, and `tokens`, their number, `(batch,)` both.
        """
        types = Sampling(tf.float32, tf.int32, tf.float32, tf.float32)
        scalars = {"tokens": tf.int32, "seed": tf.int32, **types._asdict()}
        specs = {
            "prompt": tf.TensorSpec([None], tf.string, name="prompt"),
            **{name: tf.TensorSpec([], dtype, name=name) for name, dtype in scalars.items()},
        }
        return tf.function(self._write, input_signature=[specs], autograph=False)

    def _write(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        prompts = tensors["prompt"]
        sampling = Sampling(*(tensors[name] for name in Sampling._fields))
        encoded = tf.cast(self.encoder.encode_ragged(prompts), tf.int32)
        begin = tf.fill([encoded.nrows(), 1], self._tokenizer.begin)
        ids, counts = self._loop.write(
            tf.concat([begin, encoded], axis=1), tensors["tokens"], tensors["seed"], sampling
        )
        return {"text": self._decode(prompts, ids), "tokens": counts}

    def _decode(self, prompts: Any, ids: Any) -> Any:
        """Decode ids as `Tokenizer.decode` does, with what stands between a prompt and the first token."""
        parts = tf.gather(tf.constant(list(self._tokenizer.written)), ids)
        parts = tf.ragged.boolean_mask(parts, parts != "")
        separator = self._tokenizer.separator
        texts = tf.strings.reduce_join(parts, axis=1, separator=separator)
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        has_joint = tf.strings.regex_full_match(prompts, _ENDS_WITHOUT_SPACE) & (parts.row_lengths() > 0)
        return tf.where(has_joint, separator, "") + texts


class ServedStep:
    """One step of a network, with what is kept of the steps before as tensors.

    Args:
        window: Largest number of tokens that the network reads.
    """

    def __init__(self, network: IncrementalNetwork, window: int) -> None:
        self._network = network
        self._template = network.make_caches(1, window)

    @property
    def caches(self) -> list[Any]:
        """Caches before the first step of one text, all of them zeros, in their order."""
        return list(tf.nest.flatten(self._template))

    def make_function(self, names: Sequence[str]) -> Any:
        """Make the function from tensors by name to tensors by name.

        Inputs are `token`, int32 `(batch,)`, `position`, a scalar, and the caches; outputs are `logits` of the next
        token, float32 `(batch, tokens)`, and the caches after the step.

        Args:
            names: Of the caches.
        """
        specs = {
            "token": tf.TensorSpec([None], tf.int32, name="token"),
            "position": tf.TensorSpec([], tf.int32, name="position"),
            **{
                name: tf.TensorSpec([None, *each.shape[1:]], each.dtype, name=name)
                for name, each in zip(names, self.caches, strict=True)
            },
        }

        def step(tensors: Mapping[str, Any]) -> dict[str, Any]:
            caches = tf.nest.pack_sequence_as(self._template, [tensors[name] for name in names])
            logits, caches = self._network.advance(tensors["token"], caches, tensors["position"])
            return {"logits": logits, **dict(zip(names, tf.nest.flatten(caches), strict=True))}

        return tf.function(step, input_signature=[specs], autograph=False)
