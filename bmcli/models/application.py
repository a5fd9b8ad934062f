"""Architectures of `keras.applications` for images, with weights from a file.

ConvNeXt (Liu et al. 2022), DenseNet (Huang et al. 2017), EfficientNet (Tan and Le 2019, 2021), Inception (Szegedy et
al. 2016, 2017), MobileNet (Howard et al. 2017, 2019; Sandler et al. 2018), NASNet (Zoph et al. 2018), ResNet (He et
al. 2016), VGG (Simonyan and Zisserman 2015), Xception (Chollet 2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from bmcli import inputs, models, parts
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.models import MAP, VECTOR, Backbone, DropoutRate, FeatureRequest, Features
from bmcli.quoting import quoted
from bmcli.recipe.fields import fault, fault_at
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras

# Modules and functions of `keras.applications`, by the name in recipes.
_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "convnext_tiny": ("convnext", "ConvNeXtTiny"),
    "convnext_small": ("convnext", "ConvNeXtSmall"),
    "convnext_base": ("convnext", "ConvNeXtBase"),
    "convnext_large": ("convnext", "ConvNeXtLarge"),
    "convnext_xlarge": ("convnext", "ConvNeXtXLarge"),
    "densenet121": ("densenet", "DenseNet121"),
    "densenet169": ("densenet", "DenseNet169"),
    "densenet201": ("densenet", "DenseNet201"),
    **{f"efficientnet_b{size}": ("efficientnet", f"EfficientNetB{size}") for size in range(8)},
    **{f"efficientnet_v2_b{size}": ("efficientnet_v2", f"EfficientNetV2B{size}") for size in range(4)},
    **{f"efficientnet_v2_{size.lower()}": ("efficientnet_v2", f"EfficientNetV2{size}") for size in "SML"},
    "inception_resnet_v2": ("inception_resnet_v2", "InceptionResNetV2"),
    "inception_v3": ("inception_v3", "InceptionV3"),
    "mobilenet": ("mobilenet", "MobileNet"),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2"),
    "mobilenet_v3_small": ("mobilenet_v3", "MobileNetV3Small"),
    "mobilenet_v3_large": ("mobilenet_v3", "MobileNetV3Large"),
    "nasnet_mobile": ("nasnet", "NASNetMobile"),
    "nasnet_large": ("nasnet", "NASNetLarge"),
    **{f"resnet{depth}": ("resnet", f"ResNet{depth}") for depth in (50, 101, 152)},
    **{f"resnet{depth}_v2": ("resnet_v2", f"ResNet{depth}V2") for depth in (50, 101, 152)},
    "vgg16": ("vgg16", "VGG16"),
    "vgg19": ("vgg19", "VGG19"),
    "xception": ("xception", "Xception"),
}


_BY_CLASS_NAME = {function: name for name, (_, function) in _ARCHITECTURES.items()}


def _check_architecture(name: str) -> str:
    name = _BY_CLASS_NAME.get(name, name)
    if name not in _ARCHITECTURES:
        known = f"Known: {', '.join(_ARCHITECTURES)}."
        near = parts.nearest(name, _ARCHITECTURES)
        raise fault("architecture", f"no architecture '{name}'.", f"Did you mean '{near}'?" if near else known)
    return name


Architecture = Annotated[
    str,
    AfterValidator(_check_architecture),
    WithJsonSchema({"type": "string", "enum": [*_ARCHITECTURES, *_BY_CLASS_NAME]}),
]


class Options(ModelOptions):
    """An architecture of `keras.applications` over one image, pooled; other inputs join before the output.

    Suited to fine-tuning from pretrained weights: a few hundred examples suffice. Pixels are scaled as the architecture
    expects, instead of by the input's own `scale`. Nothing is ever downloaded.
    """

    kind: Literal["application"] = Field(default="application", description="An architecture of keras.applications.")
    architecture: Architecture = Field(
        description="Name of the architecture, such as resnet50, or Keras' name, ResNet50."
    )
    weights: str | None = Field(
        default=None,
        description="Weights file without the top, .weights.h5 or .h5; null initialises randomly.",
    )
    freeze: bool = Field(
        default=False, description="Keep the weights of the file fixed, and train only the output layer."
    )
    dropout: DropoutRate = Field(default=0.0, description="Dropout rate of the pooled features.")

    @model_validator(mode="after")
    def _frozen_weights_come_from_a_file(self) -> Options:
        if self.freeze and self.weights is None:
            raise fault_at(("freeze",), "random weights would never be trained.", "Give `weights`, or leave it out.")
        return self


def convolves(options: Options) -> bool:
    return True


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    image = models.find_single_input(spec, sequences=False)
    return () if image is None or _find_pixel_problem(image) else (VECTOR, MAP)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    import keras

    tensors, features = models.create_inputs(spec)
    image, others = models.require_single_input(features, "application", sequences=False)
    if problem := _find_pixel_problem(image):
        raise problem
    pooling = None if MAP in requests else "avg"
    network = _build_network(options, image, pooling, taken=inputs.make_tensor_names(spec.inputs).values())
    if options.weights is not None:
        _load_weights(network, options.weights)
    # Keras then also runs batch normalization with its moving statistics, even in training.
    network.trainable = not options.freeze
    # `preprocess_input` of each architecture expects pixels from 0 to 255; some architectures scale them inside.
    pixels = keras.ops.cast(tensors[image.column.name], "float32")
    module, _ = _ARCHITECTURES[options.architecture]
    tensor = network(getattr(keras.applications, module).preprocess_input(pixels))

    def build_vector() -> Features:
        pooled = tensor if pooling else keras.layers.GlobalAveragePooling2D()(tensor)
        pooled = keras.layers.Dropout(options.dropout)(pooled) if options.dropout else pooled
        return Features(models.concatenate([pooled, *map(models.to_vector, others)]))

    builders = {VECTOR: build_vector, MAP: lambda: Features(models.append_inputs(tensor, others))}
    return Backbone(tensors, models.build_requested(requests, builders))


def _find_pixel_problem(image: Feature) -> BmcliError | None:
    column = image.column
    if column.dtype != "uint8":
        return BmcliError(
            f"the architectures expect pixels from 0 to 255, but {quoted(column.name)} holds {column.dtype}.",
            path="model",
            suggestion="Store its pixels as uint8, or use another family.",
        )
    if column.shape[-1] != 3:
        return BmcliError(
            f"the architectures expect 3 channels, but {quoted(column.name)} has {column.shape[-1]}.",
            path="model",
            suggestion=f"Write data.inputs.{column.name}: {{kind: image, channels: 3}}.",
        )
    return None


def _build_network(options: Options, image: Feature, pooling: str | None, taken: Any) -> keras.Model:
    """Build the network from `(batch, height, width, 3)` to maps or, pooled, `(batch, channels)`, with random weights.

    Args:
        taken: Names of input tensors.
    """
    import keras

    # A nested model with the name of an input cannot be saved.
    name = options.architecture
    while name in taken:
        name += "_"
    make = getattr(keras.applications, _ARCHITECTURES[options.architecture][1])
    try:
        return make(include_top=False, weights=None, input_shape=image.column.shape, pooling=pooling, name=name)
    except ValueError as error:
        raise BmcliError(
            f"{options.architecture}: {str(error).splitlines()[0]}",
            path="model.architecture",
            suggestion=f"Write data.inputs.{image.column.name}: {{kind: image, size: [224, 224]}}.",
        ) from None


def _load_weights(network: keras.Model, weights: str) -> None:
    """Load the weights of a file into a network.

    Raises:
        BmcliError: There is no such file, or it belongs to another network.
    """
    if not Path(weights).is_file():
        raise BmcliError(f"{weights}: no such file.", path="model.weights", suggestion="Weights are not downloaded.")
    from bmcli.layers import keras_file

    try:
        keras_file.check_weights(Path(weights))
        with warnings.catch_warnings():
            # Where the file lacks a part of the network, Keras only warns, and leaves its random weights.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(weights)
    except Exception as error:  # a damaged file makes Keras raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BmcliError(
            f"{weights}: not the weights of {network.name} without its top ({reason}).",
            path="model.weights",
            suggestion="Keras' files of weights without a top end in notop.h5; others are written by `save_weights`.",
        ) from None
