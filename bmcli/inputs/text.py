"""Text input: tokens of any kind as a bag, as TF-IDF, or as a sequence.

The vocabulary is fitted on the training rows. A token outside of it is left out of a bag, and is the unknown token of a
sequence. A missing text is an empty one: an empty bag, or a sequence of one unknown token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from bmcli import tokens
from bmcli.column_records import ColumnRecord, Count, Fraction, Numbers, StrictRecord
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, EdgeCell, Feature, Form, Guess, InputTraits, TokenSummary, make_object_array
from bmcli.normalization import Normalization
from bmcli.quoting import quoted
from bmcli.raw_columns import UNKNOWN_TEXT, ColumnCells, RawColumn, is_text_column, require_values
from bmcli.recipe.fields import Share, fault
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.tokens import TokenOptions, TokensField
from bmcli.specs import Column
from bmcli.token_ids import FIRST_TOKEN, PADDING
from bmcli.tokenization.base import Ending, Tokenizer, TokensError, Use, split_batches
from bmcli.tokenization.lengths import TokenCount, choose_length, count_tokens
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import numpy as np

    from bmcli.layers.token_encoder import TokenEncoder

_DEFAULT_EMBEDDING = 64
_SEQUENCES = ("sequence", "written")
_HEAD = 80  # characters by which most texts are found to have a known token
_MAX_RANDOM_TOKENS = 20  # of a random text
_MANY_DISTINCT = 50  # distinct cells from which on a column may be prose
_MAX_WORDS_OF_NAMES, _MIN_WORDS_OF_SENTENCES = 1.5, 5.0  # mean number of words of a cell
_MIN_ROWS_PER_LETTER = 2.0  # of prose without blanks; characters that do not repeat are codes, from which none learns


class Options(InputOptions):
    """One text per row, split into tokens."""

    kind: Literal["text"] = "text"
    encoding: Literal["auto", "bag", "tfidf", "sequence", "written"] = Field(
        default="auto",
        description="Encoding of the text: `bag`, a vector of token counts; `tfidf`, counts weighted by inverse "
        "document frequency, with norm 1; `sequence`, a sequence of embeddings, for rnn, cnn and transformer; "
        "`written`, a sequence between tokens of its begin and end, whose tokens give back the text, for language "
        "models. `auto` is tfidf.",
    )
    end: bool | None = Field(
        default=None,
        description="Whether the end of a text that is written has a token, so that a model learns where to stop; true "
        "by default. Write false for windows of longer documents, which end anywhere.",
    )
    mask: bool = Field(
        default=False,
        description="Give a sequence an id for hidden tokens, which `objective: masked_language_model` needs. A "
        "network that starts from such a training (`model.from`) has it, too.",
    )
    tokens: Annotated[TokenOptions | None, TokensField()] = Field(
        default=None,
        description="Unit of tokenisation. By default characters for a text that is written and if most letters of the "
        "training rows are Chinese, Japanese, Thai or the like, otherwise words.",
    )
    lowercase: bool | None = Field(
        default=None,
        description="Convert text to lower case. By default true for words and characters that are only read.",
    )
    accents: Literal["keep", "strip"] = Field(
        default="keep", description="`strip` removes accents from Latin, Greek and Cyrillic letters."
    )
    normalize: bool = Field(
        default=True,
        description="Convert text to Unicode normal form C, in which each character is written in one way.",
    )
    length: TokenCount | Share | None = Field(
        default=None,
        description="Maximum number of tokens per text; later ones are cut. A fraction such as 0.9 is the share of the "
        "training texts that are complete. By default 99 % of the bags are complete (at most 2,048 distinct tokens), "
        "or 95 % of the sequences (at most 512), or all texts that are written (at most 1,024).",
    )
    dimension: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Width of each token's embedding; 64 for a sequence. With `bag` and `tfidf` a text becomes the "
        "sum of its tokens' embeddings instead of a vector over the vocabulary.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Options:
        if self.end is not None and self.encoding != "written":
            raise fault("end", "`end` has no effect without `encoding: written`.", "Leave it out.")
        if self.mask and self.encoding != "sequence":
            raise fault("mask", "`mask` has no effect without `encoding: sequence`.", "Leave it out.")
        if self.encoding in _SEQUENCES and self.tokens is not None and not self.tokens.keeps_order:
            raise fault(
                "ngrams",
                f"n-grams of several lengths have no order, which `encoding: {self.encoding}` needs.",
                "Write two equal numbers such as [1, 1], or `encoding: tfidf`.",
            )
        return self


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise prose; other words can be read character by character, where nothing better is known of them."""
    if not cells.is_text or cells.is_numeric:
        return None
    if not _is_prose(cells):
        why = "words, read character by character"
        return Guess("text", 0.1, why, {"tokens": "characters"}, needs_options=True, is_wide=True)
    different = f"{cells.distinct:,} of {len(cells.present):,} different"
    if cells.is_unspaced:
        letters = sum(map(len, cells.samples)) / len(cells.samples)
        why = f"prose without blanks between words, {letters:.0f} characters a cell, {different}"
        return Guess("text", 0.4, why, {"tokens": "characters"}, is_wide=True)
    words = sum(len(text.split()) for text in cells.samples) / len(cells.samples)
    return Guess("text", 0.4, f"{words:.0f} words a cell, {different}", is_wide=True)


