"""SavedModel: a folder that TensorFlow Serving, TensorFlow and tools built on it load.

All preprocessing is inside: it takes text, numbers, pictures of any size, and files of pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bmcli.export import ExportableModel, InputForm, KerasOptions, Signature, WrittenModel
from bmcli.quoting import quoted
from bmcli.specs import Column

VERSION = "1"
"""Its folder: TensorFlow Serving serves the highest number."""


class Options(KerasOptions):
    """A SavedModel of raw inputs, with further signatures for encoded inputs and for image files."""

    kind: Literal["saved_model"] = "saved_model"
    warm_up: bool = Field(default=True, description="Add warm-up requests that TensorFlow Serving runs at start-up.")


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Writes `1/saved_model.pb` and what belongs to it."""
    from bmcli.export import graph

    columns = exportable.spec.inputs
    outputs = graph.make_outputs(exportable, with_text=True)
    usual = Signature(
        graph.SERVING, graph.make_inputs(exportable.spec, _make_forms(columns, "raw"), any_size=True), outputs
    )
    signatures = [
        usual,
        Signature("features", graph.make_inputs(exportable.spec, _make_forms(columns, "encoded")), outputs),
    ]
    if any(_accepts_files(column) for column in columns):
        forms: dict[str, InputForm] = {
            column.name: "encoded_image" if _accepts_files(column) else "raw" for column in columns
        }
        signatures.append(Signature("encoded_images", graph.make_inputs(exportable.spec, forms), outputs))
    graph.save_module(graph.ServingModule(exportable), signatures, folder / VERSION)
    if options.warm_up:
        graph.write_warm_up_requests(exportable, usual, folder / VERSION)
    return WrittenModel(VERSION, "tensorflow", tuple(signatures), tuple(_list_notes(exportable)))


def _make_forms(columns: tuple[Column, ...], form: InputForm) -> dict[str, InputForm]:
    return {column.name: form for column in columns}


def _accepts_files(column: Column) -> bool:
    """Whether files of pictures have the same pixels as the arrays that the network learned from."""
    return column.kind == "image" and column.raw_dtype == "uint8" and column.shape[2] in (1, 3)


def _list_notes(exportable: ExportableModel) -> list[str]:
    files = [
        column.name for column in exportable.spec.inputs if column.raw_dtype == "string" and column.kind == "image"
    ]
    return [f"{quoted(name)} takes the bytes of JPEG, PNG, BMP or GIF files." for name in files]
