"""Text input: words or characters as a bag, as TF-IDF, or as a sequence.

The vocabulary is that of the training rows, the most frequent terms first. A term outside of it is left out of a bag,
and is the unknown term of a sequence. A missing text is an empty one: an empty bag, or a sequence of one unknown term.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli.errors import BmcliError
from bmcli.inputs import EdgeCell, Feature, Form, Guess, InputTraits, make_object_array
from bmcli.quoting import quoted
from bmcli.raw_columns import UNKNOWN_TEXT, ColumnCells, RawColumn, is_text_column, require_values
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.text_encoder import TextEncoder

_Length = Annotated[int, Field(ge=1, le=100_000)]
_Tokens = Annotated[int, Field(ge=1, le=16)]
_BATCH_ROWS = 2048
_DEFAULT_EMBEDDING = 64
# The default length is this quantile of the lengths of the training texts, and at most this many terms.
_BAG_SHARE, _MAX_BAG = 0.99, 2048
_SEQUENCE_SHARE, _MAX_SEQUENCE = 0.95, 512
# Terms that are counted at once. Nearly every long n-gram is a new term, so their counts could exhaust the memory.
_MAX_COUNTED = 4_000_000
_HEAD = 80  # characters by which most texts are found to have a known term
_MAX_RANDOM_TERMS = 20  # of a random text
_MANY_DISTINCT = 50  # distinct cells from which on a column may be prose
_MAX_WORDS_OF_NAMES, _MIN_WORDS_OF_SENTENCES = 1.5, 5.0  # mean number of words of a cell
_MIN_ROWS_PER_LETTER = 2.0  # of prose without blanks; characters that do not repeat are codes, from which none learns
_TOKENIZER_OPTIONS = ("tokens", "ngrams", "lowercase", "accents", "punctuation", "composed")


class Options(InputOptions):
    """One text per row, split into words or characters."""

    kind: Literal["text"] = "text"
    encoding: Literal["auto", "bag", "tfidf", "sequence"] = Field(
        default="auto",
        description="Encoding of the text: `bag`, a vector of term counts; `tfidf`, counts weighted by inverse "
        "document frequency, with norm 1; `sequence`, a sequence of embeddings, for rnn, cnn and transformer. `auto` "
        "is tfidf.",
    )
    tokens: Literal["words", "characters"] | None = Field(
        default=None,
        description="Unit of tokenisation: words, or characters, for names and for scripts without spaces. By default "
        "characters if most letters of the training rows are Chinese, Japanese, Thai or the like, otherwise words.",
    )
    ngrams: tuple[_Tokens, _Tokens] | None = Field(
        default=None,
        description="Shortest and longest n-gram, in tokens. By default [1, 2] for words, [1, 4] for characters, "
        "and [1, 1] in a sequence.",
    )
    vocabulary: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=20_000, description="Maximum size of the vocabulary: the most frequent terms of the training rows."
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Minimum frequency of a term in the training rows; rarer terms are unknown."
    )
    lowercase: bool = Field(default=True, description="Convert text to lower case.")
    accents: Literal["keep", "strip"] = Field(
        default="keep", description="`strip` removes accents from Latin, Greek and Cyrillic letters."
    )
    punctuation: Literal["split", "drop", "keep"] | None = Field(
        default=None,
        description="`split`: punctuation marks are tokens; `drop`: they are spaces; `keep`: they belong to the "
        "adjacent token. By default split for words, keep for characters.",
    )
    normalize: bool = Field(
        default=True,
        description="Convert text to Unicode normal form C, in which each character is written in one way.",
    )
    length: _Length | None = Field(
        default=None,
        description="Maximum number of terms per text; later ones are cut. By default 99 % of the bags are complete "
        "(at most 2,048 distinct terms), or 95 % of the sequences (at most 512).",
    )
    dimension: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Width of each term's embedding; 64 for a sequence. With `bag` and `tfidf` a text becomes the "
        "sum of its terms' embeddings instead of a vector over the vocabulary.",
    )

    @model_validator(mode="after")
    def _check_tokens(self) -> Options:
        if self.ngrams is not None and self.ngrams[0] > self.ngrams[1]:
            raise fault("ngrams", f"expected [shortest, longest], received {list(self.ngrams)}.")
        if self.encoding == "sequence" and self.ngrams is not None and self.ngrams[0] != self.ngrams[1]:
            raise fault(
                "ngrams",
                "n-grams of several lengths have no order, which `encoding: sequence` needs.",
                "Write two equal numbers such as [1, 1], or `encoding: tfidf`.",
            )
        if self.tokens == "characters" and self.punctuation == "split":
            raise fault("punctuation", "`punctuation: split` needs `tokens: words`.")
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
    """Fit vocabulary, length and document frequencies."""
    _check_text(name, rows, f"data.inputs.{name}")
    bag = options.encoding != "sequence"
    options = options if options.tokens else options.model_copy(update={"tokens": _choose_tokens(name, rows, options)})
    tokenizer_options = _resolve_tokenizer_options(options, bag)
    terms = _build_vocabulary(name, rows, options, tokenizer_options)
    document_counts, lengths = _count_documents(rows, terms, tokenizer_options, bag)
    length = options.length or _choose_length(lengths, bag)
    column = Column(
        name=name,
        kind="text",
        shape=(2, length) if bag else (length,),
        dtype="int32",
        raw_dtype="string",
        state={
            "vocabulary": terms,
            "length": length,
            "bag": bag,
            **tokenizer_options,
            "weights": _compute_idf_weights(options.encoding, document_counts, len(rows)),
            "normalize": options.encoding in ("auto", "tfidf"),
            "dimension": options.dimension or (None if bag else _DEFAULT_EMBEDDING),
        },
    )
    share = TextTraits(column).count_unseen(rows, None) / len(rows)
    return replace(column, state={**column.state, "unseen_share": share}) if share else column


def check(rows: RawColumn, options: Options) -> None:
    """Accept every text."""


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode terms as indices by the layer TextEncoder, int32 `(rows, length)`; with counts `(rows, 2, length)`."""
    import numpy as np

    _check_text(column.name, rows)
    layer = build_encoder(column)
    encoded = np.zeros((len(rows), *column.shape), column.dtype)
    for start, texts in _split_batches(rows):
        encoded[start : start + len(texts)] = layer(texts).numpy()
    return encoded