def _is_prose(cells: ColumnCells) -> bool:
    """Whether cells are sentences, or phrases of which most are different, rather than names of categories."""
    count, words = cells.distinct, cells.mean_words
    mostly_different = len(cells.present) < 2 * count
    if cells.is_unspaced and cells.rows_per_letter < _MIN_ROWS_PER_LETTER:
        return False
    return count >= _MANY_DISTINCT and (
        words >= _MIN_WORDS_OF_SENTENCES or (words >= _MAX_WORDS_OF_NAMES and mostly_different)
    )


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit tokenizer, length and document frequencies."""
    _check_text(name, rows, f"data.inputs.{name}")
    use: Use = "written" if options.encoding == "written" else "sequence" if options.encoding in _SEQUENCES else "bag"
    is_bag, ends = use == "bag", _choose_ends(options)
    tokenizer = _fit_tokenizer(name, rows, options, use)
    counts = count_tokens(rows, tokenizer, is_bag)
    length = choose_length(options.length, counts.lengths, use, len(ends))
    column = Column(
        name=name,
        kind="text",
        shape=(2, length) if is_bag else (length,),
        dtype="int32",
        raw_dtype="string",
        state={
            "tokenizer": tokenizer.to_state(),
            "length": length,
            "bag": is_bag,
            "ends": ends,
            "mask": options.mask,
            "weights": _compute_idf_weights(options.encoding, counts.texts_by_token, len(rows)),
            "normalize": options.encoding in ("auto", "tfidf"),
            "dimension": options.dimension or (None if is_bag else _DEFAULT_EMBEDDING),
            "unknown_share": counts.unknown_share,
            "cut_share": counts.measure_cut(length - len(ends)),
        },
    )
    share = TextTraits(column).count_unseen(rows, None) / len(rows)
    return replace(column, state={**column.state, "unseen_share": share}) if share else column


def _choose_ends(options: Options) -> list[Ending]:
    """Choose the tokens that a text gets beside its own."""
    if options.encoding != "written":
        return []
    return ["begin"] if options.end is False else ["begin", "end"]


def check(rows: RawColumn, options: Options) -> None:
    """Accept every text."""


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode tokens as ids, int32 `(rows, length)`; with counts `(rows, 2, length)`."""
    import numpy as np

    _check_text(column.name, rows)
    layer = build_encoder(column)
    encoded = np.zeros((len(rows), *column.shape), column.dtype)
    start = 0
    # By the layer of served models, so that both are one code.
    for texts in split_batches(rows):
        encoded[start : start + len(texts)] = layer(texts).numpy()
        start += len(texts)
    return encoded


def build_encoder(column: Column) -> TokenEncoder:
    layer = _read_tokenizer(column).make_layer(column.state["length"], column.state["bag"])
    layer.ends = column.state["ends"]
    return layer


