"""Model families: each builds a backbone, from encoded inputs to features on which objectives build their heads."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from bmcli import inputs
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.quoting import quoted
from bmcli.recipe.fields import Activation, Initializer, KerasObject, Kind, Options, Regularizer, fault_at
from bmcli.recipe.model import ModelOptions, ModelSource
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras

Units = Annotated[int, Field(ge=1, le=1_000_000)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1)]
Sizes = Size | tuple[Size, Size]
"""Rows and columns, or one number for both."""

_VECTOR, _SEQUENCE, _IMAGE = 2, 3, 4  # ranks of a feature's tensor, including the batch axis
SMALL_IMAGE = 64  # pixels per side
_GROUP = 16  # channels that are normalized together, as in table 3 of Wu and He 2018
_MOMENTUM = 0.9  # of moving averages: Keras' 0.99 is still far off after the few hundred steps of a small table


Form = Literal["vector", "steps", "map", "pyramid"]


@dataclass(frozen=True)
class FeatureRequest:
    """Features that a head needs.

    Args:
        form: `vector`, `(batch, width)`; `steps`, `(batch, steps, width)`; `map`, `(batch, rows, columns, channels)`;
            or `pyramid`, a tuple of maps of which each has fewer rows and columns than the one before.
        causal: Whether no step may depend on later ones.
    """

    form: Form
    causal: bool = False

    def __str__(self) -> str:
        return f"causal {self.form}" if self.causal else self.form


VECTOR, STEPS, CAUSAL_STEPS = FeatureRequest("vector"), FeatureRequest("steps"), FeatureRequest("steps", causal=True)
MAP, PYRAMID = FeatureRequest("map"), FeatureRequest("pyramid")


@dataclass(frozen=True)
class Features:
    """What a backbone computes from the inputs of an example, in one form.

    Args:
        tensor: A Keras tensor of the shape of the form.
        mask: For steps, true at each that is no padding, `(batch, steps)`; None if all are valid.
        linear: For a family that has its own linear map from its vector to the outputs of a target: makes it, given the
            number of outputs. It reads `tensor` alone.
        embedding: For steps, the matrix by which the tokens of the sequence are embedded, `(tokens, width)`, which a
            head may share; None if there is none.
    """

    tensor: Any
    mask: Any = None
    linear: Callable[[int], Any] | None = None
    embedding: Any = None


@dataclass(frozen=True)
class Backbone:
    """The graph that a family builds.

    Args:
        inputs: Input tensors by column, as `create_inputs` makes them.
        features: By request, those that the family gives.
        by_target: Features by target, instead of those that all targets share.
    """

    inputs: Mapping[str, Any]
    features: Mapping[FeatureRequest, Features]
    by_target: Mapping[str, Features] = field(default_factory=dict)

    def find_features(self, target: str, request: FeatureRequest) -> Features | None:
        """Find the features of a target; None if the family does not give them."""
        return self.by_target.get(target) or self.features.get(request)


class ModelFamily(Protocol):
    """The interface of a module in this folder."""

    Options: type[ModelOptions]

    def convolves(self, options: Any) -> bool:
        """Whether the network has convolutions, which decides settings of TensorFlow and the use of XLA."""

    def forms(self, options: Any, spec: DataSpec) -> tuple[FeatureRequest, ...]:
        """List the features that the family gives for these inputs; none if it does not accept them."""

    def build(self, options: Any, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
        """Build a backbone.

        Args:
            requests: Features that the heads need. One that the family does not give is left out of the result.

        Raises:
            BmcliError: The family does not accept these inputs, or shapes do not fit.
        """


def get_backbone_source(options: Kind) -> ModelSource | None:
    """The run that a network takes its backbone from; None if it has none, or a family without that option."""
    return options.source if isinstance(options, ModelOptions) else None


class DenseOptions(ModelOptions):
    """Options of dense layers. Each is, in this order: linear map, normalization, activation, dropout."""

    activation: Activation = Field(default=KerasObject("relu"), description="Keras activation of the hidden layers.")
    kernel_initializer: Initializer = Field(
        default=KerasObject("glorot_uniform"),
        description="Keras initializer of the weights of the hidden layers.",
    )
    kernel_regularizer: Regularizer | None = Field(
        default=None,
        description="Keras regularizer of the weights of the hidden layers, such as {kind: l2, l2: 1e-4}.",
    )
    dropout: DropoutRate = Field(
        default=0.0,
        description="Dropout rate of the hidden layers (Srivastava et al. 2014).",
    )
    normalization: Literal["batch", "layer"] | None = Field(
        default=None,
        description="Normalization before the activation: batch (Ioffe and Szegedy 2015), "
        "layer (Ba et al. 2016), or null.",
    )


class ConvolutionOptions(ModelOptions):
    """Options of the convolutional families. A convolution is: linear map, normalization, activation."""

    stem: Literal["small", "halving", "large"] | None = Field(
        default=None,
        description="First convolution: small is 3x3; halving is 3x3 with stride 2; large is 7x7 with stride 2 and "
        "pooling, a sixteenth of the pixels. By default small for images below 64 pixels a side, else large.",
    )
    normalization: Literal["batch", "group"] = Field(
        default="batch",
        description="Normalization of each convolution: batch (Ioffe and Szegedy 2015), or group (Wu and He 2018), "
        "which is independent of the batch and suits small batches.",
    )
    activation: Activation = Field(default=KerasObject("relu"), description="Keras activation of the convolutions.")
    kernel_initializer: Initializer = Field(
        default=KerasObject("he_normal"), description="Keras initializer of the weights of the convolutions."
    )
    kernel_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of the weights of the convolutions, such as {kind: l2, l2: 1e-4}."
    )
    dropout: DropoutRate = Field(default=0.0, description="Dropout rate of the pooled features.")


class PeriodicOptions(Options):
    """Periodic embeddings of numbers: sines and cosines of learned frequencies, each followed by a dense layer."""

    frequencies: Size = Field(default=16, description="Frequencies per number.")
    deviation: Annotated[float, Field(gt=0)] = Field(
        default=0.1,
        description="Standard deviation of the initial frequencies, in cycles per unit of the number; larger values "
        "resolve finer steps, and more noise.",
    )
    width: Units = Field(default=16, description="Width of the vector that each number becomes.")


PeriodicEmbedding = Annotated[
    PeriodicOptions | None,
    Field(
        description="Periodic embeddings of numbers (Gorishniy et al. 2022), {} with default options, which help "
        "where the target jumps or oscillates with a number; null uses plain numbers.",
    ),
]


def check_stages(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Require a number of blocks for the width of each stage; raises `fault_at` otherwise."""
    if len(blocks) != len(widths):
        raise fault_at(
            ("blocks",),
            f"{len(blocks)} stages of blocks for {len(widths)} widths.",
            "Give a number for each stage in both.",
        )


