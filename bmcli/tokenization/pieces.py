"""Tokenizers of pieces of words that sentencepiece learns: byte-pair encoding, and unigram language models.

A text is cut before each space, and the words are split one by one, so that the pieces of a word do not depend on what
stands before it. What no piece covers is written as bytes. In pieces, a space is the sign U+2581.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bmcli.column_records import Numbers
from bmcli.errors import BmcliError
from bmcli.normalization import Normalization
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
    import pyarrow as pa

    from bmcli.layers.piece_encoder import PieceEncoder

Algorithm = Literal["bpe", "unigram"]

MODULES = ("sentencepiece", "tensorflow_text")
"""Packages of the extra `text`."""

_BYTES = 256
_SPACE_SIGN = "\u2581"
# No piece has these characters: lines are trained apart, and sentencepiece leaves out lines with its own sign U+2585.
_LINE_END = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u2585]+")
# Longer words, such as a genome, make the search for frequent pieces endless; a piece has at most 16 characters.
_LONG_WORD = re.compile(r"([^ ]{64})(?=[^ ])")
_MAX_TRAINED = 100_000_000  # characters; of more, evenly spaced texts are trained on


class PieceOptions(TokenOptions):
    """Base class of the options of kinds whose tokens are pieces of words."""

    size: Annotated[int, Field(ge=260, le=1_000_000)] = Field(
        default=8000,
        description="Maximum size of the vocabulary, with 256 bytes of which every other text is made. Few training "
        "rows give fewer pieces.",
    )


class PiecesState(TokenizerState):
    """What a tokenizer of pieces keeps in a run."""

    kind: Literal["bpe", "unigram"]
    pieces: tuple[Annotated[str, Field(min_length=1)], ...]
    scores: Numbers

    @model_validator(mode="after")
    def _check_scores(self) -> Self:
        if len(self.pieces) != len(self.scores):
            raise ValueError("pieces and scores differ in number")
        return self


@dataclass(frozen=True)
class PieceTokenizer(Tokenizer):
    """Pieces of words, and bytes of what they do not cover.

    Args:
        algorithm: How a word is split: `bpe` joins the pair of pieces with the best score again and again, `unigram`
            finds the pieces whose scores have the largest sum.
        pieces: Texts of the pieces, above the ids of the bytes.
        scores: Score of each, float32.
    """

    algorithm: Algorithm
    pieces: tuple[str, ...]
    scores: tuple[float, ...]

    has_numpy_encoder: ClassVar[bool] = True
    modules: ClassVar[tuple[str, ...]] = ("tensorflow_text",)

    @property
    def kind(self) -> str:
        return self.algorithm

    @property
    def inner_size(self) -> int:
        return FIRST_TOKEN + _BYTES + len(self.pieces)

    def normalize(self, text: str) -> str:
        return self.normalization.apply(text).replace(_SPACE_SIGN, " ")

    @cached_property
    def written(self) -> Sequence[bytes]:
        pieces = [piece.replace(_SPACE_SIGN, " ").encode() for piece in self.pieces]
        return [b"", UNKNOWN_SIGN.encode(), *(bytes([value]) for value in range(_BYTES)), *pieces, b"", b""]

    def get_token(self, number: int) -> str:
        value = number - FIRST_TOKEN
        return "?" if number == UNKNOWN else f"<{value:02X}>" if value < _BYTES else self.pieces[value - _BYTES]

    def to_state(self) -> dict[str, Any]:
        return {**start_state(self), "pieces": list(self.pieces), "scores": list(self.scores)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PieceTokenizer:
        """Make the tokenizer of a state."""
        return cls(read_normalization(state), state["kind"], tuple(state["pieces"]), tuple(state["scores"]))

    def make_layer(self, length: int, bag: bool = False) -> PieceEncoder:
        from bmcli.layers.piece_encoder import PieceEncoder

        require_modules(self.algorithm)
        return PieceEncoder(self.algorithm, self.pieces, self.scores, length, bag, **asdict(self.normalization))

    def describe(self) -> str:
        return f"{len(self.pieces):,} pieces of {self.algorithm} and the 256 bytes"


def require_modules(kind: str) -> None:
    """Reject a kind of tokens whose packages are not installed.

    Raises:
        BmcliError: A package is not installed.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise BmcliError(
            f"tokens of kind {kind} need packages that are not installed: {', '.join(missing)}.",
            suggestion="Install them: pip install 'bmcli[text]'.",
        )


def fit_pieces(
    algorithm: Algorithm, texts: Sequence[str] | pa.ChunkedArray, normalization: Normalization, size: int
) -> PieceTokenizer:
    """Train the pieces of texts, on one thread: those of `unigram` depend on the number of threads.

    Args:
        size: Number of ids, without those of begin and end. The texts may give fewer.

    Raises:
        TokensError: The texts have no characters, or too many different ones for the size.
        BmcliError: A package is not installed.
    """
    require_modules(algorithm)
    # Sorted, since the scores of unigram depend on the order.
    lines = sorted(_list_lines(texts, normalization))
    if not lines:
        raise TokensError("the training rows have no text.")
    pieces = _train(algorithm, lines, size)
    return PieceTokenizer(
        normalization, algorithm, tuple(piece for piece, _ in pieces), tuple(score for _, score in pieces)
    )


def _list_lines(texts: Sequence[str] | pa.ChunkedArray, normalization: Normalization) -> Iterator[str]:
    """List lines of text without long words; the parts of a long word are lines."""
    characters = sum(sum(map(len, batch.tolist())) for batch in split_batches(texts))
    for batch in split_batches(texts[:: max(1, -(-characters // _MAX_TRAINED))]):
        for text in batch.tolist():
            for line in _LINE_END.split(normalization.apply(text).replace(_SPACE_SIGN, " ")):
                yield from filter(None, _LONG_WORD.sub("\\1\n", line).split("\n"))


def _train(algorithm: Algorithm, lines: Sequence[str], size: int) -> list[tuple[str, float]]:
    """Train pieces and their scores."""
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type=algorithm,
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=True,
            # Texts are normalised before; and no space is added, so that pieces give back their text.
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            max_sentence_length=2**30,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        found = re.search(rf"smaller than required_chars\. {size} vs (\d+)\.", str(error))
        if found is None:
            raise
        raise TokensError(
            f"a vocabulary of {size:,} is too small for the 256 bytes and each character of the training rows.",
            f"Write `size: {found[1]}` or more.",
            "size",
        ) from None
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    numbers = range(FIRST_TOKEN + _BYTES, model.get_piece_size())
    return [(model.id_to_piece(number), float(model.get_score(number))) for number in numbers]
