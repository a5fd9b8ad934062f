"""Masked language model: hidden tokens of a text, from all others before and after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bmcli import inputs as input_kinds
from bmcli import tokens
from bmcli.errors import BmcliError
from bmcli.models import STEPS, Features
from bmcli.objectives import (
    Batch,
    Direction,
    LearnedTarget,
    PlaceMean,
    TokenObjective,
    choose_text,
    convert_teacher_tokens,
    pick_at_places,
    refuse_predictions,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec
from bmcli.token_ids import FIRST_TOKEN
from bmcli.tokenization.base import Tokenizer

if TYPE_CHECKING:
    from bmcli.answers import Answers
    from bmcli.augmentations import RandomSource
    from bmcli.layers.token_masks import TokenMasks

TARGETS = ()
REQUEST = STEPS
FORM = "softmax"
METRICS: Mapping[str, Direction] = {}

_KIND = "masked_language_model"
_MASKED, _RANDOM = 0.8, 0.1  # shares of the hidden tokens; the others stay
_LEAST = 1e-9  # by which the logarithm of a probability of 1 differs from a place that is not hidden


class Options(ObjectiveOptions):
    """Cross-entropy of hidden tokens of a text, from those before and after them (Devlin et al. 2019, section 3.1).

    It needs no target. Of the hidden tokens, 80 % become the mask token, 10 % a random one, and 10 % stay. The text
    input has an id for the mask token (`mask: true`). Where the model is measured, and where it predicts, all hidden
    tokens become the mask token, at places that depend on the text alone.
    """

    kind: Literal["masked_language_model"] = Field(
        default="masked_language_model", description="Hidden tokens of a text."
    )
    input: str | None = Field(default=None, description="Text input to learn from; by default the only one.")
    rate: Annotated[float, Field(ge=0.01, le=0.9)] = Field(default=0.15, description="Share of hidden tokens.")
    whole_words: bool = Field(
        default=False,
        description="Hide all tokens of a word together, where words have several: pieces, characters or bytes.",
    )


@dataclass(frozen=True)
class MaskedLanguageModel(TokenObjective):
    """Hidden tokens of one input; outputs are logits `(batch, steps, tokens)`.

    Args:
        rate: Share of hidden tokens.
        whole_words: Hide the tokens of a word together.
    """

    rate: float
    whole_words: bool

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokens.from_state(self.target.state)

    @cached_property
    def _masks(self) -> TokenMasks:
        from bmcli.layers.token_masks import TokenMasks

        tokenizer = self._tokenizer
        starts = find_word_starts(tokenizer) if self.whole_words else ()
        return TokenMasks(tokenizer.mask, round(100 * self.rate), starts, dtype="float32")

    # The step

    def prepare(self, batch: Batch, draws: RandomSource, training: bool) -> Batch:
        """Hide tokens; the target gets `hidden`, whether each token is to be found, and `masked`, whether it is masked.

        Both are bool `(batch, steps)`.
        """
        ids, mask = batch.target[self.input], self._tokenizer.mask
        if training:
            hidden, shown = self._hide_at_random(ids, draws)
        else:
            shown = self._masks(ids)
            hidden = shown == mask
        target = {**batch.target, "hidden": hidden, "masked": shown == mask}
        return Batch({**batch.inputs, self.input: shown}, target)

    def _hide_at_random(self, ids: Any, draws: RandomSource) -> tuple[Any, Any]:
        """Hide random tokens; returns which ones, and the ids that the network reads."""
        from keras import ops

        steps, tokenizer = ids.shape[1], self._tokenizer
        chances = ops.take_along_axis(draws.uniform(steps), self._masks.number_words(ids), axis=1)
        hidden = ops.logical_and(ids >= FIRST_TOKEN, chances < self.rate)
        count = tokenizer.inner_size - FIRST_TOKEN
        # A draw below 1, times the number of tokens, may be rounded up to it.
        drawn = ops.minimum(ops.cast(draws.uniform(steps) * count, "int32"), count - 1) + FIRST_TOKEN
        action = draws.uniform(steps)
        changed = ops.where(action < _MASKED, tokenizer.mask, ops.where(action < _MASKED + _RANDOM, drawn, ids))
        return hidden, ops.where(hidden, changed, ids)

    def prepare_prediction(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {self.input: self._masks(inputs[self.input])}

    def compute_place_weights(self, target: Any) -> Any:
        from keras import ops

        return ops.cast(target["hidden"], "float32")

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        logs = _pick(ops.log_softmax(ops.cast(output, "float32")), target[self.input])
        return -ops.sum(ops.where(target["hidden"], logs, 0.0), axis=1)

    def predict_inputs(self, output: Any, inputs: Mapping[str, Any]) -> Any:
        """Predict hidden tokens, `(batch, steps, 2)`: log-probabilities, and ids of the text in which they are filled.

        A log-probability is that of the token that is hidden, or of the most probable one where the text has the mask
        token itself: below 0, and 0 at other places. The ids are those of the text at other places.
        """
        from keras import ops

        ids, mask = ops.cast(inputs[self.input], "int32"), self._tokenizer.mask
        hidden = self._masks(ids) == mask
        logs = ops.log_softmax(ops.cast(output, "float32"))
        # Not by `argmax`, for which Keras compares bits of numbers, which LiteRT cannot.
        best = ops.cast(ops.top_k(logs, 1)[1][..., 0], "int32")
        found = _pick(logs, ops.where(ids == mask, best, ids))
        found = ops.where(hidden, ops.minimum(found, -_LEAST), 0.0)
        return ops.stack([found, ops.cast(ops.where(hidden, best, ids), "float32")], axis=-1)

    def explain(self, prediction: Any, chosen: Any) -> Any:
        from keras import ops

        return ops.sum(prediction[:, :, 0], axis=1)

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> Mapping[str, Any]:
        import keras

        mean = keras.metrics.Mean(name="token_accuracy")
        return {"token_accuracy": PlaceMean(mean, "max", self._compare)}

    def _compare(self, target: Any, prediction: Any) -> tuple[Any, Any]:
        """Find at which of all places the text is right, and which are masked, both float32."""
        from keras import ops

        is_right = ops.cast(prediction[:, :, 1], "int32") == ops.cast(target[self.input], "int32")
        return ops.cast(is_right, "float32"), ops.cast(target["masked"], "float32")


def _pick(logs: Any, ids: Any) -> Any:
    """Pick the log-probability of one token at each step, `(batch, steps)`."""
    from keras import ops

    # Ids that are no tokens, such as the mask, have none; they are picked nowhere that counts.
    ids = ops.minimum(ops.cast(ids, "int32"), logs.shape[-1] - 1)
    return pick_at_places(logs, ids)


def find_word_starts(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Find the ids of tokens that begin a word: those with a space before it, and the mask token, which is a word."""
    import numpy as np

    ids = np.arange(tokenizer.inner_size, dtype="int32")
    spaced = (int(each) for each in ids if tokenizer.decode(ids[each : each + 1]).startswith(" "))
    return (*spaced, tokenizer.mask)