def build_encoder(column: Column) -> TextEncoder:
    from bmcli.layers.text_encoder import TextEncoder

    state = column.state
    return TextEncoder(
        state["vocabulary"], state["length"], state["bag"], **{option: state[option] for option in _TOKENIZER_OPTIONS}
    )


def build_feature(column: Column, encoded: Any) -> Feature:
    """Build a vector over the vocabulary, its projection, or embeddings `(batch, length, dimension)` with a mask."""
    import keras

    from bmcli.layers.text_bag import TextBag

    state = column.state
    if state["bag"]:
        return Feature(column, TextBag(state["weights"], state["normalize"], state["dimension"])(encoded))
    size = 2 + len(state["vocabulary"])  # 0 is padding, 1 the unknown term.
    return Feature(column, keras.layers.Embedding(size, state["dimension"])(encoded), keras.ops.not_equal(encoded, 0))


def get_traits(column: Column) -> InputTraits:
    return TextTraits(column)


class TextTraits(InputTraits):
    """Traits of a column of texts."""

    display = "text"
    noun = "a text"
    baseline = "zero_feature"  # an empty text
    has_numpy_encoder = True

    @property
    def form(self) -> Form:
        return "vector" if self.column.state["bag"] else "steps"

    @property
    def sequence_option(self) -> str:
        return "encoding: sequence"

    @property
    def reading_options(self) -> Mapping[str, Any]:
        tokens = self.column.state["tokens"]
        return {} if tokens == "words" else {"tokens": tokens}

    def summarize(self) -> str:
        state = self.column.state
        unit = "different terms" if state["bag"] else "terms"
        return f"vocabulary of {len(state['vocabulary']):,} terms; the first {state['length']} {unit} of each text"

    def attribute_terms(self, encoded: np.ndarray, contributions: np.ndarray) -> Sequence[tuple[str, float]]:
        """Pair terms with contributions: in their order, or for a bag the largest first.

        A sum of embeddings has no part for each term.
        """
        from bmcli.layers.text_encoder import FIRST_TERM, PADDING

        state, vocabulary = self.column.state, self.column.state["vocabulary"]

        def get_term(number: int) -> str:
            return vocabulary[number - FIRST_TERM] if number >= FIRST_TERM else "?"

        if state["bag"]:
            term_ids = [] if state["dimension"] else [int(number) for number in encoded[0] if number != PADDING]
            attributed = [(get_term(number), float(contributions[number])) for number in term_ids]
            return sorted(attributed, key=lambda each: -abs(each[1]))
        sums = contributions.sum(axis=-1)
        return [(get_term(int(number)), float(sums[i])) for i, number in enumerate(encoded) if number != PADDING]

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np
        import pyarrow as pa

        if encoded is not None:
            return int(np.count_nonzero(_find_unknown(rows, np.asarray(encoded), self.column)))
        # The first words are known nearly always; only the other texts are split as a whole.
        heads = encode(_cut_texts(rows, self.column), self.column)
        rest = rows.take(pa.array(np.flatnonzero(_find_unknown(rows, heads, self.column))))
        return int(np.count_nonzero(_find_unknown(rest, encode(rest, self.column), self.column)))

    def make_edge_cells(self, cell: np.ndarray) -> Iterator[EdgeCell]:
        yield EdgeCell("an unknown text", make_object_array([UNKNOWN_TEXT]))
        yield EdgeCell("only spaces", make_object_array(["  \t "]))

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        state = self.column.state
        separator, terms = " " if state["tokens"] == "words" else "", min(_MAX_RANDOM_TERMS, state["length"])
        drawn = generator.choice(state["vocabulary"], (count, terms)).tolist()
        return make_object_array([separator.join(text) for text in drawn])


