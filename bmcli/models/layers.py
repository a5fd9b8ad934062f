"""Graphs of Keras layers that a recipe lists."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bmcli import inputs, models, parts
from bmcli.errors import BmcliError, Fault
from bmcli.inputs import Feature
from bmcli.models import MAP, STEPS, VECTOR, Backbone, FeatureRequest, Features
from bmcli.recipe import catalogue, graph
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.graph import SHARED, GraphLayer
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec

_PROBABILITIES = ("softmax", "sigmoid")
_ACTIVATIONS = (*_PROBABILITIES, "activation", "identity")
_READ_OR_DROP = "Read it in a `from`, or leave it out of data.inputs."


class Options(ModelOptions):
    """A graph of Keras layers.

    Each layer is a mapping of its `kind`, the options of that Keras layer, an optional `name`, and `from`: the layer or
    input column it reads, or a list of these. Without `from` it reads the previous layer, and the first layer reads the
    only input. `{kind: shared, layer: NAME, from: ...}` applies a layer again with the same weights. A layer may read
    one that is defined later. A layer without a name is named by kind and position, such as `dense_3`.

    Outputs are logits or plain numbers: a final softmax or sigmoid of a classification target is removed, because the
    objective applies it. A dense layer that ends the graph is the head of its target; the layers before it are the
    backbone.
    """

    kind: Literal["layers"] = Field(default="layers", description="A graph of Keras layers.")
    layers: Annotated[tuple[Mapping[str, Any], ...], graph.LayersField()] = Field(
        description="The layers of the graph."
    )
    outputs: Mapping[str, str] | None = Field(
        default=None,
        description="Output layer of each target; by default the last layer, for a single target.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _graph_is_whole(cls, value: Any, handler: Any) -> Any:
        mapping = value if isinstance(value, Mapping) else {}
        problems = graph.find_output_problems(mapping.get("layers"), mapping.get("outputs"))
        if not problems:
            return handler(value)
        # The other fields are checked even so, so that a user sees all faults at once.
        try:
            handler(value)
        except ValidationError as error:
            raise graph.make_validation_error(problems, error) from None
        raise graph.make_validation_error(problems)


def convolves(options: Options) -> bool:
    return any("conv" in str(layer["kind"]) for layer in options.layers)


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return (VECTOR, STEPS, MAP)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    layers = graph.read_layers(options.layers)
    outputs = _outputs(options, layers, [column.name for column in spec.learned])
    _check_links(layers, inputs.make_tensor_names([*spec.inputs, *spec.crosses]))
    logits = [outputs[output.name] for output in spec.outputs if output.activation != "linear"]
    layers = tuple(_strip_probabilities(layer, layers) if layer.name in logits else layer for layer in layers)
    tensors, input_features = models.create_inputs(spec, reserved=[layer.name for layer in layers])
    columns = {feature.column.name: _attach_mask(feature) for feature in input_features}
    values = _call_layers(layers, columns)
    by_name = {layer.name: layer for layer in layers}
    features = {}
    for target, name in outputs.items():
        finish = partial(_finish_output, values[name], layer=by_name[name], target=target, spec=spec)
        features[target] = Features(values[_find_head_source(name, by_name, tuple(columns))], linear=finish)
    return Backbone(tensors, {}, features)


def _find_head_source(name: str, layers: Mapping[str, GraphLayer], columns: Sequence[str]) -> str:
    """Find the layer or column that the head of a target reads.

    The head is the dense layer that ends the graph, with an activation behind it; if another layer ends it, all layers
    are the backbone.
    """
    graph_layers = tuple(layers.values())
    read = [source for layer in graph_layers for source in graph.get_sources(layer, graph_layers)]
    read += [layer.shared_layer for layer in graph_layers]
    readers = 0  # of an output that other layers read too, none is the head
    while name in layers and read.count(name) == readers:
        kind, sources = layers[name].kind, graph.get_sources(layers[name], graph_layers) or tuple(columns)
        if len(sources) != 1 or kind not in (*_ACTIVATIONS, "dense"):
            return name
        name, readers = sources[0], 1
        if kind == "dense":
            return name
    return name


def _outputs(options: Options, layers: Sequence[GraphLayer], targets: Sequence[str]) -> dict[str, str]:
    """Resolve the name of the output layer of each target."""
    outputs = options.outputs
    if outputs is None:
        if len(targets) > 1:
            example = ", ".join(f"{target}: NAME" for target in targets)
            raise BmcliError(
                f"{len(targets)} targets need one output layer each.",
                path="model",
                suggestion=f"Write outputs: {{{example}}}.",
            )
        return {target: layers[-1].name for target in targets}
    faults = [
        Fault(
            f"there is no target '{name}'.",
            f"model.outputs.{name}",
            suggestion=parts.did_you_mean(name, targets),
        )
        for name in outputs
        if name not in targets
    ]
    faults += [
        Fault(f"target '{name}' has no output layer.", "model.outputs") for name in targets if name not in outputs
    ]
    if faults:
        raise BmcliError(*faults)
    return dict(outputs)


def _check_links(layers: Sequence[GraphLayer], tensors: Mapping[str, str]) -> None:
    """Refuse a source that is neither a layer nor a column, and a column that no layer reads.

    Args:
        tensors: Names of the input tensors by column.
    """
    columns = list(tensors)
    faults = [
        Fault(f"'{layer.name}' is also the name of an input.", f"model.layers.{layer.index}.name")
        for layer in layers
        if layer.name in {*columns, *tensors.values()}
    ]
    faults += [*_check_first_layer(layers, columns), *_find_unknown_sources(layers, columns)]
    faults = faults or _find_unread_inputs(layers, columns)
    if faults:
        raise BmcliError(*faults)


def _check_first_layer(layers: Sequence[GraphLayer], columns: Sequence[str]) -> list[Fault]:
    if layers[0].sources is not None or len(columns) == 1:
        return []
    message = f"the first layer must name the inputs that it reads, of {', '.join(columns)}."
    return [Fault(message, "model.layers.0", suggestion=f"Write from: {columns[0]}.")]


def _find_unknown_sources(layers: Sequence[GraphLayer], columns: Sequence[str]) -> list[Fault]:
    known = [*(layer.name for layer in layers), *columns]
    return [
        Fault(
            f"'{name}' is neither a layer nor an input.",
            f"model.layers.{layer.index}.from",
            suggestion=parts.did_you_mean(name, known),
        )
        for layer in layers
        for name in layer.sources or ()
        if name not in known
    ]


def _find_unread_inputs(layers: Sequence[GraphLayer], columns: Sequence[str]) -> list[Fault]:
    read = {name for layer in layers for name in graph.get_sources(layer, layers) or columns}
    return [
        Fault(f"no layer reads the input '{name}'.", "model.layers", suggestion=_READ_OR_DROP)
        for name in columns
        if name not in read
    ]


def _strip_probabilities(layer: GraphLayer, layers: Sequence[GraphLayer]) -> GraphLayer:
    """Remove softmax or sigmoid from an output layer of a target with classes, so that it computes logits."""
    # The objective computes losses from logits: Keras clips probabilities, and has no gradient where it does.
    has_probabilities = layer.kind in _PROBABILITIES or _kind_of(layer.options.get("activation")) in _PROBABILITIES
    if not has_probabilities:
        return layer
    readers = [other.name for other in layers if layer.name in graph.get_sources(other, layers)]
    readers += [other.name for other in layers if other.shared_layer == layer.name]
    if readers:
        raise BmcliError(
            f"'{layer.name}' feeds probabilities to '{readers[0]}' and to an output, which needs logits.",
            path=f"model.layers.{layer.index}",
            suggestion=f"Remove its activation, and put {{kind: softmax}} before '{readers[0]}'.",
        )
    if layer.kind in (*_PROBABILITIES, "activation"):
        return GraphLayer(layer.index, layer.name, "identity", {}, layer.sources)
    options = {name: value for name, value in layer.options.items() if name != "activation"}
    return GraphLayer(layer.index, layer.name, layer.kind, options, layer.sources)


def _kind_of(activation: Any) -> Any:
    return activation.get("kind") if isinstance(activation, Mapping) else activation


def _attach_mask(feature: Feature) -> Any:
    from bmcli.layers.masked import Masked

    return feature.tensor if feature.mask is None else Masked()([feature.tensor, feature.mask])


def _call_layers(layers: Sequence[GraphLayer], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Call all layers; returns the tensors of layers and columns by name."""
    # All layers are made before any is called, because one may share the weights of a layer that is listed later.
    keras_layers = {layer.name: _make_layer(layer) for layer in layers if layer.kind != SHARED}
    kinds = {layer.name: layer.kind for layer in layers}
    values = dict(columns)
    for layer in graph.sort_layers(layers):
        arguments = [values[name] for name in graph.get_sources(layer, layers) or columns]
        original = layer.shared_layer or layer.name
        values[layer.name] = _call_layer(layer, kinds[original], keras_layers[original], arguments)
    return values