def describe_inputs(options: Options, name: str, inputs: Sequence[Column]) -> LearnedTarget:
    """Describe the log-probability of each hidden token of a text input, and the tokens that are filled in."""
    column = choose_text(
        _KIND, options.input, (each for each in inputs if input_kinds.get_traits(each).masked_tokens is not None),
        needed="a text with a mask token", several="have a mask token",
        advice="Write it as {kind: text, encoding: sequence, mask: true}.",
    )  # fmt: skip
    output = OutputSpec(name, _KIND, (*column.shape, 2), activation="softmax", inputs=(column.name,))
    tokenizer = input_kinds.get_traits(column).masked_tokens
    assert tokenizer is not None, "the input was chosen for its mask token"
    if options.whole_words and tokenizer.separator:
        raise BmcliError(
            f"the tokens of {quoted(column.name)} are whole words, so that `whole_words` changes nothing.",
            path="objective.whole_words", suggestion="Leave it out, or choose tokens that are parts of words.",
        )  # fmt: skip
    return LearnedTarget(output, Column(name, "tokens", column.shape, "int32", state=tokenizer.to_state()))


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build the logits of the token at each step, `(batch, steps, tokens)`, by a hidden layer as in BERT."""
    import keras

    width = features.tensor.shape[-1]
    hidden = keras.layers.Dense(width, activation="gelu")(features.tensor)
    hidden = keras.layers.LayerNormalization(epsilon=1e-6)(hidden)
    # In float32 even in mixed precision: the softmax of many 16-bit logits loses digits.
    return keras.layers.Dense(tokens.from_state(target.state).inner_size, dtype="float32")(hidden)


def make_answers(output: OutputSpec, target: Column) -> Answers:
    from bmcli.answers.masked_language import MaskedLanguageAnswers

    return MaskedLanguageAnswers(output, target)


convert_teacher = convert_teacher_tokens
invert_predictions = refuse_predictions


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> MaskedLanguageModel:
    return MaskedLanguageModel(output, target, options.weight, options.rate, options.whole_words)
