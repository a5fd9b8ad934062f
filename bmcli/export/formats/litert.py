"""LiteRT, once called TensorFlow Lite: one small file for phones and embedded devices.

It holds no text, and integers hold no missing numbers, so the preprocessing of such columns is left to its user.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.errors import BmcliError, RunFailed
from bmcli.export import Form, FormatOptions, Signature, Subject, Written, is_plain_number
from bmcli.quoting import quoted
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

MODEL = "model.tflite"
Quantize = Literal["float16", "dynamic", "int8", "full_int8"]
_INTEGERS = ("int8", "full_int8")


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


def export(subject: Subject, options: Options, folder: Path) -> Written:
    """Writes `model.tflite`."""
    from bmcli.export import graph, recurrent

    _check_integers(subject, options)
    network = replace(subject.network, model=recurrent.with_loops(subject.network.model))
    subject = replace(subject, network=network)
    forms: dict[str, Form] = {
        column.name: "raw" if _holds(column, options) else "encoded" for column in subject.spec.inputs
    }
    signature = Signature(graph.SERVING, graph.inputs(subject.spec, forms), graph.outputs(subject, with_text=False))
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        graph.save(graph.Served(subject), [signature], Path(scratch))
        converter = _converter(Path(scratch), options)
        if options.quantize in _INTEGERS:
            converter.representative_dataset = lambda: _representative(subject, signature)
        (folder / MODEL).write_bytes(_converted(converter, options))
    return Written(MODEL, "litert", (signature,), tuple(_notes(options)))


def _notes(options: Options) -> Iterator[str]:
    if options.quantize == "int8":
        yield (
            "Convolutions over fewer than 8 channels and the end of the network compute in float32, others with bytes."
        )
    if options.quantize in _INTEGERS:
        yield (
            "Bytes are faster than float32 on processors with dot products of them (VNNI, or SDOT on ARM). On others "
            "dense layers are, and convolutions are not."
        )


def _holds(column: Column, options: Options) -> bool:
    """Whether the preprocessing of a column can be inside."""
    if column.kind == "image":
        return column.raw_dtype != "string"
    return is_plain_number(column) and options.quantize not in _INTEGERS


def _check_integers(subject: Subject, options: Options) -> None:
    """Refuses integers for networks that see what is missing as NaN."""
    for column in subject.spec.inputs:
        if options.quantize in _INTEGERS and (column.state.get("learned") or column.state.get("padded")):
            raise BmcliError(
                f"litert: {options.quantize} cannot tell what is missing in {quoted(column.name)}, "
                "which the network does.",
                suggestion="Take quantize: dynamic.",
            )


def _converter(saved: Path, options: Options) -> Any:
    from bmcli.layers import tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
    if options.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if options.quantize in _INTEGERS:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _representative(subject: Subject, signature: Signature) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Training rows as the signature takes them, one at a time."""
    rows = subject.examples
    for row in range(len(rows)):
        yield (
            signature.name,
            {
                each.name: (rows.encoded if each.form == "encoded" else rows.raw)[each.column][row : row + 1]
                for each in signature.inputs
            },
        )


def _converted(converter: Any, options: Options) -> bytes:
    from bmcli.console import native_noise_hidden
    from bmcli.export import integers

    try:
        with native_noise_hidden():
            if options.quantize in _INTEGERS:
                return integers.quantized(converter, wholly=options.quantize == "full_int8")
            content: bytes = converter.convert()
    except Exception as error:  # the converter raises what its C++ says
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error)).strip()[:300]
        raise RunFailed(f"litert cannot hold this network: {reason}", suggestion="Take saved_model.") from None
    return content
