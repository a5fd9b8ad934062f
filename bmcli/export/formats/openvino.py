"""OpenVINO: a graph and its weights for Intel's runtime.

It has no text, so the preprocessing of categories, texts and dates stays outside.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from bmcli.export import ExportableModel, FormatOptions, InputForm, Signature, WrittenModel, choose_form

MODEL = "model.xml"


class Options(FormatOptions):
    """An OpenVINO model with weights of 4 or 2 bytes."""

    EXTRA: ClassVar[tuple[str, ...]] = ("openvino",)

    kind: Literal["openvino"] = "openvino"
    quantize: Literal["float16"] | None = Field(
        default=None, description="float16: weights of 2 bytes; computation stays in float32."
    )

    @property
    def quantized(self) -> str | None:
        return self.quantize


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `model.xml` and `model.bin`."""
    import openvino

    from bmcli.export import graph
    from bmcli.export.conversion import run_converter  # not at the top: recipes read the options alone

    forms: dict[str, InputForm] = {
        column.name: choose_form(column, ("arithmetic", "picture")) for column in exportable.spec.inputs
    }
    signature = Signature(
        graph.SERVING, graph.make_inputs(exportable.spec, forms), graph.make_outputs(exportable, with_text=False)
    )
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        graph.save_module(graph.ServingModule(exportable), [signature], Path(scratch))
        with run_converter(options.name, folder):
            model = openvino.convert_model(scratch)
        openvino.save_model(model, str(folder / MODEL), compress_to_fp16=options.quantize == "float16")
    return WrittenModel(MODEL, "openvino", (signature,))