def create_inputs(
    spec: DataSpec, reserved: Iterable[str] = (), stacked: bool = False
) -> tuple[dict[str, Any], list[Feature]]:
    """Create the input tensors by column, in their encoded shapes and dtypes, and the features and crosses of them.

    Args:
        reserved: Names that the family gives to its layers.
        stacked: Whether the family treats all features alike, so that many equal columns may become one feature.
    """
    import keras

    names = inputs.make_tensor_names(spec.inputs)
    _reserve_names([*names.values(), *reserved])
    tensors = {
        column.name: keras.Input(column.shape, dtype=column.dtype, name=names[column.name]) for column in spec.inputs
    }
    features = inputs.build_features(spec.inputs, tensors, stacked)
    return tensors, [*features, *(inputs.build_cross_feature(cross, spec, tensors) for cross in spec.crosses)]


def build_requested(
    requests: Collection[FeatureRequest], builders: Mapping[FeatureRequest, Callable[[], Features]]
) -> dict[FeatureRequest, Features]:
    """Build the requested features alone, because layers that no head reads would be no part of the network."""
    return {request: builders[request]() for request in requests if request in builders}


def build_linear_head(features: Features, width: int) -> Any:
    """Build the head of most objectives, a linear map from a vector to logits or numbers, `(batch, width)`."""
    return apply_linear(features.tensor, width) if features.linear is None else features.linear(width)


