"""Tokenizers with a vocabulary of words or characters, or of sequences of them: n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli.normalization import Normalization, Punctuation, Spaces, collapse_spaces, drop_punctuation
from bmcli.recipe.fields import fault
from bmcli.recipe.tokens import TokenOptions
from bmcli.token_ids import FIRST_TOKEN, UNKNOWN
from bmcli.tokenization.base import (
    UNKNOWN_SIGN,
    Tokenizer,
    TokenizerState,
    TokensError,
    read_normalization,
    split_batches,
    start_state,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.text_encoder import TextEncoder

Unit = Literal["words", "characters"]
_Count = Annotated[int, Field(ge=1, le=16)]

# Terms that are counted at once. Nearly every long n-gram is a new term, so their counts could exhaust the memory.
_MAX_COUNTED = 4_000_000


class TermOptions(TokenOptions):
    """Base class of the options of kinds with a vocabulary of terms."""

    ngrams: tuple[_Count, _Count] | None = Field(
        default=None,
        description="Shortest and longest n-gram, in tokens. By default [1, 2] for words, [1, 4] for characters, and "
        "[1, 1] in a sequence.",
    )
    size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=20_000, description="Maximum size of the vocabulary: the most frequent terms of the training rows."
    )

    @model_validator(mode="after")
    def _check_ngrams(self) -> TermOptions:
        if self.ngrams is not None and self.ngrams[0] > self.ngrams[1]:
            raise fault("ngrams", f"expected [shortest, longest], received {list(self.ngrams)}.")
        return self

    @property
    def keeps_order(self) -> bool:
        return self.ngrams is None or self.ngrams[0] == self.ngrams[1]


@dataclass(frozen=True)
class TermSplitting:
    """How texts are split into terms.

    Args:
        unit: What a token is.
        ngrams: Numbers of tokens of the shortest and the longest term.
        punctuation: `split`: each sign is a token; `drop`: signs are spaces; `keep`: they are part of words.
        spaces: `collapse` those in a row to one, and remove those around a text; or `keep` every one.
        edges: Put a space before and after each text that is not empty.
    """

    unit: Unit
    ngrams: tuple[int, int]
    punctuation: Punctuation
    spaces: Spaces = "collapse"
    edges: bool = False

    @property
    def is_lossless(self) -> bool:
        """Whether terms in a row give back the text, as `TermTokenizer.normalize` returns it.

        Signs that are split from their words leave no trace of where blanks were.
        """
        if self.unit == "words":
            return self.ngrams == (1, 1) and self.punctuation != "split"
        return self.is_single_character

    @property
    def is_single_character(self) -> bool:
        """Whether each term is one character, which NumPy splits."""
        return self.unit == "characters" and self.ngrams == (1, 1)


class TermsState(TokenizerState):
    """What a tokenizer of words or characters keeps in a run."""

    kind: Literal["words", "characters"]
    vocabulary: tuple[str, ...]
    ngrams: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]]
    punctuation: Literal["keep", "drop", "split"]
    spaces: Literal["collapse", "keep"]
    edges: bool


@dataclass(frozen=True)
class TermTokenizer(Tokenizer):
    """Terms of a vocabulary, the most frequent first.

    Args:
        vocabulary: The distinct terms.
    """

    splitting: TermSplitting
    vocabulary: tuple[str, ...]

    has_numpy_encoder: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return self.splitting.unit

    @property
    def inner_size(self) -> int:
        return FIRST_TOKEN + len(self.vocabulary)

    @property
    def is_lossless(self) -> bool:
        return self.splitting.is_lossless

    @property
    def has_words(self) -> bool:
        # Without a mark of an accent, a text may lose a word of nothing but marks.
        return self.splitting == TermSplitting("words", (1, 1), "keep") and self.normalization.accents == "keep"

    @property
    def separator(self) -> str:  # type: ignore[override]  # a constant of most kinds
        return " " if self.splitting.unit == "words" else ""

    def normalize(self, text: str) -> str:
        return _normalize(text, self.normalization, self.splitting)

    def encode_flat(self, texts: Sequence[str] | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        if not self.splitting.is_single_character:
            return super().encode_flat(texts)
        codes, order = self._sorted_codes
        ids, lengths = [np.zeros(0, "int32")], [np.zeros(1, "int64")]
        for characters, counts in _split_characters(texts, self.normalization, self.splitting):
            place = np.minimum(np.searchsorted(codes, characters), len(codes) - 1)
            found = codes[place] == characters
            ids.append(np.where(found, order[place] + FIRST_TOKEN, UNKNOWN).astype("int32"))
            lengths.append(counts)
        return np.concatenate(ids), np.cumsum(np.concatenate(lengths))

    @cached_property
    def _sorted_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Code points of the vocabulary in ascending order, and the position of each in it."""
        import numpy as np

        codes = np.array([ord(character) for character in self.vocabulary], "uint32")
        order = np.argsort(codes)
        return codes[order], order

    @cached_property
    def written(self) -> Sequence[bytes]:
        return [b"", UNKNOWN_SIGN.encode(), *(term.encode() for term in self.vocabulary), b"", b""]

    def get_token(self, number: int) -> str:
        return "?" if number == UNKNOWN else self.written[number].decode()

    def to_state(self) -> dict[str, Any]:
        splitting = {name: value for name, value in asdict(self.splitting).items() if name != "unit"}
        state = {**start_state(self), **splitting, "vocabulary": list(self.vocabulary)}
        return {**state, "ngrams": list(self.splitting.ngrams)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TermTokenizer:
        """Make the tokenizer of a state."""
        low, high = state["ngrams"]
        splitting = TermSplitting(state["kind"], (low, high), state["punctuation"], state["spaces"], state["edges"])
        return cls(read_normalization(state), splitting, tuple(state["vocabulary"]))

    def make_layer(self, length: int, bag: bool = False) -> TextEncoder:
        return _make_layer(self.vocabulary, length, bag, self.normalization, self.splitting)

    def describe(self) -> str:
        low, high = self.splitting.ngrams
        unit = self.splitting.unit
        parts = {1: "", high: f" of {high} {unit}"}.get(low, f" of {low} to {high} {unit}")
        count = f"{len(self.vocabulary):,}"
        if (low, high) == (1, 1):
            return f"{count} {unit}"
        return f"{count} terms{parts or f' of 1 to {high} {unit}'}"


def fit_terms(
    texts: Sequence[str] | pa.ChunkedArray,
    normalization: Normalization,
    splitting: TermSplitting,
    size: int,
    min_count: int,
) -> TermTokenizer:
    """Fit the most frequent terms of training texts; terms of equal frequency are in alphabetical order.

    Args:
        size: Largest number of terms.
        min_count: Smallest number of occurrences of a term.

    Raises:
        TokensError: The texts have no terms, or none that is frequent enough.
    """
    counts: Counter[bytes] = Counter()
    for some in _count_terms(texts, normalization, splitting):
        counts.update(some)
        if len(counts) > _MAX_COUNTED:  # Rare terms are dropped, so that counts are lower bounds from here on.
            counts = Counter(dict(_rank_terms(counts)[: _MAX_COUNTED // 2]))
    if not counts:
        raise TokensError(f"the training rows have no text with {splitting.unit}.")
    vocabulary = [term.decode() for term, count in _rank_terms(counts)[:size] if count >= min_count]
    if not vocabulary:
        message = f"no term occurs {min_count} times in the training rows."
        raise TokensError(message, "Write `min_count: 1` among the options of `tokens`.", "min_count")
    return TermTokenizer(normalization, splitting, tuple(vocabulary))


def _rank_terms(counts: Mapping[bytes, int]) -> list[tuple[bytes, int]]:
    # Ties are broken by the term, so that the vocabulary does not depend on the order of the rows.
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _count_terms(
    texts: Sequence[str] | pa.ChunkedArray, normalization: Normalization, splitting: TermSplitting
) -> Iterator[Mapping[bytes, int]]:
    import numpy as np

    if splitting.is_single_character:
        for characters, _ in _split_characters(texts, normalization, splitting):
            codes, occurrences = np.unique(characters, return_counts=True)
            pairs = zip(codes.tolist(), occurrences.tolist(), strict=True)
            yield {chr(code).encode(): count for code, count in pairs}
        return
    layer = _make_layer((), 1, False, normalization, splitting)
    for batch in split_batches(texts):
        yield layer.count_terms(batch)


def _split_characters(
    texts: Sequence[str] | pa.ChunkedArray, normalization: Normalization, splitting: TermSplitting
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the code points of some texts together, uint32 `(characters,)`, and the number of each text."""
    import numpy as np

    for batch in split_batches(texts):
        plain = [_normalize(text, normalization, splitting) for text in batch.tolist()]
        yield np.frombuffer("".join(plain).encode("utf-32-le"), "<u4"), np.array([*map(len, plain)], "int64")


def _normalize(text: str, normalization: Normalization, splitting: TermSplitting) -> str:
    text = normalization.apply(text)
    text = drop_punctuation(text) if splitting.punctuation == "drop" else text
    text = collapse_spaces(text) if splitting.spaces == "collapse" else text
    return f" {text} " if splitting.edges and text else text


def _make_layer(
    vocabulary: Sequence[str], length: int, bag: bool, normalization: Normalization, splitting: TermSplitting
) -> TextEncoder:
    from bmcli.layers.text_encoder import TextEncoder

    return TextEncoder(
        vocabulary,
        length,
        bag,
        tokens=splitting.unit,
        ngrams=splitting.ngrams,
        punctuation=splitting.punctuation,
        spaces=splitting.spaces,
        edges=splitting.edges,
        **asdict(normalization),
    )
