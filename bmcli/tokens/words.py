"""Words between spaces, and signs of punctuation; terms are words, or several in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bmcli.normalization import Normalization
from bmcli.tokenization.base import Use
from bmcli.tokenization.terms import TermOptions, TermSplitting, TermsState, TermTokenizer, fit_terms

if TYPE_CHECKING:
    import pyarrow as pa

LOWERCASE = True
State = TermsState


class Options(TermOptions):
    """Words between spaces."""

    kind: Literal["words"] = "words"
    min_count: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Minimum frequency of a term in the training rows; rarer terms are unknown."
    )
    punctuation: Literal["split", "drop", "keep"] | None = Field(
        default=None,
        description="`split`: punctuation marks are tokens; `drop`: they are spaces; `keep`: they belong to the "
        "adjacent word. By default keep for a text that is written, which words between single blanks give back, "
        "otherwise split.",
    )


def fit(
    options: Options, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> TermTokenizer:
    """Fit the most frequent words."""
    ngrams = options.ngrams or ((1, 2) if use == "bag" else (1, 1))
    splitting = TermSplitting("words", ngrams, options.punctuation or ("keep" if use == "written" else "split"))
    return fit_terms(texts, normalization, splitting, options.size, options.min_count)


from_state = TermTokenizer.from_state
