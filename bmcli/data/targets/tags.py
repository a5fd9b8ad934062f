"""Tags target: a label for each word of a text, such as `DET NOUN VERB`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import parts
from bmcli.column_records import StrictRecord
from bmcli.data.targets import OR_SKIP, ClassNames, TargetGuess, parse_list
from bmcli.errors import BmcliError
from bmcli.inputs import Guess
from bmcli.normalization import collapse_spaces, split_words
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, is_text_column, to_texts
from bmcli.recipe.fields import Share
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column
from bmcli.tokenization.lengths import TokenCount, choose_length

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.data.profiling.column_profile import ColumnProfile

OBJECTIVE = "tagging"
ONE_CLASS = False

PADDING = -1
"""Encoded value of a step without a word."""

_GUESSED_ROWS = 2000
_MIN_WORDS_PER_TAG, _MIN_WORDS_PER_ROW = 10, 2.0


class State(StrictRecord):
    """The tags in the order of their indices, and the columns of tags and words."""

    tags: tuple[str, ...]
    columns: tuple[str, ...]


class Options(TargetOptions):
    """A tag for each word of a text input, separated by blanks, or as a list such as `['B-city', 'O']`.

    The words of the input are those between blanks: `{kind: text, encoding: sequence, tokens: {kind: words,
    punctuation: keep}}`.
    """

    kind: Literal["tags"] = "tags"
    input: str = Field(description="Text input whose words have the tags.")
    classes: ClassNames | None = Field(
        default=None,
        description="All tags in the order of their indices; by default the sorted tags of the training rows. A tag "
        "that no training row has is never learned, but rows with it can be evaluated.",
    )
    length: TokenCount | Share | None = Field(
        default=None,
        description="Maximum number of tags per row, that of the words of the input; later ones are cut. By default as "
        "for the input: 95 % of the rows are complete (at most 512 tags).",
    )

    @property
    def words_of(self) -> str:
        return self.input


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise few distinct words, of which each row has as many as some other text has words."""
    own = columns.get(profile.name)
    if own is None or not is_text_column(own) or profile.is_number:
        return None
    tags = _split_some(own)
    distinct = {tag for row in tags for tag in row}
    words = sum(map(len, tags))
    if words < _MIN_WORDS_PER_TAG * len(distinct) or words < _MIN_WORDS_PER_ROW * len(tags):
        return None
    for name, column in columns.items():
        if name == profile.name or not is_text_column(column):
            continue
        texts = _split_some(column)
        # A column of tags beside other tags has no more words than they do.
        if [*map(len, texts)] == [*map(len, tags)] and len({word for row in texts for word in row}) > len(distinct):
            reading = {"encoding": "sequence", "tokens": {"kind": "words", "punctuation": "keep"}}
            words_of = Guess("text", 0.9, "the words that have the tags", reading, form="steps")
            why = f"a tag for each word of {name}, {len(distinct)} different"
            return TargetGuess("tags", 0.85, why, {"input": name}, inputs={name: words_of})
    return None


def _split_some(column: RawColumn) -> list[list[str]]:
    """Split the words of some rows at blanks."""
    return [(cell or "").split() for cell in to_texts(column[:_GUESSED_ROWS]).to_pylist()]


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the sorted tags of the training rows, and the length."""
    import numpy as np

    tags = _read_rows(rows)
    found = sorted({tag for row in tags for tag in row})
    if len(found) == 1:
        raise BmcliError(
            f"target {quoted(name)}: every word of the training rows has the tag {quoted(found[0])}, so there is "
            "nothing to learn.",
            path=f"data.targets.{name}",
        )
    known = _name_tags(options) or found
    _index_tags(tags, known)
    # As for a text input with `encoding: sequence`, so that tags and words are cut after the same one.
    length = choose_length(options.length, np.array([len(row) for row in tags]), "sequence")
    state = {"tags": known, "columns": [name, options.input]}
    return Column(name, "tags", (length,), "int32", raw_dtype="string", state=state)


def check(rows: RawColumn, options: Options) -> None:
    """Refuse rows without tags, rows whose tags are not as many as their words, and tags beside the given ones."""
    tags = _read_rows(rows)
    if options.classes is not None:
        _index_tags(tags, _name_tags(options))


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode tags as indices, followed by -1, int32 `(rows, length)`; unknown tags are faults, also if they are cut."""
    import numpy as np

    (length,) = column.shape
    numbers = _index_tags(_read_rows(rows), column.state["tags"])
    encoded = np.full((len(numbers), length), PADDING, "int32")
    for position, row in enumerate(numbers):
        encoded[position, : len(row)] = row[:length]
    return encoded