def _make_layer(layer: GraphLayer) -> Any:
    from bmcli.layers.keras_objects import make_keras_object

    try:
        return make_keras_object("layers", KerasObject(layer.kind, layer.options), name=layer.name)
    except Exception as error:  # whatever Keras raises, the cause is an option of the recipe
        raise BmcliError(
            f"Keras refuses the options of {_describe_layer(layer)}: {_first_line(error)}",
            path=f"model.layers.{layer.index}",
        ) from error


def _call_layer(layer: GraphLayer, kind: str, keras_layer: Any, arguments: list[Any]) -> Any:
    arity = catalogue.get_entry("layers", kind)["inputs"]
    if arity != "one" and len(arguments) == 1:
        arguments = arguments * 2  # self-attention: query and value are the same sequence
    try:
        return keras_layer(arguments) if arity == "list" else keras_layer(*arguments)
    except Exception as error:  # whatever Keras raises, the cause is a shape or an option of the recipe
        shapes = " and ".join(_format_shape(argument) for argument in arguments)
        raise BmcliError(
            f"{_describe_layer(layer)} does not accept {shapes}: {_first_line(error)}",
            path=f"model.layers.{layer.index}",
        ) from error


def _finish_output(value: Any, width: int, *, layer: GraphLayer, target: str, spec: DataSpec) -> Any:
    """Convert the tensor of an output layer to the network's output, `(batch, width)` in float32."""
    import keras

    has_softmax = spec.output(target).activation == "softmax"
    path = f"model.layers.{layer.index}"
    if len(value.shape) != 2:
        raise BmcliError(
            f"{_describe_layer(layer)} outputs {_format_shape(value)} per example, but '{target}' needs {width} "
            "numbers.",
            path=path,
            suggestion="Put flatten or a global pooling before the last layer.",
        )
    received = value.shape[1]
    if received != width and not (has_softmax and width == 2 and received == 1):
        alternative = " (or 1)" if has_softmax and width == 2 else ""
        raise BmcliError(
            f"{_describe_layer(layer)} outputs {received} numbers, but '{target}' needs {width}{alternative}.",
            path=path,
            suggestion=f"Write units: {width}." if "units" in layer.options else "",
        )
    output = keras.layers.Activation("linear", dtype="float32")(value)
    # One logit z of two classes becomes [0, z], whose softmax is the sigmoid of z.
    return output if received == width else keras.ops.pad(output, [[0, 0], [1, 0]])


def _describe_layer(layer: GraphLayer) -> str:
    return f"{layer.kind} '{layer.name}'"


def _format_shape(tensor: Any) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in tensor.shape[1:]) + ")"


def _first_line(error: Exception) -> str:
    """Extract the first informative line of Keras' message, without its terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    informative = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    reason = informative[0] if informative else type(error).__name__
    return reason if reason.endswith(".") else f"{reason}."
