"""Transformer (Vaswani et al. 2017) for sequences, and for images (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.models import (
    CAUSAL_STEPS,
    MAP,
    STEPS,
    VECTOR,
    Backbone,
    DropoutRate,
    FeatureRequest,
    Features,
    Size,
    Sizes,
    Units,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import Activation, Initializer, KerasObject, Regularizer, fault_at
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras


class Options(ModelOptions):
    """Transformer: self-attention over the steps of one sequence; other inputs join after pooling.

    For long sequences and ten thousand rows or more. With `patch` and `pooling: token` it is the vision transformer
    (Dosovitskiy et al. 2021), with `share` the encoder of ALBERT (Lan et al. 2020). For a language model no token
    attends to later ones, as in GPT-2 (Radford et al. 2019); with `positions: rotary`, `normalization: rms`, `gated`,
    `activation: silu` and few `key_value_heads` it is the network of Llama (Touvron et al. 2023). Tokens are the steps
    of a sequence, or the rows or patches of an image. Padding is masked.
    """

    WIDTHS: ClassVar = ("mlp_ratio",)  # options that channel pruning may reduce
    NORMALIZES_WHOLE: ClassVar = True  # normalization is of the tokens, whose width stays
    kind: Literal["transformer"] = Field(default="transformer", description="A transformer.")
    width: Units = Field(default=64, description="Width of a token; a multiple of `heads`.")
    depth: Size = Field(default=2, description="Number of blocks, each of attention and a feed-forward network.")
    share: bool = Field(
        default=False,
        description="Share the weights of one block among all blocks (Lan et al. 2020): fewer weights and less "
        "overfitting.",
    )
    heads: Size = Field(default=4, description="Attention heads, each of size width / heads.")
    key_value_heads: Size | None = Field(
        default=None,
        description="Heads of keys and values, of which each serves several heads of queries (grouped-query "
        "attention, Ainslie et al. 2023); 1 is multi-query attention. By default as many as `heads`.",
    )
    mlp_ratio: Annotated[float, Field(gt=0)] = Field(
        default=4.0, description="Hidden units of the feed-forward network, as a multiple of `width`."
    )
    patch: Sizes | None = Field(
        default=None,
        description="Patch size for images, one number or [rows, columns]; null reads the image row by row.",
    )
    positions: Literal["learned", "sinusoidal", "rotary"] | None = Field(
        default="learned",
        description="How tokens know their order: learned or sinusoidal vectors that are added to them, or `rotary`, "
        "a rotation of queries and keys in every block (Su et al. 2021); null omits it.",
    )
    pooling: Literal["mean", "max", "token"] = Field(
        default="mean",
        description="How tokens become a vector; token is a learned class token (Devlin et al. 2019).",
    )
    normalization: Literal["layer", "rms"] = Field(
        default="layer",
        description="Normalization: `layer` (Ba et al. 2016), or `rms`, by the root mean square alone (Zhang and "
        "Sennrich 2019).",
    )
    norm_first: bool = Field(
        default=True,
        description="Normalize before attention and feed-forward network, which trains stably without warm-up "
        "(Xiong et al. 2020).",
    )
    activation: Activation = Field(
        default=KerasObject("gelu"), description="Keras activation of the feed-forward networks."
    )
    gated: bool = Field(
        default=False,
        description="Multiply the activation by a second linear map (Shazeer 2020): with `activation: silu` SwiGLU.",
    )
    dropout: DropoutRate = Field(
        default=0.1,
        description="Dropout rate of tokens, attention weights, and outputs of attention and feed-forward network.",
    )
    kernel_initializer: Initializer = Field(
        default=KerasObject("glorot_uniform"), description="Keras initializer of all weights."
    )
    kernel_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of all weights, such as {kind: l2, l2: 1e-4}."
    )

    @model_validator(mode="after")
    def _width_divides(self) -> Options:
        if self.width % self.heads:
            raise fault_at(
                ("heads",),
                f"width {self.width} is not a multiple of {self.heads} heads.",
                "Change one of the two.",
            )
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise fault_at(
                ("key_value_heads",),
                f"{self.heads} heads cannot be shared among {self.key_value_heads} heads of keys and values.",
                "Write a divisor of `heads`.",
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise fault_at(
                ("heads",),
                f"rotary positions need heads of an even width, but width / heads is {self.width // self.heads}.",
                "Change one of the two.",
            )
        if self.positions == "sinusoidal" and self.width % 2:
            raise fault_at(("width",), f"sinusoidal positions need an even width, received {self.width}.")
        if self.share and self.depth == 1:
            raise fault_at(("share",), "sharing weights needs more than one block.", "Set `depth` to 2 or more.")
        return self


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    if models.find_single_input(spec, sequences=True) is None:
        return ()
    # A class token before all steps would see none of them.
    causal = () if options.pooling == "token" else (CAUSAL_STEPS,)
    return (VECTOR, STEPS, *causal, *([MAP] if options.patch else []))


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec)
    source, others = models.require_single_input(features, "transformer", sequences=True)
    tokens, mask = _embed_tokens(options, _tokens(options, source), source.mask)
    causal = CAUSAL_STEPS in requests
    blocks = [_block(options, causal) for _ in range(1 if options.share else options.depth)]
    for number in range(options.depth):
        tokens = blocks[number % len(blocks)](tokens, mask)
    # With normalization at the start of blocks, the sum of their outputs is not normalized yet.
    tokens = _normalization(options)(tokens) if options.norm_first else tokens
    first_step = 1 if options.pooling == "token" else 0

    def build_vector() -> Features:
        return Features(models.concatenate([_pool_tokens(options, tokens, mask), *map(models.to_vector, others)]))

    def build_steps() -> Features:
        return Features(models.append_inputs(tokens[:, first_step:], others), source.mask, embedding=source.embedding)

    def build_map() -> Features:
        return Features(models.append_inputs(_to_map(options, source, tokens[:, first_step:]), others))

    builders = {VECTOR: build_vector, STEPS: build_steps}
    if options.pooling != "token":
        builders[CAUSAL_STEPS] = build_steps
    if options.patch:
        builders[MAP] = build_map
    return Backbone(tensors, models.build_requested(requests, builders))


def _to_map(options: Options, source: Feature, tokens: Any) -> Any:
    """Arrange the tokens of patches in the rows and columns of the image."""
    import keras

    assert options.patch is not None, "the image is cut into patches"
    sizes = zip(source.tensor.shape[1:3], models.to_pair(options.patch), strict=True)
    return keras.layers.Reshape((*(size // patch for size, patch in sizes), options.width))(tokens)


def _tokens(options: Options, source: Feature) -> Any:
    """Split the source into tokens, `(batch, tokens, features)`."""
    if options.patch is None:
        return models.to_sequence(source)
    if not models.is_image(source):
        raise BmcliError(
            f"only images have patches, but {quoted(source.column.name)} is a sequence.",
            path="model.patch",
            suggestion="Leave `patch` out; the tokens are the steps.",
        )
    return _patches(source, models.to_pair(options.patch))


def _patches(source: Feature, patch: tuple[int, int]) -> Any:
    """Cut an image into patches, row by row, and flatten each."""
    import keras

    _, height, width, channels = source.tensor.shape
    if height % patch[0] or width % patch[1]:
        raise BmcliError(
            f"an image of {height}x{width} cannot be cut into patches of {patch[0]}x{patch[1]}.",
            path="model.patch",
            suggestion=f"Rows can be divided by {_divisors(height)}; columns by {_divisors(width)}.",
        )
    down, across = height // patch[0], width // patch[1]
    tensor = keras.layers.Reshape((down, patch[0], across, patch[1] * channels))(source.tensor)
    tensor = keras.layers.Permute((1, 3, 2, 4))(tensor)
    return keras.layers.Reshape((down * across, patch[0] * patch[1] * channels))(tensor)


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)


def _embed_tokens(options: Options, tokens: Any, mask: Any) -> tuple[Any, Any]:
    """Project tokens to the model's width, and add positions and, with `pooling: token`, the class token."""
    from bmcli.layers.class_token import ClassToken
    from bmcli.layers.positions import Positions

    tokens = _dense(options, options.width)(tokens)
    if options.positions is not None and options.positions != "rotary":
        tokens = Positions(options.positions)(tokens)
    if options.pooling == "token":
        tokens = ClassToken()(tokens)
        mask = None if mask is None else _extend_mask(mask)
    return _dropout(options)(tokens), mask


