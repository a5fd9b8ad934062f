"""ONNX: one file for ONNX Runtime and the many tools that read it.

It contains the lookup of categories that are integers, or that are compared as they are; the preprocessing of other
categories, texts and dates and the decoding of pictures stay outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bmcli import inputs as input_kinds
from bmcli import private_api
from bmcli.errors import RunFailed
from bmcli.export import (
    ExportableModel,
    InputForm,
    KerasOptions,
    Signature,
    SignatureInput,
    WrittenModel,
    choose_form,
)
from bmcli.raw_columns import MISSING_INTEGER
from bmcli.specs import Column

if TYPE_CHECKING:
    from onnx import NodeProto

MODEL = "model.onnx"
_OPSET, _ML_OPSET = 18, 2


class Options(KerasOptions):
    """An ONNX model."""

    EXTRA: ClassVar[tuple[str, ...]] = ("onnx", "tf2onnx", "onnxruntime")

    kind: Literal["onnx"] = "onnx"


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `model.onnx`."""
    import onnx

    from bmcli.export import graph
    from bmcli.export.conversion import run_converter  # not at the top: recipes read the options alone

    columns = exportable.spec.inputs
    # A lookup is added to the converted model, which takes the encoded cells of such a column.
    forms: dict[str, InputForm] = {
        column.name: "encoded" if _get_lookup_keys(column) else choose_form(column, ("arithmetic", "picture"))
        for column in columns
    }
    computed = Signature(
        graph.SERVING, graph.make_inputs(exportable.spec, forms), graph.make_outputs(exportable, with_text=False)
    )
    with run_converter(options.name, folder):
        model = _convert(graph.ServingModule(exportable), computed)
    _check_output_names(model, computed)
    looked_up = [each for each in computed.inputs if _get_lookup_keys(exportable.get_column(each.column))]
    for each in looked_up:
        _prepend_lookup(model, each, exportable.get_column(each.column))
    inputs = tuple(
        _make_raw_input(each, exportable.get_column(each.column)) if each in looked_up else each
        for each in computed.inputs
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / MODEL))
    return WrittenModel(MODEL, "onnx", (replace(computed, inputs=inputs),))


def _get_lookup_keys(column: Column) -> tuple[str, ...]:
    return input_kinds.get_traits(column).lookup_keys


def _make_raw_input(signature_input: SignatureInput, column: Column) -> SignatureInput:
    return replace(signature_input, form="raw", shape=column.raw_shape, dtype=column.raw_dtype)


def _convert(served: Any, signature: Signature) -> Any:
    """Convert a function by tf2onnx, with the names of the signature."""
    import logging
    import warnings

    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = served.make_function(signature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        private_api.patch_tf2onnx()
        model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    _replace_erfc(model)
    return model


def _replace_erfc(model: Any) -> None:
    """Replace the complementary error function, of which TensorFlow makes GELU, by 1 minus that which ONNX has."""
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, error = (f"{node.output[0]}__{name}" for name in ("one", "erf"))
        nodes.append(helper.make_node("Constant", [], [one], value_float=1.0))
        nodes.append(helper.make_node("Erf", list(node.input), [error]))
        nodes.append(helper.make_node("Sub", [one, error], list(node.output)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _check_output_names(model: Any, signature: Signature) -> None:
    """Check that the outputs have the names of the signature."""
    expected = [each.name for each in signature.outputs]
    names = [output.name for output in model.graph.output]
    unknown = set(names) - set(expected)
    if unknown:
        raise RunFailed(f"onnx cannot represent this network: unexpected outputs {sorted(unknown)}.")


def _prepend_lookup(model: Any, signature_input: SignatureInput, column: Column) -> None:
    """Insert the vocabulary lookup of a category in front of the tensor of its indices."""
    from onnx import TensorProto, helper

    graph, (name,) = model.graph, [each.name for each in model.graph.input if each.name == signature_input.name]
    positions = f"{name}__positions"
    for node in graph.node:
        for index, input_name in enumerate(node.input):
            if input_name == name:
                node.input[index] = positions
    kind = TensorProto.STRING if column.raw_dtype == "string" else TensorProto.INT64
    (original,) = [each for each in graph.input if each.name == name]
    graph.input.remove(original)
    graph.input.append(helper.make_tensor_value_info(name, kind, ["batch", *column.raw_shape]))
    for node in reversed(list(_make_lookup_nodes(name, positions, column))):
        graph.node.insert(0, node)
    if not any(each.domain == "ai.onnx.ml" for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))


def _make_lookup_nodes(name: str, positions: str, column: Column) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper

    words, is_text = _get_lookup_keys(column), column.raw_dtype == "string"
    keys: Any = [*words, ""] if is_text else [*map(int, words), MISSING_INTEGER]
    yield helper.make_node(
        "LabelEncoder", [name], [f"{name}__found"], domain="ai.onnx.ml", default_int64=len(words) + 1,
        values_int64s=list(range(len(keys))), **{"keys_strings" if is_text else "keys_int64s": keys},
    )  # fmt: skip
    yield helper.make_node("Cast", [f"{name}__found"], [f"{name}__cast"], to=TensorProto.INT32)
    yield helper.make_node("Constant", [], [f"{name}__shape"], value_ints=[-1])
    yield helper.make_node(
        "Reshape", [f"{name}__cast", f"{name}__shape"], [positions]
    )  # the raw input can be (batch, 1)
