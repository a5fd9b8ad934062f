"""Rows to export and to judge by: of the run's own splits, and awkward ones that are made of them."""

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
"""A text that no training row holds."""


@dataclass(frozen=True)
class EdgeCase:
    """An awkward row.

    Args:
        description: What is awkward about it.
        raw: By column, `(1, ...)`.
        resized: Whether a picture has another size than those of the data.
    """

    description: str
    raw: Mapping[str, np.ndarray]
    resized: bool = False


def read_split_rows(recipe: Recipe, prepared: PreparedData, counts: Mapping[str, int]) -> dict[str, ExportRows]:
    """Evenly spread rows of some splits.

    Args:
        counts: How many of each, at most.
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
    """A single row, and rows in which a cell is missing, unknown, or a picture of another size."""
    one = {name: values[:1] for name, values in rows.raw.items()}
    found = [EdgeCase("a batch of 1", one)]
    for column in spec.inputs:
        found += [
            EdgeCase(f"{what} in {quoted(column.name)}", {**one, column.name: cell}, resized)
            for what, cell, resized in _make_awkward_cells(column, one[column.name])
        ]
    missing = {column.name: cell for column in spec.inputs for cell in [_make_missing_cell(column, one[column.name])]}
    if len(spec.inputs) > 1 and all(cell is not None for cell in missing.values()):
        found.append(
            EdgeCase("nothing in any column", {name: cell for name, cell in missing.items() if cell is not None})
        )
    return found


def _make_awkward_cells(column: Column, cell: np.ndarray) -> Iterator[tuple[str, np.ndarray, bool]]:
    missing = _make_missing_cell(column, cell)
    if missing is not None:
        yield "nothing", missing, False
    if column.kind in ("category", "text") and column.raw_dtype == "string":
        yield "an unknown text", _make_text_cell(UNKNOWN_TEXT), False
    if column.kind == "category" and column.raw_dtype == "int64":
        yield "an unknown number", cell * 0 + 2**40 + 1, False
    if column.kind == "text":
        yield "only spaces", _make_text_cell("  \t "), False
    if column.kind == "image":
        yield from _make_resized_pictures(column, cell)


def _make_missing_cell(column: Column, cell: np.ndarray) -> np.ndarray | None:
    """The cell where there is nothing; None if the column cannot say so."""
    if column.raw_dtype == "string":
        return _make_text_cell("") if column.kind != "image" else _make_text_cell(b"")
    if column.kind in ("image", "category") or column.state.get("missing_is_fault"):
        return None
    return cell * float("nan")


def _make_text_cell(text: str | bytes) -> np.ndarray:
    import numpy as np

    return np.array([text], object)


def _make_resized_pictures(column: Column, cell: np.ndarray) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Pictures of other sizes, for a column of arrays; and as files of other sizes, for one of files."""
    import numpy as np

    height, width = column.shape[:2]
    for size in ((2 * height + 1, width + 3), (max(1, height // 2), max(1, width // 3))):
        what = f"a picture of {size[0]} x {size[1]}"
        if column.raw_shape:
            places = [np.arange(new) * old // new for new, old in zip(size, column.raw_shape[:2], strict=True)]  # type: ignore[operator]
            yield what, cell[:, places[0]][:, :, places[1]], True
        else:
            yield what, np.array([make_png_file(size, column.shape[2])], object), True


def make_png_file(size: Sequence[int], channels: int) -> bytes:
    """A PNG file of a smooth pattern."""
    import numpy as np

    from bmcli.layers import tf

    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    values = (rows[..., None] * 3 + columns[..., None] * (1 + np.arange(channels))) % 256
    encoded: bytes = tf.io.encode_png(values.astype("uint8")).numpy()
    return encoded


def predict_encoded(network: Network, encoded: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the network says of encoded rows, by target."""
    import keras

    given = network.model({name: keras.ops.convert_to_tensor(values) for name, values in encoded.items()},
                          training=False)  # fmt: skip
    return {name: keras.ops.convert_to_numpy(values) for name, values in network.predict(given).items()}


def encode_raw(raw: Mapping[str, np.ndarray], spec: DataSpec) -> dict[str, Any]:
    """Raw rows as the network takes them, by the layers that a served model has."""
    from bmcli import inputs as input_kinds
    from bmcli.layers import tf

    return {
        column.name: input_kinds.kind_of(column).build_encoder(column)(
            tf.constant(raw[column.name].tolist() if raw[column.name].dtype == object else raw[column.name])
        )
        for column in spec.inputs
    }


def decode_picture_files(raw: Mapping[str, np.ndarray], signature: Signature, spec: DataSpec) -> dict[str, Any]:
    """Raw cells, with files of pictures decoded where an artefact leaves that to its user."""
    return {
        each.column: _decode_pictures(raw[each.column])
        if each.form == "encoded" and holds_picture_files(spec.input(each.column))
        else raw[each.column]
        for each in signature.inputs
    }


def holds_picture_files(column: Column) -> bool:
    """Whether the cells of a column are files of pictures."""
    return column.kind == "image" and column.raw_dtype == "string"


def _decode_pictures(files: np.ndarray) -> Any:
    """Pictures in an array, or in a list if they differ in size."""
    import numpy as np

    from bmcli.layers.picture_decoder import decode_upright

    found = [decode_upright(data).numpy() if data else np.zeros((0, 0, 1), "uint8") for data in files]
    return np.stack(found) if len({each.shape for each in found}) == 1 else found
