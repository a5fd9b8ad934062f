"""Transformer for tables (Gorishniy, Rubachev, Khrulkov and Babenko 2021, FT-Transformer)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.models import VECTOR, Backbone, DropoutRate, FeatureRequest, Features, Size, Units
from bmcli.recipe.fields import Activation, Initializer, KerasObject, Regularizer, fault_at
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec

_MAX_TOKENS = 1000  # attention weights of more tokens take gigabytes


class Options(ModelOptions):
    """FT-Transformer: self-attention over the columns of a table.

    For tables whose columns interact, where the last bit of accuracy is worth the time: its cost grows with the square
    of the number of columns. Each column is a token; the output is computed from an additional learned token.
    """

    kind: Literal["ft_transformer"] = Field(default="ft_transformer", description="A transformer for tables.")
    width: Units = Field(default=64, description="Width of a token; a multiple of `heads`.")
    depth: Size = Field(default=2, description="Number of blocks, each of attention and a feed-forward network.")
    heads: Size = Field(default=8, description="Attention heads, each of size width / heads.")
    mlp_ratio: Annotated[float, Field(gt=0)] = Field(
        default=4 / 3, description="Hidden units of the gated feed-forward network, as a multiple of `width`."
    )
    activation: Activation = Field(
        default=KerasObject("relu"), description="Keras activation of the gates (Shazeer 2020)."
    )
    dropout: DropoutRate = Field(default=0.1, description="Dropout rate of the feed-forward network's hidden units.")
    attention_dropout: DropoutRate = Field(default=0.1, description="Dropout rate of the attention weights.")
    kernel_initializer: Initializer = Field(
        default=KerasObject("glorot_uniform"),
        description="Keras initializer of the weights of attention and feed-forward networks.",
    )
    kernel_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of these weights, such as {kind: l2, l2: 1e-4}."
    )

    @model_validator(mode="after")
    def _width_divides(self) -> Options:
        if self.width % self.heads:
            raise fault_at(
                ("heads",), f"width {self.width} is not a multiple of {self.heads} heads.", "Change one of the two."
            )
        return self


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    _, features = models.create_inputs(spec)
    return (VECTOR,) if models.is_table(features) else ()


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    import keras

    from bmcli.layers.class_token import ClassToken

    tensors, features = models.create_inputs(spec)
    models.require_table(features, "ft_transformer")
    tokens = ClassToken()(_tokens(options, features))
    for number in range(options.depth):
        # The first block has no normalization before its attention, as in the paper's appendix E.1.
        tokens = keras.layers.Add()([tokens, _attention(options, _normalize(tokens) if number else tokens)])
        tokens = keras.layers.Add()([tokens, _feed_forward(options, _normalize(tokens))])
    vector = models.apply_activation(options.activation, _normalize(tokens[:, 0]))
    return Backbone(tensors, {VECTOR: Features(vector)})


def _tokens(options: Options, features: Sequence[Feature]) -> Any:
    """Embed each number, then each of the other columns, as one token: `(batch, tokens, width)`."""
    import keras

    from bmcli.layers.number_tokens import NumberTokens

    numbers = [feature.tensor for feature in features if models.is_number(feature)]
    others = [feature.tensor for feature in features if not models.is_number(feature)]
    _check_count(len(others) + sum(tensor.shape[-1] for tensor in numbers))
    tokens = [NumberTokens(options.width)(models.concatenate(numbers))] if numbers else []
    for vector in others:
        token = keras.layers.Dense(options.width, **models.kernel_arguments(options))(vector)
        tokens.append(keras.layers.Reshape((1, options.width))(token))
    return tokens[0] if len(tokens) == 1 else keras.layers.Concatenate(axis=1)(tokens)


def _check_count(tokens: int) -> None:
    if tokens > _MAX_TOKENS:
        raise BmcliError(
            f"ft_transformer would have {tokens} tokens, one for each number and column, more than {_MAX_TOKENS}.",
            path="model",
            suggestion="Use `kind: table_resnet`, or leave columns out of data.inputs.",
        )


def _attention(options: Options, tokens: Any) -> Any:
    import keras

    attention = keras.layers.MultiHeadAttention(
        options.heads,
        options.width // options.heads,
        dropout=options.attention_dropout,
        **models.kernel_arguments(options),
    )
    return attention(tokens, tokens)


def _feed_forward(options: Options, tokens: Any) -> Any:
    import keras

    hidden = max(1, round(options.width * options.mlp_ratio))
    gate, value = (keras.layers.Dense(hidden, **models.kernel_arguments(options))(tokens) for _ in range(2))
    tensor = keras.layers.Multiply()([models.apply_activation(options.activation, gate), value])
    if options.dropout:
        tensor = keras.layers.Dropout(options.dropout)(tensor)
    return keras.layers.Dense(options.width, **models.kernel_arguments(options))(tensor)


def _normalize(tokens: Any) -> Any:
    import keras

    return keras.layers.LayerNormalization(epsilon=1e-6)(tokens)
