"""Ids of texts with padding, as layers encode them, from those without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmcli.token_ids import PADDING, UNKNOWN
from bmcli.tokenization.base import Tokenizer


def encode_padded(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """Encode texts as int32 `(texts, length)`: the first ids of each, then padding; an empty text is unknown."""
    ids, starts = tokenizer.encode_flat(texts)
    lengths = np.minimum(np.diff(starts), length)
    encoded = np.full((len(lengths), length), PADDING, "int32")
    is_token = np.arange(length) < lengths[:, None]
    encoded[is_token] = ids[(starts[:-1, None] + np.arange(length))[is_token]]
    encoded[lengths == 0, 0] = UNKNOWN
    return encoded
