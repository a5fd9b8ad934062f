"""A `.keras` file with its preprocessing, for those who go on in Keras with bmcli beside it."""

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
    """Writes `model.keras`."""
    from bmcli.networks import network as networks

    networks.save_network(exportable.network, exportable.spec, folder / MODEL)
    return describe_model(exportable.spec, exportable.quantiles)


def describe_model(spec: DataSpec, quantiles: Mapping[str, Sequence[float]]) -> WrittenModel:
    """What a run's model takes and gives."""
    names = make_tensor_names(spec.inputs)
    inputs = tuple(SignatureInput(names[c.name], c.name, "raw", c.raw_shape, c.raw_dtype) for c in spec.inputs)
    outputs = tuple(_make_output(target, len(quantiles.get(target.name, ()))) for target in spec.targets)
    note = "It holds layers of bmcli: run `from bmcli import layers; layers.register()` before it is loaded."
    return WrittenModel(MODEL, "keras", (Signature("serving_default", inputs, outputs),), (note,))


def _make_output(target: Column, quantiles: int) -> SignatureOutput:
    """A Keras model gives what is predicted of a target as one tensor, which is called like it."""
    if quantiles:
        return SignatureOutput(target.name, target.name, "quantiles", (quantiles,), "float32")
    if target.classes:
        return SignatureOutput(target.name, target.name, "probabilities", (len(target.classes),), "float32")
    return SignatureOutput(target.name, target.name, "number", (), "float32")