def build_feature(column: Column, encoded: Any) -> Feature:
    """Build a vector over the vocabulary, its projection, or embeddings `(batch, length, dimension)` with a mask."""
    import keras

    from bmcli.layers.text_bag import TextBag
    from bmcli.layers.token_embedding import TokenEmbedding

    state = column.state
    if state["bag"]:
        return Feature(column, TextBag(state["weights"], state["normalize"], state["dimension"])(encoded))
    tokenizer = _read_tokenizer(column)
    mask = keras.ops.not_equal(encoded, PADDING)
    if not state["ends"]:
        size = tokenizer.inner_size + state["mask"]
        return Feature(column, keras.layers.Embedding(size, state["dimension"])(encoded), mask)
    layer = TokenEmbedding(tokenizer.size, state["dimension"])
    return Feature(column, layer(encoded), mask, layer(encoded, whole=True))


def _read_tokenizer(column: Column) -> Tokenizer:
    return tokens.from_state(column.state["tokenizer"])


def get_traits(column: Column) -> InputTraits:
    return TextTraits(column)


class TextState(StrictRecord):
    """What is fitted to a column of texts."""

    tokenizer: dict[str, JsonValue]
    length: Annotated[int, Field(ge=1, lt=2**31)]
    bag: bool
    ends: tuple[()] | tuple[Literal["begin"]] | tuple[Literal["begin"], Literal["end"]]
    mask: bool
    weights: Numbers | None
    normalize: bool
    dimension: Count | None
    unseen_share: Fraction = 0.0
    unknown_share: Fraction
    cut_share: Fraction


class TextRecord(ColumnRecord):
    """A column of texts."""

    kind: Literal["text"]
    dtype: Literal["int32"]
    raw_dtype: Literal["string"]
    state: TextState  # type: ignore[assignment]  # of this kind