def _find_unknown(rows: RawColumn, encoded: np.ndarray, column: Column) -> np.ndarray:
    """Find the texts that are not missing, and without a known term, `(rows,)`.

    Args:
        encoded: The texts, or their beginnings.
    """
    import numpy as np
    import pyarrow.compute as pc

    from bmcli.layers.text_encoder import FIRST_TERM

    terms = encoded[:, 0] if column.state["bag"] else encoded
    is_present = np.asarray(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(rows), ""), False), dtype=bool)
    return is_present & ~(terms >= FIRST_TERM).any(axis=1)


def _cut_texts(rows: RawColumn, column: Column) -> RawColumn:
    """Cut texts after their first words or characters."""
    import pyarrow.compute as pc

    cut = pc.utf8_slice_codeunits(rows, 0, _HEAD)
    if column.state["tokens"] == "characters":
        return cut
    # The last word may be a part of one.
    return pc.if_else(pc.equal(pc.utf8_length(cut), _HEAD), pc.replace_substring_regex(cut, r"\S*$", ""), cut)


def _check_text(name: str, rows: RawColumn, path: str = "") -> None:
    if not is_text_column(require_values(rows)):
        raise BmcliError(f"column {quoted(name)}: expected text, received an array of numbers.", path=path)


def _choose_tokens(name: str, rows: RawColumn, options: Options) -> Literal["words", "characters"]:
    """Choose words, or characters in a script without blanks; `punctuation: split` divides words only."""
    is_unspaced = options.punctuation != "split" and ColumnCells(name, rows).is_unspaced
    return "characters" if is_unspaced else "words"