def apply_linear(tensor: Any, width: int, regularizer: KerasObject | None = None) -> Any:
    """Apply a linear map to logits or numbers, `(batch, width)`."""
    import keras

    from bmcli.layers.keras_objects import make_keras_object

    # In float32 even in mixed precision: softmax and losses of 16-bit logits lose digits, and overflow in float16.
    return keras.layers.Dense(
        width, dtype="float32", kernel_regularizer=make_keras_object("regularizers", regularizer)
    )(tensor)


def create_keras_model(tensors: Mapping[str, Any], outputs: Mapping[str, Any]) -> keras.Model:
    """Create the Keras model from inputs by column name to outputs by target name."""
    import keras

    with allow_column_names():
        return keras.Model(dict(tensors), dict(outputs), name=inputs.NETWORK_NAME)


@contextmanager
def allow_column_names() -> Iterator[None]:
    """Allow inputs with the names of columns inside the context."""
    # A column may have a name that Keras does not allow for a tensor. Keras warns if the keys of a dictionary of inputs
    # are not the names of its tensors.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
        yield


def _reserve_names(names: Iterable[str]) -> None:
    """Keep Keras from choosing these names for layers and operations."""
    # Keras numbers its names by prefix, such as `mean_1`, and two layers of one name make a model impossible. A column
    # may be called `mean` or `dense_2`: the counter of such a prefix is advanced beyond the number.
    import keras

    highest: dict[str, int] = {}
    for name in names:
        keras.backend.get_uid(name)
        if numbered := re.fullmatch(r"(.+)_([1-9]\d{0,3})", name):
            highest[numbered[1]] = max(int(numbered[2]), highest.get(numbered[1], 0))
    for prefix, number in highest.items():
        for _ in range(number + 1):
            keras.backend.get_uid(prefix)


def to_vector(feature: Feature) -> Any:
    """Flatten a feature to `(batch, width)`; padding becomes zeros."""
    import keras

    tensor = feature.tensor
    if feature.mask is not None:
        tensor = keras.ops.where(keras.ops.expand_dims(feature.mask, -1), tensor, keras.ops.zeros_like(tensor))
    return tensor if len(tensor.shape) == 2 else keras.layers.Flatten()(tensor)


def to_vectors(
    features: Sequence[Feature], periodic: PeriodicOptions | None = None, convert: Callable[[Feature], Any] = to_vector
) -> list[Any]:
    """Convert all features to vectors, `(batch, width)` each; with `periodic` the embedded numbers come first.

    Args:
        convert: Converts a feature that is not embedded.

    Raises:
        BmcliError: Periodic embeddings are requested, but no input is a number.
    """
    if periodic is None:
        return [convert(feature) for feature in features]
    import keras

    from bmcli.layers.periodic import Periodic

    numbers = [feature for feature in features if is_number(feature)]
    if not numbers:
        raise BmcliError(
            "`periodic` embeds numbers, but no input is a number.", path="model.periodic", suggestion="Leave it out."
        )
    embed = Periodic(periodic.frequencies, periodic.deviation, periodic.width)
    embedded = keras.layers.Flatten()(embed(concatenate([feature.tensor for feature in numbers])))
    return [embedded, *(convert(feature) for feature in features if not is_number(feature))]


def is_number(feature: Feature) -> bool:
    """Whether a feature is a number or a vector of numbers, and not a bin, date, boolean or sequence."""
    return inputs.get_traits(feature.column).is_number and len(feature.tensor.shape) == _VECTOR


def require_table(features: Sequence[Feature], family: str) -> None:
    """Refuse an input that is a sequence or an image."""
    for feature in features:
        if len(feature.tensor.shape) != _VECTOR:
            raise BmcliError(
                f"{family} works on the columns of a table, but {quoted(feature.column.name)} is "
                f"{_format_shape(feature.tensor)}.",
                path="model",
                suggestion="Use another family, or leave it out of data.inputs.",
            )


def is_table(features: Sequence[Feature]) -> bool:
    """Whether no input is a sequence or an image."""
    return all(len(feature.tensor.shape) == _VECTOR for feature in features)


def concatenate(vectors: Sequence[Any]) -> Any:
    """Concatenate vectors to `(batch, sum of widths)`."""
    import keras

    return vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(list(vectors))


