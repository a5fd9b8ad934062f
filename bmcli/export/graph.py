"""A trained network as a TensorFlow function of raw cells, encoded ones, or some of each.

Imports TensorFlow, and is imported once a format is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli import inputs as input_kinds
from bmcli.export import ExportableModel, InputForm, Signature, SignatureInput, SignatureOutput
from bmcli.layers.picture_decoder import PictureDecoder
from bmcli.objectives import find_median_index
from bmcli.specs import Column, DataSpec

SERVING = "serving_default"


def make_inputs(spec: DataSpec, forms: Mapping[str, InputForm], any_size: bool = False) -> tuple[SignatureInput, ...]:
    """The tensors of a function, in the order of the columns.

    Args:
        forms: What is taken of each column.
        any_size: Let raw pictures have any height and width.
    """
    names = input_kinds.make_tensor_names(spec.inputs)
    return tuple(_make_input(names[column.name], column, forms[column.name], any_size) for column in spec.inputs)


def _make_input(name: str, column: Column, form: InputForm, any_size: bool) -> SignatureInput:
    if form == "encoded_image":
        return SignatureInput(name, column.name, form, (), "string")
    if form == "encoded":
        return SignatureInput(name, column.name, form, column.shape, column.dtype)
    shape = column.raw_shape
    if any_size and column.kind == "image" and shape:
        shape = (None, None, *shape[2:])
    return SignatureInput(name, column.name, form, shape, column.raw_dtype)


def make_outputs(exportable: ExportableModel, with_text: bool) -> tuple[SignatureOutput, ...]:
    """The tensors that a function gives, in the order of the targets.

    Args:
        with_text: Also the names of the classes, and which one is decided for.
    """
    names = input_kinds.make_tensor_names(exportable.spec.targets)
    found: list[SignatureOutput] = []
    for target in exportable.spec.targets:
        name, count = names[target.name], len(target.classes)
        quantiles = exportable.quantiles.get(target.name, ())
        if quantiles:
            found += [
                SignatureOutput(name, target.name, "number", (), "float32"),
                SignatureOutput(f"{name}_quantiles", target.name, "quantiles", (len(quantiles),), "float32"),
            ]
        elif not count:
            found.append(SignatureOutput(name, target.name, "number", (), "float32"))
        else:
            if with_text:
                found.append(SignatureOutput(name, target.name, "decision", (), "string"))
                found.append(SignatureOutput(f"{name}_classes", target.name, "classes", (count,), "string"))
            found.append(SignatureOutput(f"{name}_probabilities", target.name, "probabilities", (count,), "float32"))
    taken = [output.name for output in found]
    if len(set(taken)) == len(taken):
        return tuple(found)
    # A target may be called as an output of another.
    return tuple(
        SignatureOutput(f"{o.name}_{place}", o.target, o.role, o.shape, o.dtype) for place, o in enumerate(found)
    )


class ServingModule(tf.Module):
    """The preprocessing and the network of a subject, of which functions are made."""

    def __init__(self, exportable: ExportableModel) -> None:
        super().__init__()
        self._subject = exportable
        self.encoders: dict[tuple[str, ...], list[input_kinds.Encoder]] = {}
        self.weights = [variable.value for variable in exportable.network.model.variables]

    def tables(self, signatures: Iterable[Signature]) -> list[Any]:
        """The vocabularies that some functions look up in; a format may hold none that are not used."""
        layers = [each.layer for signature in signatures for each in self._encoders(signature)]
        return [layer.table for layer in dict.fromkeys(layers) if hasattr(layer, "table")]

    def _encoders(self, signature: Signature) -> list[input_kinds.Encoder]:
        """The layers of the columns that a function takes raw, made once."""
        raw = tuple(each.column for each in signature.inputs if each.form == "raw")
        if raw not in self.encoders:
            names = set(raw)
            self.encoders[raw] = input_kinds.build_encoders([c for c in self._subject.spec.inputs if c.name in names])
        return self.encoders[raw]

    def function(self, signature: Signature) -> Any:
        """A concrete function from tensors by name to tensors by name; without dropout and augmentation."""
        subject = self._subject

        def serve(tensors: Mapping[str, Any]) -> dict[str, Any]:
            encoded = self._encode(signature, tensors)
            # Without dropout and the like, whatever Keras last heard of training.
            given = subject.network.model(encoded, training=False)
            predicted = subject.network.predict(given)
            return {each.name: _compute_output(subject, each, predicted[each.target]) for each in signature.outputs}

        specs = {each.name: _make_tensor_spec(each) for each in signature.inputs}
        return tf.function(serve, input_signature=[specs], autograph=False)

    def _encode(self, signature: Signature, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Encoded tensors by column."""
        given = {each.column: tensors[each.name] for each in signature.inputs}
        for each in signature.inputs:
            if each.form == "encoded_image":
                column = self._subject.column(each.column)
                decoder = PictureDecoder(column.shape[:2], column.shape[2], column.state.get("fit", "stretch"))
                given[each.column] = decoder(given[each.column])
        for encoder in self._encoders(signature):
            given |= encoder(given)
        return given