def _extend_mask(mask: Any) -> Any:
    from keras import ops

    return ops.concatenate([ops.ones_like(mask[:, :1]), mask], axis=1)


def _expand_mask(mask: Any) -> Any:
    """Expand a mask to `(batch, 1, tokens)`, so that every token attends to the valid ones."""
    from keras import ops

    return ops.expand_dims(ops.cast(mask, "bool"), 1)


def _block(options: Options, causal: bool) -> Callable[[Any, Any], Any]:
    """Build a block of attention and a feed-forward network: a function of tokens and mask.

    Its layers are made once, so that a function that is called several times shares its weights.
    """
    attention, feed_forward = _attention(options, causal), _feed_forward(options)
    first, second = _build_residual(options), _build_residual(options)
    return lambda tokens, mask: second(first(tokens, lambda x: attention(x, mask)), feed_forward)


def _build_residual(options: Options) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """Build a residual connection around a function of tokens, with normalization before or after it."""
    import keras

    normalization, dropout = _normalization(options), _dropout(options)

    def apply(tokens: Any, function: Callable[[Any], Any]) -> Any:
        if options.norm_first:
            return keras.layers.Add()([tokens, dropout(function(normalization(tokens)))])
        return normalization(keras.layers.Add()([tokens, dropout(function(tokens))]))

    return apply


