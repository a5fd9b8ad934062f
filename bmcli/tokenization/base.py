"""A fitted tokenizer: texts to ids of tokens, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bmcli.column_records import StrictRecord
from bmcli.normalization import Normalization
from bmcli.token_ids import END_IDS, PADDING, UNKNOWN

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.token_encoder import TokenEncoder

Use = Literal["bag", "sequence", "written"]
"""What ids are for: a bag of terms, a sequence that is read, or a text that is written, whose ids must give it back.
The defaults of a kind depend on it."""

Ending = Literal["begin", "end"]
"""A token of the begin or the end of a text."""

UNKNOWN_SIGN = "\N{REPLACEMENT CHARACTER}"
"""An unknown token in a decoded text."""

_BATCH_ROWS = 2048
_BATCH_CHARACTERS = 4_000_000


class TokensError(Exception):
    """Training texts of which no tokenizer can be made; who knows their column makes a fault of it.

    Args:
        option: Option of the kind of tokens that can be changed, such as `min_count`; empty if none.
    """

    def __init__(self, message: str, suggestion: str = "", option: str = "") -> None:
        super().__init__(message)
        self.message, self.suggestion, self.option = message, suggestion, option


class TokenizerState(StrictRecord):
    """What all tokenizers keep in a run."""

    composed: bool
    lowercase: bool
    accents: Literal["keep", "strip"]


@dataclass(frozen=True)
class Tokenizer(ABC):
    """Tokens of one kind, fitted on training texts.

    Ids are 0 for padding, 1 for an unknown token, those of tokens, and at last those of begin and end, which texts
    never have by themselves: a network that only reads has `inner_size` embeddings, one that writes `size`.

    Args:
        normalization: How texts are changed before they are split.
    """

    normalization: Normalization

    padding: ClassVar[int] = PADDING
    unknown: ClassVar[int] = UNKNOWN

    has_numpy_encoder: ClassVar[bool] = False
    """Whether `bmcli.encoder` encodes texts beside an artefact."""

    modules: ClassVar[tuple[str, ...]] = ()
    """Packages beside TensorFlow that a graph with its layer needs, by the names of their modules."""

    separator: ClassVar[str] = ""
    """Text between tokens that follow each other."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The module of `bmcli.tokens`."""

    @property
    @abstractmethod
    def inner_size(self) -> int:
        """Number of ids without those of begin and end."""

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.inner_size + END_IDS

    @property
    def begin(self) -> int:
        """Id before the first token of a text that is written."""
        return self.inner_size

    @property
    def end(self) -> int:
        """Id after its last token."""
        return self.inner_size + 1

    @property
    def mask(self) -> int:
        """Id that hides a token of a text that is read, which has no begin and end."""
        return self.inner_size

    @property
    def is_lossless(self) -> bool:
        """Whether known tokens give back the normalised text."""
        return True

    @property
    def has_words(self) -> bool:
        """Whether the tokens of a text are its words, which are what is between blanks."""
        return False

    def normalize(self, text: str) -> str:
        """Return the text that `decode` gives back, if all of its tokens are known."""
        return self.normalization.apply(text)

    def find_joint(self, prompt: str) -> str:
        """Return what stands between a prompt and the first token after it: the separator, or nothing."""
        return self.separator if prompt and not prompt[-1].isspace() else ""

    def encode_flat(self, texts: Sequence[str] | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Encode texts as one array of ids, without padding, cut or special ids other than unknown ones.

        Args:
            texts: Without missing ones; an array of Arrow may have them, and they are empty.

        Returns:
            Ids, int32 `(tokens,)`, and where each text begins, int64 `(texts + 1,)`, the last one the number of ids.
        """
        import numpy as np

        layer = self.make_layer(1)
        ids, lengths = [np.zeros(0, "int32")], [np.zeros(1, "int64")]
        for batch in split_batches(texts):
            encoded = layer.encode_ragged(batch)
            ids.append(encoded.values.numpy().astype("int32"))
            lengths.append(encoded.row_lengths().numpy())
        return np.concatenate(ids), np.cumsum(np.concatenate(lengths))

    @property
    @abstractmethod
    def written(self) -> Sequence[bytes]:
        """What each id writes, in UTF-8, perhaps a part of a character.

        Padding, begin and end write nothing, an unknown token UNKNOWN_SIGN.
        """

    def decode(self, ids: np.ndarray) -> str:
        """Return the text of ids `(tokens,)`; what is no UTF-8 is UNKNOWN_SIGN."""
        parts = filter(None, map(self.written.__getitem__, ids.tolist()))
        return self.separator.encode().join(parts).decode("utf-8", "replace")

    @abstractmethod
    def get_token(self, number: int) -> str:
        """Return the token of an id as a person reads it."""

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Convert to plain JSON values, from which the kind's `from_state` makes it again."""

    @abstractmethod
    def make_layer(self, length: int, bag: bool = False) -> TokenEncoder:
        """Make the layer that encodes raw texts in a graph.

        Args:
            length: Number of ids of a text; the first ones of a longer one.
            bag: Return the distinct known ids of each text and their counts, `(texts, 2, length)`.
        """

    @abstractmethod
    def describe(self) -> str:
        """Describe the tokens for plans and reports, such as `8,000 words`."""


def start_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the values that the state of every tokenizer has."""
    return {"kind": tokenizer.kind, **asdict(tokenizer.normalization)}


def read_normalization(state: Mapping[str, Any]) -> Normalization:
    """Return the normalisation of a state."""
    return Normalization(state["composed"], state["lowercase"], state["accents"])


def split_batches(texts: Sequence[str] | pa.ChunkedArray) -> Iterator[np.ndarray]:
    """Yield texts in batches of limited length, as arrays of objects; missing ones are empty."""
    import numpy as np

    batch: list[str] = []
    characters = 0
    for start in range(0, len(texts), _BATCH_ROWS):
        some = texts[start : start + _BATCH_ROWS]
        for text in some if isinstance(some, Sequence) else some.to_pylist():
            if batch and (len(batch) == _BATCH_ROWS or characters + len(text or "") > _BATCH_CHARACTERS):
                yield np.array(batch, object)
                batch, characters = [], 0
            batch.append(text or "")
            characters += len(text or "")
    if batch:
        yield np.array(batch, object)
