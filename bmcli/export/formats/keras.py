"""A `.keras` file with preprocessing, for use in Keras where bmcli is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bmcli.export import ExportableModel, KerasOptions, Signature, SignatureInput, SignatureOutput, WrittenModel
from bmcli.inputs import make_tensor_names
from bmcli.specs import Column, DataSpec

MODEL = "model.keras"


class Options(KerasOptions):
    """A Keras model of raw inputs; loading it requires bmcli's layers."""

    kind: Literal["keras"] = "keras"


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `model.keras`."""
    from bmcli.networks.network import save_network

    save_network(exportable.network, exportable.spec, folder / MODEL)
    return describe_model(exportable.spec, exportable.quantiles)


def describe_model(spec: DataSpec, quantiles: Mapping[str, Sequence[float]]) -> WrittenModel:
    """Describe the inputs and outputs of a run's model."""
    names = make_tensor_names(spec.inputs)
    inputs = tuple(
        SignatureInput(names[column.name], column.name, "raw", column.raw_shape, column.raw_dtype)
        for column in spec.inputs
    )
    outputs = tuple(_make_output(target, len(quantiles.get(target.name, ()))) for target in spec.targets)
    note = "The model has layers of bmcli: run `from bmcli import layers; layers.register()` before loading it."
    return WrittenModel(MODEL, "keras", (Signature("serving_default", inputs, outputs),), (note,))


def _make_output(target: Column, quantiles: int) -> SignatureOutput:
    """Make the output of a target, which in a Keras model is one tensor with its name."""
    if quantiles:
        return SignatureOutput(target.name, target.name, "quantiles", (quantiles,), "float32")
    if target.classes:
        return SignatureOutput(target.name, target.name, "probabilities", (len(target.classes),), "float32")
    return SignatureOutput(target.name, target.name, "number", (), "float32")