def _make_tensor_spec(signature_input: SignatureInput) -> tf.TensorSpec:
    return tf.TensorSpec((None, *signature_input.shape), signature_input.dtype, name=signature_input.name)


def _compute_output(exportable: ExportableModel, output: SignatureOutput, predicted: Any) -> Any:
    """One output from what the network predicts of its target."""
    target = exportable.spec.target(output.target)
    quantiles = exportable.quantiles.get(output.target, ())
    if output.role == "number":
        number = predicted[:, find_median_index(quantiles)] if quantiles else predicted
        return tf.identity(tf.cast(number, "float32"))
    if output.role in ("quantiles", "probabilities"):
        return tf.identity(tf.cast(predicted, "float32"))
    names = tf.constant(target.classes)
    if output.role == "classes":
        return tf.tile(names[tf.newaxis], [tf.shape(predicted)[0], 1])
    return _decide(target, predicted, names)


def _decide(target: Column, probabilities: Any, names: Any) -> Any:
    """What a target's `point` decides for, by name, `(batch,)`."""
    if target.kind == "labels":
        every = tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1])
        chosen = tf.ragged.boolean_mask(every, probabilities > 0.5)
        return tf.strings.reduce_join(chosen, axis=1, separator=target.state["separator"])
    if target.kind == "ordered":
        above = 1 - tf.cumsum(tf.cast(probabilities[:, :-1], "float64"), axis=1)
        return tf.gather(names, tf.reduce_sum(tf.cast(above > 0.5, "int32"), axis=1))
    if "threshold" in target.state:
        return tf.gather(names, tf.cast(probabilities[:, 1] >= target.state["threshold"], "int32"))
    return tf.gather(names, tf.argmax(probabilities, axis=1))


def save_module(served: ServingModule, signatures: Sequence[Signature], folder: Path) -> None:
    """Writes a SavedModel with these signatures, and nothing of Keras in it."""
    functions = {each.name: served.function(each) for each in signatures}
    # What the functions close over has to be found from the module that is saved.
    module = tf.Module()
    module.weights, module.tables = served.weights, served.tables(signatures)
    module.functions = list(functions.values())
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    tf.saved_model.save(module, str(folder), signatures=concrete)


def write_warm_up_requests(
    exportable: ExportableModel, signature: Signature, folder: Path, sizes: Sequence[int] = (1, 8, 32)
) -> None:
    """Writes requests that TensorFlow Serving runs before it answers its first one.

    Messages PredictionLog of tensorflow_serving/apis, spelled out by their field numbers, since only that
    server's package has them as Python.
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
    for given in signature.inputs:
        tensor = tf.make_tensor_proto(exportable.examples.raw[given.column][rows], dtype=tf.as_dtype(given.dtype))
        request += _encode_field(
            2, _encode_field(1, given.name.encode()) + _encode_field(2, tensor.SerializeToString())
        )
    return _encode_field(6, _encode_field(1, request))  # PredictionLog.predict_log.request


def _encode_field(number: int, content: bytes) -> bytes:
    """A field of bytes or of a message, as protocol buffers write it."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    written = b""
    while number >= 128:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])
