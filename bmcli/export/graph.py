"""Trained networks as TensorFlow functions of raw cells, encoded values, or a mix of both.

It imports TensorFlow, so it is imported only when a format is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli import inputs as input_kinds
from bmcli.export import (
    CacheTensor,
    ExportableModel,
    InputForm,
    Signature,
    SignatureInput,
    SignatureOutput,
    WritingFunctions,
)
from bmcli.export.runner import GENERATE, STEP
from bmcli.generation import find_writing
from bmcli.generation.served import ServedStep, ServedWriter
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.specs import Column, DataSpec

SERVING = "serving_default"


def make_inputs(spec: DataSpec, forms: Mapping[str, InputForm], any_size: bool = False) -> tuple[SignatureInput, ...]:
    """Make the input tensors of a function, in the order of the columns.

    Args:
        forms: The form of each column.
        any_size: Whether raw cells can have any size that their preprocessing adapts, such as that of a picture.
    """
    names = input_kinds.make_tensor_names(spec.inputs)
    return tuple(_make_input(names[column.name], column, forms[column.name], any_size) for column in spec.inputs)


def _make_input(name: str, column: Column, form: InputForm, any_size: bool) -> SignatureInput:
    if form == "encoded_image":
        return SignatureInput(name, column.name, form, (), "string")
    if form == "encoded":
        return SignatureInput(name, column.name, form, column.shape, column.dtype)
    shape = input_kinds.get_traits(column).open_shape if any_size else column.raw_shape
    return SignatureInput(name, column.name, form, shape, column.raw_dtype)


def make_outputs(exportable: ExportableModel, with_text: bool) -> tuple[SignatureOutput, ...]:
    """Make the output tensors of a function, in the order of the targets.

    Args:
        with_text: Whether to add the tensors of texts, such as the names of classes.
    """
    names = input_kinds.make_tensor_names(exportable.spec.learned)
    outputs = [
        SignatureOutput(names[output] + served.suffix, output, served.role, served.shape, served.dtype)
        for output, answers in exportable.answers.items()
        for served in answers.list_served()
        if with_text or served.dtype != "string"
    ]
    output_names = [output.name for output in outputs]
    if len(set(output_names)) == len(output_names):
        return tuple(outputs)
    # A target can have the name of another target's output, such as `x_probabilities`.
    return tuple(
        SignatureOutput(f"{output.name}_{index}", output.target, output.role, output.shape, output.dtype)
        for index, output in enumerate(outputs)
    )


class ServingModule(tf.Module):
    """Preprocessing and network of an exportable model, from which functions are made."""

    def __init__(self, exportable: ExportableModel) -> None:
        super().__init__()
        self._exportable = exportable
        self.encoders: dict[tuple[str, ...], list[input_kinds.Encoder]] = {}
        self.weights = [variable.value for variable in exportable.network.model.variables]

    def list_encoders(self, signatures: Iterable[Signature]) -> list[Any]:
        """List the layers that encode the cells of some functions."""
        layers = (each.layer for signature in signatures for each in self._get_encoders(signature))
        return list(dict.fromkeys(layers))

    def _get_encoders(self, signature: Signature) -> list[input_kinds.Encoder]:
        """Get the encoding layers of the columns that a function takes raw; they are built once."""
        raw = tuple(each.column for each in signature.inputs if each.form == "raw")
        if raw not in self.encoders:
            names = set(raw)
            self.encoders[raw] = input_kinds.build_encoders(
                [column for column in self._exportable.spec.inputs if column.name in names]
            )
        return self.encoders[raw]

    def make_function(self, signature: Signature) -> Any:
        """Make a function from tensors by name to tensors by name, in inference mode."""
        exportable = self._exportable

        def serve(tensors: Mapping[str, Any]) -> dict[str, Any]:
            encoded = self._encode(signature, tensors)
            outputs = exportable.network.run_prediction(encoded)
            predicted = exportable.network.predict(outputs, encoded)
            objectives = exportable.network.objectives
            return {
                each.name: objectives[each.target].serve(predicted[each.target], each.role)
                for each in signature.outputs
            }

        specs = {each.name: _make_tensor_spec(each) for each in signature.inputs}
        return tf.function(serve, input_signature=[specs], autograph=False)

    def _encode(self, signature: Signature, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Encode the tensors of a function, by column."""
        tensors_by_column = {each.column: tensors[each.name] for each in signature.inputs}
        for each in signature.inputs:
            if each.form == "encoded_image":
                traits = input_kinds.get_traits(self._exportable.get_column(each.column))
                tensors_by_column[each.column] = traits.build_file_encoder()(tensors_by_column[each.column])
        for encoder in self._get_encoders(signature):
            tensors_by_column |= encoder(tensors_by_column)
        return tensors_by_column


