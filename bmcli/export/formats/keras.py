"""A `.keras` file with its preprocessing, for those who go on in Keras with bmcli beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bmcli.export import Input, KerasOptions, Output, Signature, Subject, Written
from bmcli.inputs import tensor_names
from bmcli.specs import Column, DataSpec

MODEL = "model.keras"


class Options(KerasOptions):
    """A Keras model of raw inputs; loading it requires bmcli's layers."""

    kind: Literal["keras"] = "keras"


def export(subject: Subject, options: Options, folder: Path) -> Written:
    """Writes `model.keras`."""
    from bmcli.networks import network as networks

    networks.save(subject.network, subject.spec, folder / MODEL)
    return described(subject.spec, subject.quantiles)


def described(spec: DataSpec, quantiles: Mapping[str, Sequence[float]]) -> Written:
    """What a run's model takes and gives."""
    names = tensor_names(spec.inputs)
    inputs = tuple(Input(names[c.name], c.name, "raw", c.raw_shape, c.raw_dtype) for c in spec.inputs)
    outputs = tuple(_output(target, len(quantiles.get(target.name, ()))) for target in spec.targets)
    note = "It holds layers of bmcli: run `from bmcli import layers; layers.register()` before it is loaded."
    return Written(MODEL, "keras", (Signature("serving_default", inputs, outputs),), (note,))


def _output(target: Column, quantiles: int) -> Output:
    """A Keras model gives what is predicted of a target as one tensor, which is called like it."""
    if quantiles:
        return Output(target.name, target.name, "quantiles", (quantiles,), "float32")
    if target.classes:
        return Output(target.name, target.name, "probabilities", (len(target.classes),), "float32")
    return Output(target.name, target.name, "number", (), "float32")
