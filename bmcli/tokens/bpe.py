"""Pieces of words by byte-pair encoding: the most frequent neighbours are joined again and again (Sennrich 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bmcli.normalization import Normalization
from bmcli.tokenization.base import Use
from bmcli.tokenization.pieces import PieceOptions, PiecesState, PieceTokenizer, fit_pieces

if TYPE_CHECKING:
    import pyarrow as pa

LOWERCASE = False
State = PiecesState


class Options(PieceOptions):
    """Pieces of words by byte-pair encoding. It needs the extra `text`."""

    kind: Literal["bpe"] = "bpe"


def fit(
    options: Options, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> PieceTokenizer:
    """Train the pieces with sentencepiece."""
    return fit_pieces("bpe", texts, normalization, options.size)


from_state = PieceTokenizer.from_state