def _resolve_tokenizer_options(options: Options, bag: bool) -> dict[str, Any]:
    """Return the options that define the terms of a text, with their defaults filled in."""
    words = options.tokens == "words"
    default_ngrams = (1, 1) if not bag else (1, 2) if words else (1, 4)
    return {
        "tokens": options.tokens,
        "ngrams": list(options.ngrams or default_ngrams),
        "lowercase": options.lowercase,
        "accents": options.accents,
        "punctuation": options.punctuation or ("split" if words else "keep"),
        "composed": options.normalize,
    }


def _build_vocabulary(name: str, rows: RawColumn, options: Options, tokenizer_options: dict[str, Any]) -> list[str]:
    """Return the most frequent terms; terms of equal frequency are in alphabetical order."""
    from bmcli.layers.text_encoder import TextEncoder

    layer = TextEncoder((), 1, False, **tokenizer_options)
    counts: Counter[bytes] = Counter()
    for _, texts in _split_batches(rows):
        counts.update(layer.count_terms(texts))
        if len(counts) > _MAX_COUNTED:  # Rare terms are dropped, so that counts are lower bounds from here on.
            counts = Counter(dict(_rank_terms(counts)[: _MAX_COUNTED // 2]))
    if not counts:
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no text with {options.tokens}.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    terms = [term for term, count in _rank_terms(counts)[: options.vocabulary] if count >= options.min_count]
    if not terms:
        raise BmcliError(
            f"column {quoted(name)}: no term occurs {options.min_count} times in the training rows.",
            path=f"data.inputs.{name}.min_count",
            suggestion="Write `min_count: 1`.",
        )
    return [term.decode() for term in terms]


def _rank_terms(counts: Counter[bytes]) -> list[tuple[bytes, int]]:
    # Ties are broken by the term, so that the vocabulary does not depend on the order of the rows.
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _count_documents(
    rows: RawColumn, terms: list[str], tokenizer_options: dict[str, Any], bag: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Count the texts that contain each term, and the terms of each text; in a bag the distinct known ones."""
    import numpy as np

    from bmcli.layers.text_encoder import FIRST_TERM, TextEncoder

    layer = TextEncoder(terms, 1, bag, **tokenizer_options)
    document_counts, lengths = np.zeros(len(terms), "int64"), [np.zeros(0, "int64")]
    for _, texts in _split_batches(rows):
        if bag:
            known, _ = layer.count_known_terms(texts)
            document_counts += np.bincount(known.values.numpy() - FIRST_TERM, minlength=len(terms))
            lengths.append(known.row_lengths().numpy())
        else:
            lengths.append(layer.split_terms(texts).row_lengths().numpy())
    return document_counts, np.concatenate(lengths)


def _choose_length(lengths: np.ndarray, bag: bool) -> int:
    import numpy as np

    share, longest = (_BAG_SHARE, _MAX_BAG) if bag else (_SEQUENCE_SHARE, _MAX_SEQUENCE)
    return int(np.clip(np.quantile(lengths, share, method="higher"), 1, longest))


def _compute_idf_weights(encoding: str, document_counts: np.ndarray, texts: int) -> list[float]:
    """Compute the factor of each term's count: 1, or the smoothed inverse document frequency."""
    import numpy as np

    if encoding in ("bag", "sequence"):
        return [1.0] * len(document_counts) if encoding == "bag" else []
    # Smoothed as in scikit-learn: as if one additional text contained every term.
    return [float(weight) for weight in np.log((1 + texts) / (1 + document_counts)) + 1]


def _split_batches(rows: pa.ChunkedArray) -> Iterator[tuple[int, Any]]:
    """Yield batches of texts as inputs of the encoder, missing ones empty, with the row of the first text."""
    import numpy as np
    import pyarrow.compute as pc

    for start in range(0, len(rows), _BATCH_ROWS):
        texts = pc.fill_null(rows.slice(start, _BATCH_ROWS), "")
        yield start, np.asarray(texts.to_pylist(), object)