def list_resources(layers: Iterable[Any]) -> list[Any]:
    """List the lookup tables of layers, and the models by which they split texts.

    A SavedModel must not have any that are not used.
    """
    kept = (tf.saved_model.experimental.TrackableResource, tf.Module)
    return [value for layer in layers for value in vars(layer).values() if isinstance(value, kept)]


@dataclass(frozen=True)
class WritingModule:
    """Functions that write texts.

    Args:
        functions: By name.
        encoders: Layers that they use.
    """

    described: WritingFunctions
    functions: Mapping[str, Any]
    encoders: tuple[Any, ...]


def make_writing(exportable: ExportableModel, with_text: bool) -> WritingModule | None:
    """Make the functions of a network that reads nothing but the text that it continues; None for another one.

    Args:
        with_text: Whether the format holds texts.
    """
    found = find_writing(exportable.spec)
    if found is None or len(exportable.spec.inputs) > 1:
        return None
    output, writing = found
    network = IncrementalNetwork(exportable.network.model, writing.input, output)
    window, is_cached = exportable.get_column(writing.input).shape[0], network.agrees()
    functions, encoders, caches = {}, [], None
    if with_text:
        writer = ServedWriter(network, writing.tokenizer, window, is_cached)
        functions[GENERATE] = writer.make_function()
        encoders.append(writer.encoder)
    if is_cached:
        step = ServedStep(network, window)
        caches = tuple(
            CacheTensor(f"cache_{number}", tuple(each.shape[1:]), each.dtype.name)
            for number, each in enumerate(step.caches)
        )
        functions[STEP] = step.make_function([each.name for each in caches])
    return WritingModule(WritingFunctions(output, with_text, caches), functions, tuple(encoders))


def _make_tensor_spec(signature_input: SignatureInput) -> tf.TensorSpec:
    return tf.TensorSpec((None, *signature_input.shape), signature_input.dtype, name=signature_input.name)


def save_module(
    served: ServingModule, signatures: Sequence[Signature], folder: Path, writing: WritingModule | None = None
) -> None:
    """Write a SavedModel with these signatures and functions, without Keras objects."""
    functions = {each.name: served.make_function(each) for each in signatures}
    if writing is not None:
        functions |= writing.functions
    # Saving requires that variables and tables of the functions are attributes of the saved module.
    module = tf.Module()
    module.weights = served.weights
    encoders = () if writing is None else writing.encoders
    module.tables = list_resources([*served.list_encoders(signatures), *encoders])
    module.functions = list(functions.values())
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    tf.saved_model.save(module, str(folder), signatures=concrete)


def write_warm_up_requests(
    exportable: ExportableModel, signature: Signature, folder: Path, sizes: Sequence[int] = (1, 8, 32)
) -> None:
    """Write warm-up requests, which TensorFlow Serving runs before it serves the first request.

    They are PredictionLog messages of tensorflow_serving/apis, encoded by field number, since the Python classes exist
    only in the package of that server.
    """
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in sizes:
            rows = np.resize(np.arange(len(exportable.examples)), size)
            writer.write(_encode_request(exportable, signature, rows))


def _encode_request(exportable: ExportableModel, signature: Signature, rows: np.ndarray) -> bytes:
    spec = _encode_field(1, exportable.serving_name.encode()) + _encode_field(3, signature.name.encode())
    request = _encode_field(1, spec)
    for signature_input in signature.inputs:
        tensor = tf.make_tensor_proto(
            exportable.examples.raw[signature_input.column][rows], dtype=tf.as_dtype(signature_input.dtype)
        )
        request += _encode_field(
            2, _encode_field(1, signature_input.name.encode()) + _encode_field(2, tensor.SerializeToString())
        )
    return _encode_field(6, _encode_field(1, request))  # PredictionLog.predict_log.request


def _encode_field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field of a protocol buffer."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    encoded = b""
    while number >= 128:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])
