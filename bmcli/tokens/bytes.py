"""Bytes of UTF-8: 256 tokens for every text of the world, none of them unknown, and nothing to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bmcli.normalization import Normalization
from bmcli.recipe.tokens import TokenOptions
from bmcli.token_ids import FIRST_TOKEN
from bmcli.tokenization.base import (
    UNKNOWN_SIGN,
    Tokenizer,
    TokenizerState,
    Use,
    read_normalization,
    split_batches,
    start_state,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.byte_encoder import ByteEncoder

LOWERCASE = False

_BYTES = 256


class Options(TokenOptions):
    """Bytes of UTF-8, of which every text is made."""

    kind: Literal["bytes"] = "bytes"


class State(TokenizerState):
    """What the tokenizer keeps in a run."""

    kind: Literal["bytes"]


@dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """Each byte of UTF-8, FIRST_TOKEN above its value."""

    kind: ClassVar[str] = "bytes"
    has_numpy_encoder: ClassVar[bool] = True

    @property
    def inner_size(self) -> int:
        return FIRST_TOKEN + _BYTES

    def encode_flat(self, texts: Sequence[str] | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        ids, lengths = [np.zeros(0, "int32")], [np.zeros(1, "int64")]
        for batch in split_batches(texts):
            written = [self.normalize(text).encode() for text in batch.tolist()]
            ids.append(np.frombuffer(b"".join(written), "uint8").astype("int32") + FIRST_TOKEN)
            lengths.append(np.array([*map(len, written)], "int64"))
        return np.concatenate(ids), np.cumsum(np.concatenate(lengths))

    @cached_property
    def written(self) -> Sequence[bytes]:
        return [b"", UNKNOWN_SIGN.encode(), *(bytes([value]) for value in range(_BYTES)), b"", b""]

    def get_token(self, number: int) -> str:
        value = number - FIRST_TOKEN
        return chr(value) if 0x20 <= value < 0x7F else f"<{value:02X}>" if 0 <= value < _BYTES else "?"

    def to_state(self) -> dict[str, Any]:
        return start_state(self)

    def make_layer(self, length: int, bag: bool = False) -> ByteEncoder:
        from bmcli.layers.byte_encoder import ByteEncoder

        return ByteEncoder(length, bag, **asdict(self.normalization))

    def describe(self) -> str:
        return "the 256 bytes"


def fit(
    options: Options, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> ByteTokenizer:
    """Make the tokenizer, which has nothing to fit."""
    return ByteTokenizer(normalization)


def from_state(state: Mapping[str, Any]) -> ByteTokenizer:
    """Make the tokenizer of a state again."""
    return ByteTokenizer(read_normalization(state))
