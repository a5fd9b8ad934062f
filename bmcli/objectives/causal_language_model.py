"""Causal language model: the next token of a text, from all tokens before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bmcli import inputs as input_kinds
from bmcli.errors import BmcliError
from bmcli.models import CAUSAL_STEPS, Features
from bmcli.objectives import (
    Direction,
    LearnedTarget,
    PlaceMean,
    TokenObjective,
    choose_text,
    compute_place_losses,
    convert_teacher_tokens,
    pick_at_places,
    refuse_predictions,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec
from bmcli.token_ids import PADDING

if TYPE_CHECKING:
    from bmcli.answers import Answers

TARGETS = ()
REQUEST = CAUSAL_STEPS
FORM = "softmax"
METRICS: Mapping[str, Direction] = {}

_KIND = "causal_language_model"
_LEAST = 1e-9  # by which the logarithm of a probability of 1 differs from padding
_BITS = 1.4426950408889634  # of a nat: 1 / ln 2


class Options(ObjectiveOptions):
    """Cross-entropy of the next token of a text, which needs no target (Radford et al. 2018, section 3.1).

    Each token is predicted from all tokens before it. The text input begins and ends with tokens of its own
    (`encoding: written`), so that the model learns the first token and the end of a text, too.
    """

    kind: Literal["causal_language_model"] = Field(
        default="causal_language_model", description="The next token of a text."
    )
    input: str | None = Field(default=None, description="Text input to learn from; by default the only one.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Label smoothing over the tokens (Szegedy et al. 2016)."
    )
    tied: bool = Field(
        default=False,
        description="Compute the logits by the transposed embedding of the input instead of weights of their own "
        "(Press and Wolf 2017): fewer weights, which matters most for large vocabularies. Where the network is wider "
        "or narrower than the embedding, a linear map comes before.",
    )


@dataclass(frozen=True)
class CausalLanguageModel(TokenObjective):
    """The next token of one input; outputs are logits `(batch, steps, tokens)`, of which the last step has no truth.

    `predict` gives the distribution of the token that follows each step.
    """

    label_smoothing: float

    def compute_place_weights(self, target: Any) -> Any:
        from keras import ops

        return ops.pad(self._mask(target), ((0, 0), (0, 1)))

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        following = target[self.input][:, 1:]
        losses = compute_place_losses(_compute_next_logs(output), following, self.label_smoothing)
        return ops.sum(ops.where(following != PADDING, losses, 0.0), axis=1)

    def predict_inputs(self, output: Any, inputs: Mapping[str, Any]) -> Any:
        """Predict the log-probability of each token but the first, `(batch, steps - 1)`: below 0, or 0 for padding."""
        from keras import ops

        following = inputs[self.input][:, 1:]
        logs = pick_at_places(_compute_next_logs(output), following)
        return ops.where(following != PADDING, ops.minimum(logs, -_LEAST), 0.0)

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> Mapping[str, Any]:
        import keras

        mean = keras.metrics.Mean(name="bits_per_token")
        return {"bits_per_token": PlaceMean(mean, "min", lambda target, logs: (-_BITS * logs, self._mask(target)))}

    def _mask(self, target: Any) -> Any:
        from keras import ops

        return ops.cast(target[self.input][:, 1:] != PADDING, "float32")


def _compute_next_logs(output: Any) -> Any:
    """Compute the log-probabilities of the token after each step but the last, `(batch, steps - 1, tokens)`."""
    from keras import ops

    return ops.log_softmax(ops.cast(output[:, :-1], "float32"))


def describe_inputs(options: Options, name: str, inputs: Sequence[Column]) -> LearnedTarget:
    """Describe the log-probability of each token of a text input but the first."""
    column = choose_text(
        _KIND, options.input, (each for each in inputs if input_kinds.get_traits(each).written_tokens is not None),
        needed="a text whose begin and end are tokens", several="are written",
        advice="Write it as {kind: text, encoding: written}.",
    )  # fmt: skip
    (steps,) = column.shape
    if steps < 2:
        raise BmcliError(
            f"the network reads {steps} token of {quoted(column.name)}, so there is none after it to predict.",
            path=f"data.inputs.{column.name}",
            suggestion="Write a larger `length`, or leave it out.",
        )
    output = OutputSpec(name, _KIND, (steps - 1,), activation="softmax", inputs=(column.name,))
    tokenizer = input_kinds.get_traits(column).written_tokens
    assert tokenizer is not None, "the input was chosen for its tokens"
    return LearnedTarget(output, Column(name, "tokens", (steps,), "int32", state=tokenizer.to_state()))


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build the logits of the token after each step, `(batch, steps, tokens)`."""
    import keras

    from bmcli import tokens

    if options.tied:
        if features.embedding is None:
            raise BmcliError(
                "the family has no embedding of the tokens to share.",
                path="objective.tied", suggestion="Leave it out, or choose the family transformer or rnn.",
            )  # fmt: skip
        tensor, width = features.tensor, features.embedding.shape[1]
        tensor = tensor if tensor.shape[-1] == width else keras.layers.Dense(width, use_bias=False)(tensor)
        steps, matrix = (keras.ops.cast(each, "float32") for each in (tensor, features.embedding))
        return keras.ops.matmul(steps, keras.ops.transpose(matrix))
    # In float32 even in mixed precision: the softmax of many 16-bit logits loses digits.
    return keras.layers.Dense(tokens.from_state(target.state).size, dtype="float32")(features.tensor)


def make_answers(output: OutputSpec, target: Column) -> Answers:
    from bmcli.answers.language import LanguageAnswers

    return LanguageAnswers(output, target)


convert_teacher = convert_teacher_tokens
invert_predictions = refuse_predictions


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> CausalLanguageModel:
    return CausalLanguageModel(output, target, options.weight, options.label_smoothing)