class TextTraits(InputTraits):
    """Traits of a column of texts."""

    record = TextRecord
    display = "text"
    noun = "a text"
    baseline = "zero_feature"  # an empty text

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the column."""
        return _read_tokenizer(self.column)

    @property
    def written_tokens(self) -> Tokenizer | None:
        return self.tokenizer if self.column.state["ends"] else None

    def check_state(self) -> None:
        super().check_state()
        try:
            tokens.check_state(self.column.state["tokenizer"])
        except ValueError as error:
            raise ValueError(f"state.tokenizer.{error}") from None

    @property
    def masked_tokens(self) -> Tokenizer | None:
        return self.tokenizer if self.column.state["mask"] else None

    @property
    def encoder_file(self) -> Path | None:
        return ENCODERS / "text.py" if self.tokenizer.has_numpy_encoder else None

    @property
    def cut_share(self) -> float:
        share: float = self.column.state["cut_share"]
        return share

    @property
    def has_words(self) -> bool:
        return not self.column.state["bag"] and not self.column.state["ends"] and self.tokenizer.has_words

    @property
    def modules(self) -> tuple[str, ...]:
        return self.tokenizer.modules

    @property
    def form(self) -> Form:
        return "vector" if self.column.state["bag"] else "steps"

    @property
    def sequence_option(self) -> str:
        return "encoding: sequence"

    @property
    def reading_options(self) -> Mapping[str, Any]:
        return {} if self.tokenizer.kind == tokens.DEFAULT else {"tokens": self.tokenizer.kind}

    def summarize(self) -> str:
        state = self.column.state
        unit = "different tokens" if state["bag"] else "tokens"
        return f"{self.tokenizer.describe()}; the first {state['length']} {unit} of each text"

    def summarize_tokens(self, encoded: np.ndarray) -> TokenSummary:
        state, get_token = self.column.state, self.tokenizer.get_token
        rows = encoded[:, 0] if state["bag"] else encoded
        samples = (tuple(get_token(number) for number in row.tolist() if number != PADDING) for row in rows)
        return TokenSummary(
            self.tokenizer.describe(), state["length"], state["unknown_share"], self.cut_share, tuple(samples)
        )

    def attribute_terms(self, encoded: np.ndarray, contributions: np.ndarray) -> Sequence[tuple[str, float]]:
        """Pair tokens with contributions: in their order, or for a bag the largest first.

        A sum of embeddings has no part for each token.
        """
        state, get_token = self.column.state, self.tokenizer.get_token
        if state["bag"]:
            ids = [] if state["dimension"] else [int(number) for number in encoded[0] if number != PADDING]
            attributed = [(get_token(number), float(contributions[number])) for number in ids]
            return sorted(attributed, key=lambda each: -abs(each[1]))
        sums = contributions.sum(axis=-1)
        return [(get_token(int(number)), float(sums[i])) for i, number in enumerate(encoded) if number != PADDING]

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np
        import pyarrow as pa

        if encoded is not None:
            return int(np.count_nonzero(_find_unknown(rows, np.asarray(encoded), self.column)))
        # The first words are known nearly always; only the other texts are split as a whole.
        heads = encode(_cut_texts(rows, bool(self.tokenizer.separator)), self.column)
        rest = rows.take(pa.array(np.flatnonzero(_find_unknown(rows, heads, self.column))))
        return int(np.count_nonzero(_find_unknown(rest, encode(rest, self.column), self.column)))

    def make_edge_cells(self, cell: np.ndarray) -> Iterator[EdgeCell]:
        yield EdgeCell("an unknown text", make_object_array([UNKNOWN_TEXT]))
        yield EdgeCell("only spaces", make_object_array(["  \t "]))

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        length = min(_MAX_RANDOM_TOKENS, self.column.state["length"])
        drawn = generator.integers(FIRST_TOKEN, self.tokenizer.inner_size, (count, length))
        return make_object_array([self.tokenizer.decode(ids) for ids in drawn])


def _find_unknown(rows: RawColumn, encoded: np.ndarray, column: Column) -> np.ndarray:
    """Find the texts that are not missing, and without a known token, `(rows,)`.

    Args:
        encoded: The texts, or their beginnings.
    """
    import numpy as np
    import pyarrow.compute as pc

    ids = encoded[:, 0] if column.state["bag"] else encoded
    is_present = np.asarray(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(rows), ""), False), dtype=bool)
    is_known = (ids >= FIRST_TOKEN) & (ids < _read_tokenizer(column).inner_size)
    return is_present & ~is_known.any(axis=1)


def _cut_texts(rows: RawColumn, have_spaces: bool) -> RawColumn:
    """Cut texts after their first words, or characters where tokens have no spaces between them."""
    import pyarrow.compute as pc

    cut = pc.utf8_slice_codeunits(rows, 0, _HEAD)
    if not have_spaces:
        return cut
    # The last word may be a part of one.
    return pc.if_else(pc.equal(pc.utf8_length(cut), _HEAD), pc.replace_substring_regex(cut, r"\S*$", ""), cut)


def _check_text(name: str, rows: RawColumn, path: str = "") -> None:
    if not is_text_column(require_values(rows)):
        raise BmcliError(f"column {quoted(name)}: expected text, received an array of numbers.", path=path)


def _fit_tokenizer(name: str, rows: RawColumn, options: Options, use: Use) -> Tokenizer:
    is_unspaced = options.tokens is None and ColumnCells(name, rows).is_unspaced
    chosen = options.tokens or tokens.choose(use, is_unspaced)
    lowercase = tokens.lowercases(chosen, use) if options.lowercase is None else options.lowercase
    try:
        return tokens.fit(chosen, Normalization(options.normalize, lowercase, options.accents), rows, use)
    except TokensError as error:
        raise BmcliError(
            f"column {quoted(name)}: {error.message}",
            path=f"data.inputs.{name}" + (f".tokens.{error.option}" if error.option else ""),
            suggestion=error.suggestion or f"Leave it out: `drop: [{write_scalar(name)}]`.",
        ) from None


def _compute_idf_weights(encoding: str, texts_by_token: np.ndarray, texts: int) -> list[float]:
    """Compute the factor of each token's count: 1, or the smoothed inverse document frequency."""
    import numpy as np

    if encoding in ("bag", *_SEQUENCES):
        return [1.0] * len(texts_by_token) if encoding == "bag" else []
    # Smoothed as in scikit-learn: as if one additional text contained every token.
    return [float(weight) for weight in np.log((1 + texts) / (1 + texts_by_token)) + 1]
