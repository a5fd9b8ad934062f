"""Characters of Unicode, for names, for scripts without blanks, and for texts that are written."""

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
    """Characters."""

    kind: Literal["characters"] = "characters"
    min_count: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Minimum frequency of a term in the training rows; rarer terms are unknown. By default 2, and 1 "
        "for a text that is written.",
    )
    punctuation: Literal["drop", "keep"] = Field(
        default="keep", description="`keep` punctuation marks, or `drop`: they are spaces."
    )
    spaces: Literal["collapse", "keep"] | None = Field(
        default=None,
        description="`collapse` blanks, tabs and line ends in a row to one blank, and remove those around a text; or "
        "`keep` every one. By default keep for a text that is written, otherwise collapse.",
    )

    edges: bool = Field(
        default=False,
        description="Add a blank before and after each text, so that n-grams show how it begins and ends.",
    )


def fit(
    options: Options, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> TermTokenizer:
    """Fit the most frequent characters."""
    is_written = use == "written"
    splitting = TermSplitting(
        "characters",
        options.ngrams or ((1, 4) if use == "bag" else (1, 1)),
        options.punctuation,
        options.spaces or ("keep" if is_written else "collapse"),
        options.edges,
    )
    return fit_terms(texts, normalization, splitting, options.size, options.min_count or (1 if is_written else 2))


from_state = TermTokenizer.from_state
