"""Number of tokens of training texts, and how many of them each text keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from bmcli.token_ids import FIRST_TOKEN, UNKNOWN
from bmcli.tokenization.base import Tokenizer, Use, split_batches

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_MAX_LENGTH = 100_000
TokenCount: TypeAlias = Annotated[int, Field(ge=1, le=_MAX_LENGTH)]
"""Number of tokens of a text, as a recipe writes it."""

# Share of the training texts that are complete by default, and the most tokens that a text then has.
_USUAL: Mapping[Use, tuple[float, int]] = {"bag": (0.99, 2048), "sequence": (0.95, 512), "written": (1.0, 1024)}


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of the training texts.

    Args:
        texts_by_token: Number of texts that contain each token, from FIRST_TOKEN on; of a bag.
        lengths: Number of tokens of each text; in a bag the distinct known ones.
        unknown_share: Share of unknown tokens.
    """

    texts_by_token: np.ndarray
    lengths: np.ndarray
    unknown_share: float

    def measure_cut(self, length: int) -> float:
        """Measure the share of the tokens that a length cuts off."""
        total = int(self.lengths.sum())
        return float((self.lengths - length).clip(0).sum() / total) if total else 0.0


def count_tokens(texts: pa.ChunkedArray, tokenizer: Tokenizer, is_bag: bool) -> TokenCounts:
    """Count the tokens of training texts."""
    import numpy as np

    layer = tokenizer.make_layer(1, is_bag)
    size = tokenizer.inner_size
    texts_by_token, lengths = np.zeros(size - FIRST_TOKEN, "int64"), [np.zeros(0, "int64")]
    unknown = total = 0
    for batch in split_batches(texts):
        ids = layer.encode_ragged(batch)
        unknown += int(np.count_nonzero(ids.values.numpy() == UNKNOWN))
        total += int(ids.values.shape[0])
        if is_bag:
            ids, _ = layer.count_known(ids)
            texts_by_token += np.bincount(ids.values.numpy() - FIRST_TOKEN, minlength=size - FIRST_TOKEN)
        lengths.append(ids.row_lengths().numpy())
    return TokenCounts(texts_by_token, np.concatenate(lengths), unknown / total if total else 0.0)


def choose_length(wanted: float | None, lengths: np.ndarray, use: Use, ends: int = 0) -> int:
    """Choose how many tokens of a text are kept.

    Args:
        wanted: Their number, a share of the texts that are kept as a whole, or None for the usual share.
        lengths: Number of tokens of each training text.
        ends: Number of tokens of its begin and end.
    """
    import numpy as np

    if isinstance(wanted, int):
        return wanted
    share, longest = _USUAL[use] if wanted is None else (wanted, _MAX_LENGTH)
    return int(np.clip(np.quantile(lengths, share, method="higher") + ends, 1 + ends, longest))