def require_single_input(features: Sequence[Feature], family: str, *, sequences: bool) -> tuple[Feature, list[Feature]]:
    """Find the one feature that a family works on; returns it and the other features.

    Args:
        sequences: Whether the family works on sequences as well as images.

    Raises:
        BmcliError: No input fits, or more than one.
    """
    fitting = _list_fitting(features, sequences)
    if len(fitting) != 1:
        expected = "sequence or image" if sequences else "image"
        received = ", ".join(f"{f.column.name} ({_format_shape(f.tensor)})" for f in features)
        raise BmcliError(
            f"{family} works on one {expected}, but {len(fitting) or 'none'} of these inputs fits: {received}.",
            path="model",
            suggestion=_suggest_alternative(features, bool(fitting)),
        )
    return fitting[0], [feature for feature in features if feature is not fitting[0]]


def find_single_input(spec: DataSpec, *, sequences: bool) -> Feature | None:
    """Find the one feature that a family of `require_single_input` works on; None if there is none or more than one."""
    fitting = _list_fitting(create_inputs(spec)[1], sequences)
    return fitting[0] if len(fitting) == 1 else None


def _list_fitting(features: Sequence[Feature], sequences: bool) -> list[Feature]:
    ranks = (_SEQUENCE, _IMAGE) if sequences else (_IMAGE,)
    return [feature for feature in features if len(feature.tensor.shape) in ranks]


def _suggest_alternative(features: Sequence[Feature], several: bool) -> str:
    """Suggest what to change where no input, or more than one, fits a family."""
    if several:
        return "Choose it in data.inputs, or connect several with `kind: layers`."
    for feature in features:
        if option := inputs.get_traits(feature.column).sequence_option:
            return f"Write `{option}` for {quoted(feature.column.name)} in data.inputs, or use `kind: mlp`."
    return "Use `kind: mlp` for columns, or name the column's kind in data.inputs."


def _format_shape(tensor: Any) -> str:
    return "x".join(str(size) for size in tensor.shape[1:])


def is_image(feature: Feature) -> bool:
    return len(feature.tensor.shape) == _IMAGE


def is_sequence(feature: Feature) -> bool:
    return len(feature.tensor.shape) == _SEQUENCE


def to_sequence(feature: Feature) -> Any:
    """Convert an image to the sequence of its rows, `(batch, height, width * channels)`; a sequence stays as it is."""
    import keras

    if not is_image(feature):
        return feature.tensor
    _, height, width, channels = feature.tensor.shape
    return keras.layers.Reshape((height, width * channels))(feature.tensor)


def apply_dense(options: DenseOptions, tensor: Any, units: int, activation: KerasObject | None = None) -> Any:
    """Apply a hidden layer, `(batch, units)`."""
    import keras

    # Normalization adds an offset itself, which makes a bias superfluous.
    tensor = keras.layers.Dense(units, use_bias=options.normalization is None, **kernel_arguments(options))(tensor)
    return finish_dense(options, tensor, activation)


def finish_dense(options: DenseOptions, tensor: Any, activation: KerasObject | None = None) -> Any:
    """Apply the parts of a dense layer after its linear map: normalization, activation, dropout."""
    return apply_dropout(
        options, apply_activation(activation or options.activation, apply_normalization(options, tensor))
    )


class WeightOptions(Protocol):
    """Options of the initial values and the regularization of weights."""

    @property
    def kernel_initializer(self) -> KerasObject: ...
    @property
    def kernel_regularizer(self) -> KerasObject | None: ...


def kernel_arguments(options: WeightOptions) -> dict[str, Any]:
    """Make the arguments of a Keras layer for its weights."""
    from bmcli.layers.keras_objects import make_keras_object

    # New objects for each layer: an initializer that is used twice gives the same numbers again.
    return {
        "kernel_initializer": make_keras_object("initializers", options.kernel_initializer),
        "kernel_regularizer": make_keras_object("regularizers", options.kernel_regularizer),
    }


def apply_normalization(options: DenseOptions, tensor: Any, mask: Any = None) -> Any:
    import keras

    if options.normalization == "batch":
        return keras.layers.BatchNormalization(momentum=_MOMENTUM)(tensor, mask=mask)
    return keras.layers.LayerNormalization()(tensor) if options.normalization == "layer" else tensor


