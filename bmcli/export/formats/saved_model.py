"""SavedModel: a folder for TensorFlow Serving, TensorFlow and tools that build on it.

It contains all preprocessing: its inputs are text, numbers, pictures of any size, and picture files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bmcli.export import ExportableModel, InputForm, KerasOptions, Signature, WrittenModel
from bmcli.quoting import quoted
from bmcli.specs import Column

VERSION = "1"
"""Its folder; TensorFlow Serving serves the highest number."""


class Options(KerasOptions):
    """A SavedModel of raw inputs, with further signatures for encoded inputs and for image files."""

    kind: Literal["saved_model"] = "saved_model"
    warm_up: bool = Field(default=True, description="Add warm-up requests that TensorFlow Serving runs at start-up.")


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `1/saved_model.pb` and its other files."""
    from bmcli import inputs as input_kinds  # not at the top: recipes read the options alone
    from bmcli.export import graph

    columns = exportable.spec.inputs
    outputs = graph.make_outputs(exportable, with_text=True)
    default = Signature(
        graph.SERVING, graph.make_inputs(exportable.spec, _make_forms(columns, "raw"), any_size=True), outputs
    )
    signatures = [
        default,
        Signature("features", graph.make_inputs(exportable.spec, _make_forms(columns, "encoded")), outputs),
    ]
    accepting = [column.name for column in columns if input_kinds.get_traits(column).accepts_files]
    if accepting:
        forms: dict[str, InputForm] = {
            column.name: "encoded_image" if column.name in accepting else "raw" for column in columns
        }
        signatures.append(Signature("encoded_images", graph.make_inputs(exportable.spec, forms), outputs))
    writing = graph.make_writing(exportable, with_text=True)
    graph.save_module(graph.ServingModule(exportable), signatures, folder / VERSION, writing)
    if options.warm_up:
        graph.write_warm_up_requests(exportable, default, folder / VERSION)
    modules = {module for column in columns for module in input_kinds.get_traits(column).modules}
    return WrittenModel(
        VERSION,
        "tensorflow",
        tuple(signatures),
        tuple(_list_notes(exportable)),
        tuple(sorted(modules)),
        None if writing is None else writing.described,
    )


def _make_forms(columns: tuple[Column, ...], form: InputForm) -> dict[str, InputForm]:
    return {column.name: form for column in columns}


def _list_notes(exportable: ExportableModel) -> list[str]:
    from bmcli import inputs as input_kinds  # not at the top: recipes read the options alone

    formats = {column.name: input_kinds.get_traits(column).file_formats for column in exportable.spec.inputs}
    needing = {column.name: input_kinds.get_traits(column).modules for column in exportable.spec.inputs}
    return [
        *(f"{quoted(name)} takes the bytes of {names} files." for name, names in formats.items() if names),
        *(
            f"{quoted(name)} is split by operations of {module}, which must be imported before the model is loaded."
            for name, modules in needing.items()
            for module in modules
        ),
    ]