def _name_tags(options: Options) -> list[str]:
    return [str(tag) for tag in options.classes or ()]


def _index_tags(tags: Sequence[Sequence[str]], known: Sequence[str]) -> list[list[int]]:
    """Find the index of each tag.

    Raises:
        RowFault: A tag is unknown.
    """
    indices = {tag: index for index, tag in enumerate(known)}
    try:
        return [[indices[tag] for tag in row] for row in tags]
    except KeyError:
        position, unknown = next((i, tag) for i, row in enumerate(tags) for tag in row if tag not in indices)
        raise RowFault(
            position,
            f"expected tags of the training rows, received {quoted(unknown)}.",
            parts.did_you_mean(unknown, known),
            option=f"List all tags in `classes`, or put a row with this tag into the training rows{OR_SKIP}.",
        ) from None


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the indices of tags unchanged; -1 is no word."""
    return encoded


def index_classes(rows: RawColumn, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Find the different tags of each row."""
    import numpy as np

    numbers: dict[str, int] = {}
    found = [
        (position, numbers.setdefault(tag, len(numbers)))
        for position, cell in enumerate(_get_cells(rows).to_pylist())
        for tag in sorted(set(_split_tags(cell)))
    ]
    pairs = np.array(found, "int64").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def count_classes(truth: np.ndarray, column: Column) -> None:
    """A row has several tags, so that rows cannot be counted by tag."""


def _read_rows(rows: RawColumn) -> list[list[str]]:
    """Read the tags of each row.

    Args:
        rows: Records of the cells of the target and of its text.

    Raises:
        RowFault: A row has no tags, or another number of them than words, or a tag has a blank.
    """
    texts = _get_cells(rows, 1)
    read = []
    for position, (cell, text) in enumerate(zip(_get_cells(rows).to_pylist(), texts.to_pylist(), strict=True)):
        tags = _split_tags(cell)
        _check_row(position, tags, split_words(text))
        read.append(tags)
    return read


def _check_row(position: int, tags: Sequence[str], words: Sequence[str]) -> None:
    if not tags:
        raise RowFault(position, "expected a tag for each word, received nothing.", "Remove the row.")
    for tag in tags:
        if not tag or collapse_spaces(tag) != tag or " " in tag:
            raise RowFault(position, f"expected tags without blanks, received {quoted(tag)}.", "Rename the tag.")
    if len(tags) == len(words):
        return
    extra = (
        f"the word {quoted(words[len(tags)])} has no tag"
        if len(words) > len(tags)
        else f"the tag {quoted(tags[len(words)])} has no word"
    )
    raise RowFault(
        position,
        f"expected a tag for each of the {len(words)} words, received {len(tags)}: {extra}.",
        "Words are what is between blanks, signs of punctuation included.",
    )


def _get_cells(rows: Any, field: int = 0) -> pa.ChunkedArray:
    """Return the texts of a field of records."""
    import pyarrow as pa

    if is_text_column(rows) and pa.types.is_struct(rows.type):
        return to_texts(rows.flatten()[field])
    return to_texts(rows)


def _split_tags(cell: str | None) -> list[str]:
    """Split a cell at blanks, or read its list."""
    text = (cell or "").strip()
    if text in ("", "[]"):
        return []
    listed = parse_list(text)
    return text.split() if listed is None else listed
