"""Rows for export and verification: rows of the run's splits, and edge cases derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.data.preparation import read_serving_arrays
from bmcli.export import ExportRows
from bmcli.inputs import EdgeCell
from bmcli.quoting import quoted
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec, PreparedData

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network


@dataclass(frozen=True)
class EdgeCase:
    """A row with an unusual cell.

    Args:
        description: Of the unusual cell.
        raw: By column, `(1, ...)`.
        is_resized: Whether a picture has another size than those of the data.
    """

    description: str
    raw: Mapping[str, np.ndarray]
    is_resized: bool = False


def read_split_rows(recipe: Recipe, prepared: PreparedData, counts: Mapping[str, int]) -> dict[str, ExportRows]:
    """Read evenly spread rows of some splits.

    Args:
        counts: Maximum number of rows, by split.
    """
    import numpy as np

    splits = {name: prepared.split(name) for name in counts}
    positions = {
        name: np.unique(np.linspace(0, len(split) - 1, min(counts[name], len(split))).round().astype("int64"))
        for name, split in splits.items()
    }
    raw = read_serving_arrays(recipe.data, recipe.targets(), recipe.data_seed, prepared.spec, positions)
    return {
        name: ExportRows(
            positions[name],
            raw[name],
            {column: np.asarray(array[positions[name]]) for column, array in split.inputs.items()},
            {output.name: split.read_target(output, positions[name]) for output in prepared.spec.outputs},
        )
        for name, split in splits.items()
    }


def make_edge_cases(rows: ExportRows, spec: DataSpec) -> list[EdgeCase]:
    """Make a batch of one row, and rows with a cell that is missing, unknown, or a picture of another size."""
    first_row = {name: values[:1] for name, values in rows.raw.items()}
    cases, missing = [EdgeCase("a batch of 1", first_row)], {}
    for column in spec.inputs:
        traits = input_kinds.get_traits(column)
        missing[column.name] = cell = traits.make_missing_cell(first_row[column.name])
        cells = [] if cell is None else [EdgeCell("a missing value", cell)]
        cases += [
            EdgeCase(f"{each.description} in {quoted(column.name)}", {**first_row, column.name: each.cell},
                     each.is_resized)
            for each in (*cells, *traits.make_edge_cells(first_row[column.name]))
        ]  # fmt: skip
    if len(spec.inputs) > 1 and all(cell is not None for cell in missing.values()):
        cases.append(
            EdgeCase("all columns missing", {name: cell for name, cell in missing.items() if cell is not None})
        )
    return cases


def predict_encoded(network: Network, encoded: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Predict encoded rows with the network; returns predictions and the largest size of an output, by target.

    Outputs are what predictions are computed from, such as logits. Infinite ones, such as those of classes that cannot
    be, do not count.
    """
    import keras
    import numpy as np

    inputs = {name: keras.ops.convert_to_tensor(values) for name, values in encoded.items()}
    outputs = network.run_prediction(inputs)
    found = network.predict(outputs, inputs)
    predictions = {name: keras.ops.convert_to_numpy(values) for name, values in found.items()}
    sizes = {name: np.abs(keras.ops.convert_to_numpy(outputs[name])) for name in predictions}
    return predictions, {name: float(size[np.isfinite(size)].max(initial=0)) for name, size in sizes.items()}


def encode_raw(raw: Mapping[str, np.ndarray], spec: DataSpec) -> dict[str, Any]:
    """Encode raw rows for the network, by the layers of a served model."""
    from bmcli.layers import tf

    return {
        column.name: input_kinds.kind_of(column).build_encoder(column)(
            tf.constant(raw[column.name].tolist() if raw[column.name].dtype == object else raw[column.name])
        )
        for column in spec.inputs
    }
