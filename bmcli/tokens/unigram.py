"""Pieces of words by a unigram language model (Kudo 2018): the most probable split of each word."""

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
    """Pieces of words by a unigram language model. It needs the extra `text`."""

    kind: Literal["unigram"] = "unigram"


def fit(
    options: Options, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> PieceTokenizer:
    """Train the pieces with sentencepiece."""
    return fit_pieces("unigram", texts, normalization, options.size)


from_state = PieceTokenizer.from_state
