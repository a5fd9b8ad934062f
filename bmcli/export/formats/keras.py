"""A `.keras` file with preprocessing, for use in Keras where bmcli is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bmcli.export import ExportableModel, KerasOptions, Signature, SignatureInput, SignatureOutput, WrittenModel
from bmcli.specs import DataSpec

MODEL = "model.keras"


class Options(KerasOptions):
    """A Keras model of raw inputs; loading it requires bmcli's layers."""

    kind: Literal["keras"] = "keras"


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `model.keras`."""
    from bmcli.networks.network import save_network

    save_network(exportable.network, exportable.spec, folder / MODEL)
    return describe_model(exportable.spec)


def describe_model(spec: DataSpec) -> WrittenModel:
    """Describe the inputs and outputs of a run's model."""
    from bmcli.inputs import make_tensor_names  # not at the top: recipes read the options alone
    from bmcli.objectives import open_answers

    names = make_tensor_names(spec.inputs)
    inputs = tuple(
        SignatureInput(names[column.name], column.name, "raw", column.raw_shape, column.raw_dtype)
        for column in spec.inputs
    )
    # In a Keras model each output is one tensor with its name.
    outputs = tuple(
        SignatureOutput(name, name, answers.served_prediction, answers.output.shape, answers.output.dtype)
        for name, answers in open_answers(spec).items()
    )
    note = "The model has layers of bmcli: run `from bmcli import layers; layers.register()` before loading it."
    return WrittenModel(MODEL, "keras", (Signature("serving_default", inputs, outputs),), (note,))
