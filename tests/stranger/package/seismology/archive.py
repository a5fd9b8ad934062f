"""An archive: a SavedModel of raw traces, beside its weights as arrays and their names as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from bmcli.export import ExportableModel, FormatOptions, Signature, WrittenModel

FOLDER = "1"


class Options(FormatOptions):
    """A SavedModel of raw cells, with its weights as arrays."""

    kind: Literal["archive"] = "archive"


def export(exportable: ExportableModel, options: Options, folder: Path) -> WrittenModel:
    """Write `1/saved_model.pb`, `weights.npz` and `weights.json`."""
    import numpy as np

    from bmcli.export import graph

    inputs = graph.make_inputs(exportable.spec, dict.fromkeys((each.name for each in exportable.spec.inputs), "raw"))
    signature = Signature(graph.SERVING, inputs, graph.make_outputs(exportable, with_text=True))
    graph.save_module(graph.ServingModule(exportable), [signature], folder / FOLDER)
    weights = {weight.path: weight.numpy() for weight in exportable.network.model.weights}
    np.savez(folder / "weights.npz", **{str(index): each for index, each in enumerate(weights.values())})
    (folder / "weights.json").write_text(json.dumps(list(weights)))
    return WrittenModel(
        FOLDER, "tensorflow", (signature,), ("weights.npz has the weights in the order of weights.json.",)
    )
