"""Kinds of tokens: each is fitted on training texts, and encodes and decodes texts.

    tokenizer = tokens.fit(options, Normalization(), texts, "written")
    ids, starts = tokenizer.encode_flat(texts)      # one array without padding, and where each text begins
    tokenizer.decode(ids[starts[3] : starts[4]])    # the normalised text of row 3, if the kind is lossless

The ids of every kind are 0 for padding, 1 for an unknown token, those of its tokens, and at last `begin` and `end`.
`tokenizer.to_state()` is plain JSON, which columns keep; `from_state` makes the same tokenizer of it.
`tokenizer.make_layer(length)` encodes raw texts in a graph, `bmcli.encoder` beside an artefact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bmcli import parts
from bmcli.column_records import StrictRecord, validate_record
from bmcli.normalization import Normalization
from bmcli.recipe.tokens import TokenOptions, TokensField
from bmcli.tokenization.base import Tokenizer, TokensError, Use

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT = "words"
"""The kind of tokens of texts that are read, unless a recipe names another one."""

_UNSPACED = "characters"


class TokenKind(Protocol):
    """Interface of the modules of this folder."""

    Options: type[TokenOptions]

    LOWERCASE: bool
    """Whether texts that are read are converted to lower case by default."""

    State: type[StrictRecord] | None
    """What a tokenizer keeps, which alone is accepted of an artefact; None if `from_state` checks it."""

    def fit(
        self, options: Any, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
    ) -> Tokenizer:
        """Fit a tokenizer on training texts.

        Raises:
            TokensError: No tokenizer can be made of the texts.
            BmcliError: A package is not installed.
        """

    def from_state(self, state: Mapping[str, Any]) -> Tokenizer:
        """Make the tokenizer of a state again."""


def kind_of(kind: str) -> TokenKind:
    """Return the module of a kind of tokens."""
    part: TokenKind = parts.load("tokens", kind)
    return part


def choose(use: Use, is_unspaced: bool) -> TokenOptions:
    """Return the kind of tokens that suits texts: words, or characters if written or in a script without blanks."""
    options: TokenOptions = TokensField().check(_UNSPACED if use == "written" or is_unspaced else DEFAULT)
    return options


def lowercases(options: TokenOptions, use: Use) -> bool:
    """Whether texts are converted to lower case by default, which those that are written never are."""
    return kind_of(options.kind).LOWERCASE and use != "written"


def fit(
    options: TokenOptions, normalization: Normalization, texts: Sequence[str] | pa.ChunkedArray, use: Use
) -> Tokenizer:
    """Fit a tokenizer on training texts.

    Raises:
        TokensError: No tokenizer can be made of the texts, or it does not give back those that are written.
        BmcliError: A package is not installed.
    """
    tokenizer = kind_of(options.kind).fit(options, normalization, texts, use)
    if use == "written" and not tokenizer.is_lossless:
        raise TokensError(
            f"{options.kind} do not give back the text, which `encoding: written` needs.",
            "Write `tokens: characters` or `tokens: bytes`, or words with `punctuation: keep` and without n-grams.",
            "kind",
        )
    return tokenizer


def check_state(state: Mapping[str, Any]) -> None:
    """Require the result of `to_state` of a tokenizer; that of an artefact may come from anywhere.

    Raises:
        ValueError: There is no such kind; or a value is missing, or of another type. The message begins with its path.
    """
    kind = state.get("kind")
    if kind not in parts.names("tokens"):
        raise ValueError(f"kind: tokens has no kind {kind!r}")
    record = kind_of(str(kind)).State
    if record is not None:
        validate_record(record, state)


def from_state(state: Mapping[str, Any]) -> Tokenizer:
    """Make a tokenizer of the result of its `to_state`."""
    return kind_of(state["kind"]).from_state(state)
