"""Rows for export and verification: rows of the run's splits, and edge cases derived from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.data.preparation import read_serving_arrays
from bmcli.export import ExportRows, Signature
from bmcli.quoting import quoted
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

UNKNOWN_TEXT = "no such thing \N{SNOWMAN}"
"""A text that does not occur in training rows."""


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
            {column: np.asarray(array[positions[name]]) for column, array in split.targets.items()},
        )
        for name, split in splits.items()
    }


def make_edge_cases(rows: ExportRows, spec: DataSpec) -> list[EdgeCase]:
    """Make a batch of one row, and rows with a cell that is missing, unknown, or a picture of another size."""
    first_row = {name: values[:1] for name, values in rows.raw.items()}
    cases = [EdgeCase("a batch of 1", first_row)]
    for column in spec.inputs:
        cases += [
            EdgeCase(f"{description} in {quoted(column.name)}", {**first_row, column.name: cell}, is_resized)
            for description, cell, is_resized in _make_edge_cells(column, first_row[column.name])
        ]
    missing = {
        column.name: cell for column in spec.inputs for cell in [_make_missing_cell(column, first_row[column.name])]
    }
    if len(spec.inputs) > 1 and all(cell is not None for cell in missing.values()):
        cases.append(
            EdgeCase("all columns missing", {name: cell for name, cell in missing.items() if cell is not None})
        )
    return cases


def _make_edge_cells(column: Column, cell: np.ndarray) -> Iterator[tuple[str, np.ndarray, bool]]:
    missing = _make_missing_cell(column, cell)
    if missing is not None:
        yield "a missing value", missing, False
    if column.kind in ("category", "text") and column.raw_dtype == "string":
        yield "an unknown text", _make_text_cell(UNKNOWN_TEXT), False
    if column.kind == "category" and column.raw_dtype == "int64":
        yield "an unknown number", cell * 0 + 2**40 + 1, False
    if column.kind == "text":
        yield "only spaces", _make_text_cell("  \t "), False
    if column.kind == "image":
        yield from _make_resized_pictures(column, cell)


def _make_missing_cell(column: Column, cell: np.ndarray) -> np.ndarray | None:
    """Make a missing cell; None if the column has no missing value."""
    if column.raw_dtype == "string":
        return _make_text_cell("") if column.kind != "image" else _make_text_cell(b"")
    if column.kind in ("image", "category") or column.state.get("missing_is_fault"):
        return None
    return cell * float("nan")


def _make_text_cell(text: str | bytes) -> np.ndarray:
    import numpy as np

    return np.array([text], object)


def _make_resized_pictures(column: Column, cell: np.ndarray) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield pictures of other sizes, as arrays or as files."""
    import numpy as np

    height, width = column.shape[:2]
    for size in ((2 * height + 1, width + 3), (max(1, height // 2), max(1, width // 3))):
        description = f"a picture of {size[0]} x {size[1]}"
        if column.raw_shape:
            indices = [np.arange(new) * old // new for new, old in zip(size, column.raw_shape[:2], strict=True)]  # type: ignore[operator]  # sizes of arrays are known
            yield description, cell[:, indices[0]][:, :, indices[1]], True
        else:
            yield description, np.array([make_png_file(size, column.shape[2])], object), True


def make_png_file(size: Sequence[int], channels: int) -> bytes:
    """Make a PNG file of a smooth pattern."""
    import numpy as np

    from bmcli.layers import tf

    row_indices, column_indices = np.mgrid[0 : size[0], 0 : size[1]]
    values = (row_indices[..., None] * 3 + column_indices[..., None] * (1 + np.arange(channels))) % 256
    encoded: bytes = tf.io.encode_png(values.astype("uint8")).numpy()
    return encoded


def predict_encoded(network: Network, encoded: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Predict encoded rows with the network, by target."""
    import keras

    outputs = network.model({name: keras.ops.convert_to_tensor(values) for name, values in encoded.items()},
                          training=False)  # fmt: skip
    return {name: keras.ops.convert_to_numpy(values) for name, values in network.predict(outputs).items()}


def encode_raw(raw: Mapping[str, np.ndarray], spec: DataSpec) -> dict[str, Any]:
    """Encode raw rows for the network, by the layers of a served model."""
    from bmcli import inputs as input_kinds
    from bmcli.layers import tf

    return {
        column.name: input_kinds.kind_of(column).build_encoder(column)(
            tf.constant(raw[column.name].tolist() if raw[column.name].dtype == object else raw[column.name])
        )
        for column in spec.inputs
    }


def decode_picture_files(raw: Mapping[str, np.ndarray], signature: Signature, spec: DataSpec) -> dict[str, Any]:
    """Select raw cells of a signature, with picture files decoded where the artefact takes decoded pictures."""
    return {
        each.column: _decode_pictures(raw[each.column])
        if each.form == "encoded" and holds_picture_files(spec.input(each.column))
        else raw[each.column]
        for each in signature.inputs
    }


def holds_picture_files(column: Column) -> bool:
    """Whether the cells of a column are picture files."""
    return column.kind == "image" and column.raw_dtype == "string"


def _decode_pictures(files: np.ndarray) -> Any:
    """Decode pictures to an array, or to a list if they differ in size."""
    import numpy as np

    from bmcli.layers.picture_decoder import decode_upright

    pictures = [decode_upright(data).numpy() if data else np.zeros((0, 0, 1), "uint8") for data in files]
    return np.stack(pictures) if len({each.shape for each in pictures}) == 1 else pictures