def apply_activation(activation: KerasObject, tensor: Any) -> Any:
    import keras

    from bmcli.layers.keras_objects import make_keras_object

    return keras.layers.Activation(make_keras_object("activations", activation))(tensor)


def apply_dropout(options: DenseOptions | ConvolutionOptions, tensor: Any) -> Any:
    import keras

    return keras.layers.Dropout(options.dropout)(tensor) if options.dropout else tensor


def to_pair(sizes: int | tuple[int, int]) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else sizes


def apply_convolution(
    options: ConvolutionOptions,
    tensor: Any,
    filters: int,
    kernel_size: int = 1,
    strides: int = 1,
    *,
    linear: bool = False,
    first_scale: Literal["ones", "zeros"] = "ones",
) -> Any:
    """Apply a convolution with its normalization and activation, `(batch, height / strides, width / strides, filters)`.

    Args:
        linear: Leave out the activation.
        first_scale: Initial scale of the normalization.
    """
    import keras

    layer = keras.layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, **kernel_arguments(options)
    )
    return finish_convolution(options, layer(tensor), linear=linear, first_scale=first_scale)


def finish_convolution(
    options: ConvolutionOptions, tensor: Any, *, linear: bool = False, first_scale: Literal["ones", "zeros"] = "ones"
) -> Any:
    """Apply the parts of a convolution after its linear map: normalization and activation."""
    import keras

    if options.normalization == "batch":
        layer = keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-5, gamma_initializer=first_scale)
    else:
        # Groups must have equal sizes: the largest common divisor of 16 and the number of channels.
        channels = tensor.shape[-1]
        groups = channels // math.gcd(channels, _GROUP)
        layer = keras.layers.GroupNormalization(groups, epsilon=1e-5, gamma_initializer=first_scale)
    return layer(tensor) if linear else apply_activation(options.activation, layer(tensor))


def apply_stem(options: ConvolutionOptions, image: Feature, filters: int) -> Any:
    """Apply the first convolution of a convolutional family to an image."""
    import keras

    is_small = min(image.tensor.shape[1:3]) < SMALL_IMAGE
    stem = options.stem or ("small" if is_small else "large")
    if stem != "large":
        return apply_convolution(options, image.tensor, filters, 3, 1 if stem == "small" else 2)
    tensor = apply_convolution(options, image.tensor, filters, 7, 2)
    return keras.layers.MaxPooling2D(3, strides=2, padding="same")(tensor)


def list_map_forms(spec: DataSpec) -> tuple[FeatureRequest, ...]:
    """List the features of a convolutional family, which works on one image."""
    return () if find_single_input(spec, sequences=False) is None else (VECTOR, MAP, PYRAMID)


def build_map_features(
    inputs: Mapping[str, Any],
    maps: Sequence[Any],
    others: Sequence[Feature],
    requests: Collection[FeatureRequest],
    pool: Callable[[Any], Any],
) -> Backbone:
    """Build the features of a convolutional family, which the other inputs join.

    Args:
        maps: The last maps of each stage, `(batch, rows, columns, channels)`.
        pool: Reduces the last maps to a vector.
    """
    builders = {
        VECTOR: lambda: Features(concatenate([pool(maps[-1]), *map(to_vector, others)])),
        MAP: lambda: Features(append_inputs(maps[-1], others)),
        PYRAMID: lambda: Features(tuple(append_inputs(each, others) for each in maps)),
    }
    return Backbone(inputs, build_requested(requests, builders))


def append_inputs(tensor: Any, others: Sequence[Feature]) -> Any:
    """Append the other inputs, as vectors, to every step or place of features."""
    import keras

    if not others:
        return tensor
    vector, places = concatenate([to_vector(feature) for feature in others]), tensor.shape[1:-1]
    repeated = keras.layers.RepeatVector(math.prod(places))(vector)
    return keras.layers.Concatenate()([tensor, keras.layers.Reshape((*places, vector.shape[-1]))(repeated)])


def pool_maps(options: ConvolutionOptions, tensor: Any) -> Any:
    """Average maps over rows and columns, `(batch, channels)`."""
    import keras

    return apply_dropout(options, keras.layers.GlobalAveragePooling2D()(tensor))