def _attention(options: Options, causal: bool) -> Callable[[Any, Any], Any]:
    """Build attention: that of Keras, or of our own where Keras has no layer that can be computed step by step."""
    import keras

    from bmcli.layers.self_attention import SelfAttention

    size, arguments = options.width // options.heads, models.kernel_arguments(options)
    rotary = options.positions == "rotary"
    if causal or rotary or options.key_value_heads:
        own = SelfAttention(options.heads, size, options.key_value_heads, rotary, causal, options.dropout, **arguments)
        return lambda tokens, mask: own(tokens, mask=mask)
    attention = keras.layers.MultiHeadAttention(options.heads, size, dropout=options.dropout, **arguments)

    def attend(tokens: Any, mask: Any) -> Any:
        return attention(tokens, tokens, attention_mask=None if mask is None else _expand_mask(mask))

    return attend


def _feed_forward(options: Options) -> Callable[[Any], Any]:
    import keras

    width = max(1, round(options.width * options.mlp_ratio))
    hidden, gate = _dense(options, width), _dense(options, width) if options.gated else None
    dropout, out = _dropout(options), _dense(options, options.width)

    def apply(tokens: Any) -> Any:
        active = models.apply_activation(options.activation, hidden(tokens))
        return out(dropout(active if gate is None else keras.layers.Multiply()([active, gate(tokens)])))

    return apply


def _pool_tokens(options: Options, tokens: Any, mask: Any) -> Any:
    from bmcli.layers.step_pooling import StepPooling

    if options.pooling == "token":
        return tokens[:, 0]
    return StepPooling(options.pooling)(tokens, mask=mask)


def _dense(options: Options, units: int) -> keras.layers.Layer:
    import keras

    return keras.layers.Dense(units, **models.kernel_arguments(options))


def _dropout(options: Options) -> Callable[[Any], Any]:
    import keras

    return keras.layers.Dropout(options.dropout) if options.dropout else lambda tensor: tensor


def _normalization(options: Options) -> keras.layers.Layer:
    import keras

    if options.normalization == "rms":
        return keras.layers.RMSNormalization(epsilon=1e-6)
    return keras.layers.LayerNormalization(epsilon=1e-6)
