"""LiteRT, formerly TensorFlow Lite: one small file for phones and embedded devices.

It has no text, and integers have no missing values, so the preprocessing of such columns stays outside.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import inputs as input_kinds
from bmcli.errors import BmcliError
from bmcli.export import ExportableModel, FormatOptions, InputForm, Signature, WrittenModel, choose_form
from bmcli.inputs import Preprocessing
from bmcli.quoting import quoted

if TYPE_CHECKING:
    import numpy as np

MODEL = "model.tflite"
Quantize = Literal["float16", "dynamic", "int8", "full_int8"]
_INT8_CHOICES = ("int8", "full_int8")


class Options(FormatOptions):
    """A LiteRT (TensorFlow Lite) model, optionally quantised."""

    kind: Literal["litert"] = "litert"
    quantize: Quantize | None = Field(
        default=None,
        description="float16: weights of 2 bytes; dynamic: weights of 1 byte, and activations quantised at run time "
        "where that is faster; int8: weights and activations of 1 byte, calibrated on training rows, except in "
        "convolutions over fewer than 8 channels and at the end of the network, where integers are slower or too "
        "coarse; full_int8: these as well, for integer-only devices. By default float32.",
    )

    @property
    def quantized(self) -> str | None:
        return self.quantize


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `model.tflite`."""
    from bmcli.export import graph, recurrent
    from bmcli.export.conversion import run_converter  # not at the top: recipes read the options alone

    _check_integers(exportable, options)
    original = exportable
    network = replace(exportable.network, model=recurrent.replace_recurrent_layers(exportable.network.model))
    exportable = replace(exportable, network=network)
    # Integers take encoded numbers: raw ones would be quantised before their scaling.
    is_integer = options.quantize in _INT8_CHOICES
    supported: tuple[Preprocessing, ...] = ("picture",) if is_integer else ("picture", "arithmetic")
    forms: dict[str, InputForm] = {column.name: choose_form(column, supported) for column in exportable.spec.inputs}
    signature = Signature(
        graph.SERVING, graph.make_inputs(exportable.spec, forms), graph.make_outputs(exportable, with_text=False)
    )
    # Integers are calibrated by the function that predicts, so that they have no other.
    writing = None if is_integer else graph.make_writing(original, with_text=False)
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        graph.save_module(graph.ServingModule(exportable), [signature], Path(scratch), writing)
        converter = _make_converter(
            Path(scratch), options, [signature.name, *(() if writing is None else writing.functions)]
        )
        if options.quantize in _INT8_CHOICES:
            converter.representative_dataset = lambda: _iterate_examples(exportable, signature)
        with run_converter(options.name, folder):
            content = _convert(converter, options)
    (folder / MODEL).write_bytes(content)
    described = None if writing is None else writing.described
    return WrittenModel(MODEL, "litert", (signature,), tuple(_list_notes(options)), writing=described)


def _list_notes(options: Options) -> Iterator[str]:
    if options.quantize == "int8":
        yield (
            "Convolutions over fewer than 8 channels and the end of the network compute in float32, the rest in int8."
        )
    if options.quantize in _INT8_CHOICES:
        yield (
            "int8 is faster than float32 on processors with int8 dot products (VNNI, or SDOT on ARM). On others only "
            "dense layers are faster."
        )


def _check_integers(exportable: ExportableModel, options: Options) -> None:
    """Reject integers for networks whose inputs have NaN for missing values."""
    for column in exportable.spec.inputs:
        if options.quantize in _INT8_CHOICES and input_kinds.get_traits(column).passes_missing:
            raise BmcliError(
                f"litert: {options.quantize} cannot represent missing values, which the network uses in "
                f"{quoted(column.name)}.",
                suggestion="Use quantize: dynamic.",
            )


def _make_converter(saved: Path, options: Options, names: Sequence[str]) -> Any:
    from bmcli.layers import tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=list(names))
    if options.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if options.quantize in _INT8_CHOICES:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _iterate_examples(exportable: ExportableModel, signature: Signature) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield training rows as inputs of the signature, one at a time."""
    rows = exportable.examples
    for row in range(len(rows)):
        yield (
            signature.name,
            {
                each.name: (rows.encoded if each.form == "encoded" else rows.raw)[each.column][row : row + 1]
                for each in signature.inputs
            },
        )


def _convert(converter: Any, options: Options) -> bytes:
    from bmcli.export import integers

    if options.quantize in _INT8_CHOICES:
        return integers.quantize(converter, full_integer=options.quantize == "full_int8")
    content: bytes = converter.convert()
    return content
