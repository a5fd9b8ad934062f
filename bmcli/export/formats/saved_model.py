"""SavedModel: a folder that TensorFlow Serving, TensorFlow and tools built on it load.

All preprocessing is inside: it takes text, numbers, pictures of any size, and files of pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bmcli.export import Form, KerasOptions, Signature, Subject, Written
from bmcli.quoting import quoted
from bmcli.specs import Column

VERSION = "1"
"""Its folder: TensorFlow Serving serves the highest number."""


class Options(KerasOptions):
    """A SavedModel of raw inputs, with further signatures for encoded inputs and for image files."""

    kind: Literal["saved_model"] = "saved_model"
    warm_up: bool = Field(default=True, description="Add warm-up requests that TensorFlow Serving runs at start-up.")


def export(subject: Subject, options: Options, folder: Path) -> Written:
    """Writes `1/saved_model.pb` and what belongs to it."""
    from bmcli.export import graph

    columns = subject.spec.inputs
    outputs = graph.outputs(subject, with_text=True)
    usual = Signature(graph.SERVING, graph.inputs(subject.spec, _all(columns, "raw"), any_size=True), outputs)
    signatures = [usual, Signature("features", graph.inputs(subject.spec, _all(columns, "encoded")), outputs)]
    if any(_can_be_files(column) for column in columns):
        forms: dict[str, Form] = {
            column.name: "encoded_image" if _can_be_files(column) else "raw" for column in columns
        }
        signatures.append(Signature("encoded_images", graph.inputs(subject.spec, forms), outputs))
    graph.save(graph.Served(subject), signatures, folder / VERSION)
    if options.warm_up:
        graph.warm_up(subject, usual, folder / VERSION)
    return Written(VERSION, "tensorflow", tuple(signatures), tuple(_notes(subject)))


def _all(columns: tuple[Column, ...], form: Form) -> dict[str, Form]:
    return {column.name: form for column in columns}


def _can_be_files(column: Column) -> bool:
    """Whether files of pictures have the same pixels as the arrays that the network learned from."""
    return column.kind == "image" and column.raw_dtype == "uint8" and column.shape[2] in (1, 3)


def _notes(subject: Subject) -> list[str]:
    files = [column.name for column in subject.spec.inputs if column.raw_dtype == "string" and column.kind == "image"]
    return [f"{quoted(name)} takes the bytes of JPEG, PNG, BMP or GIF files." for name in files]
