"""Laws that hold for every kind of input, on columns that together use all of their options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from bmcli import inputs, parts
from bmcli.cells import Raw, is_text, take
from bmcli.specs import Column, DataSpec

NAN = float("nan")
DICE = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """A column to fit, and further rows to encode, with missing and unknown cells where there can be."""

    kind: str
    rows: Raw
    more: Raw
    options: dict[str, Any] = field(default_factory=dict)

    def fit(self, name: str = "x") -> Column:
        part = parts.load("inputs", self.kind)
        return part.fit(name, self.rows, part.Options(**self.options))


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def bytes_of(*shape: int) -> np.ndarray:
    return DICE.integers(0, 256, shape, "uint8")


SEQUENCES = DICE.normal(3, 2, (5, 4, 2)).astype("float32")
PADDED = np.where(np.arange(4)[:, None] < DICE.integers(1, 4, (5, 1, 1)), SEQUENCES, np.float32(NAN))
PADDED[0, 0, 0] = NAN
CHANNELS = DICE.normal(size=(5, 4, 4, 2))
VECTORS = DICE.normal(100, 5, (6, 3))
NUMBERS = text("1.25", "-3", "1e3", None, "7.7")
LETTERS = text("b", "a", None, "ß", "a\nb", "b")
MORE_LETTERS = text("a", "zebra", None, "", "a\nb", " b")

CASES = {
    "number of text": Case("number", NUMBERS, text("5", None, "")),
    "number, minmax, median": Case("number", NUMBERS, text("5", None), {"scale": "minmax", "missing": "median"}),
    "number, unscaled, flagged": Case("number", NUMBERS, text("5", None), {"scale": "none", "flag": True}),
    "number of whole numbers": Case("number", np.arange(9), np.array([-3, 10**6])),
    "number, large": Case("number", 1.7e9 + np.arange(9.0), np.array([1.7e9 + 3.5, NAN])),
    "number, vectors": Case("number", VECTORS, np.where(VECTORS > 104, NAN, VECTORS), {"flag": True}),
    "number, sequences": Case("number", SEQUENCES, PADDED, {"missing": "zero"}),
    "number, padded sequences": Case("number", PADDED, PADDED[::-1], {"flag": True}),
    "category": Case("category", LETTERS, MORE_LETTERS),
    "category, never missing": Case("category", text("b", "a"), MORE_LETTERS, {"encoding": "one_hot"}),
    "category, embedded": Case("category", LETTERS, MORE_LETTERS, {"encoding": "embedding"}),
    "category of whole numbers": Case("category", np.array([3, -1, 10]), np.array([10, 99, -1])),
    "category, one a row": Case("category", np.array([[3], [1]]), np.array([[1], [2]])),
    "image": Case("image", bytes_of(5, 4, 3), bytes_of(2, 4, 3)),
    "image, standard": Case("image", bytes_of(5, 4, 3, 3), bytes_of(2, 4, 3, 3), {"scale": "standard"}),
    "image, resized": Case("image", bytes_of(5, 8, 6, 3), bytes_of(2, 8, 6, 3), {"size": (5, 7), "channels": 1}),
    "image of floats": Case("image", DICE.normal(size=(5, 4, 4)), DICE.normal(size=(2, 4, 4)), {"channels": 3}),
    "image, floats resized": Case("image", CHANNELS, CHANNELS[:2], {"size": (9, 3)}),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def served(rows: Raw, column: Column) -> Any:
    """Rows as a client sends them to a served model."""
    if column.raw_dtype == "string":
        return keras.ops.convert_to_tensor([cell or "" for cell in rows.to_pylist()])
    if is_text(rows):
        rows = np.array([float(cell) if cell else NAN for cell in rows.to_pylist()])
    return keras.ops.convert_to_tensor(rows.astype(column.raw_dtype))


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", safe_mode=True)


def spec_of(*columns: Column) -> DataSpec:
    return DataSpec(columns, (), {}, "", "")


def test_every_kind_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(parts.names("inputs"))


@every_case
def test_encoded_rows_are_as_the_column_says(case: Case) -> None:
    column = case.fit()
    for rows in (case.rows, case.more):
        encoded = inputs.kind_of(column).encode(rows, column)
        assert encoded.shape == (len(rows), *column.shape)
        assert encoded.dtype == column.dtype


@every_case
def test_the_serving_layer_encodes_as_the_file_was_encoded(case: Case) -> None:
    column = case.fit()
    kind = inputs.kind_of(column)
    for rows in (case.rows, case.more):
        layer = kind.encoder(column)(served(rows, column))
        np.testing.assert_allclose(layer.numpy(), kind.encode(rows, column), rtol=1e-6, atol=1e-6)


@every_case
def test_a_row_is_encoded_alike_whichever_rows_are_beside_it(case: Case) -> None:
    column = case.fit()
    kind = inputs.kind_of(column)
    whole = kind.encode(case.more, column)
    for row in range(len(case.more)):
        np.testing.assert_array_equal(kind.encode(take(case.more, np.array([row])), column)[0], whole[row])


@every_case
def test_a_column_survives_json(case: Case) -> None:
    column = case.fit()
    written = json.dumps(spec_of(column).to_json(), allow_nan=False)
    again = DataSpec.from_json(json.loads(written)).input("x")
    assert again == column
    kind = inputs.kind_of(column)
    np.testing.assert_array_equal(kind.encode(case.more, again), kind.encode(case.more, column))


@every_case
def test_features_are_finite_floating_point(case: Case) -> None:
    column = case.fit()
    kind = inputs.kind_of(column)
    feature = kind.feature(column, keras.ops.convert_to_tensor(kind.encode(case.more, column)))
    values = feature.tensor.numpy()
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.ndim == max(2, len(column.shape) + 1)


def test_raw_rows_to_features_survive_saving(tmp_path: Path) -> None:
    """One model over all cases, since every saving costs a second."""
    columns = [case.fit(f"column {position} (a/b)") for position, case in enumerate(CASES.values())]
    raw, encoded = inputs.serving_inputs(spec_of(*columns))
    assert set(raw) == set(encoded) == {column.name for column in columns}
    features = [inputs.kind_of(column).feature(column, encoded[column.name]) for column in columns]
    model = keras.Model(
        list(raw.values()),
        [
            *encoded.values(),
            *(feature.tensor for feature in features),
            *(f.mask for f in features if f.mask is not None),
        ],
    )
    again = reloaded(model, tmp_path)
    rows = [take(case.more, np.array([0, 1])) for case in CASES.values()]
    sent = [served(each, column) for each, column in zip(rows, columns, strict=True)]
    for before, after in zip(model(sent), again(sent), strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy())
    for column, each, result in zip(columns, rows, again(sent), strict=False):
        expected = inputs.kind_of(column).encode(each, column)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_names_of_served_inputs_are_plain_and_differ() -> None:
    columns = [Column(name, "number", (1,), "float32") for name in ("a/b", "a_b", "length (cm)", "ä", "_x", "age")]
    assert list(inputs.tensor_names(columns).values()) == [
        "a_b",
        "a_b_",
        "length__cm_",
        "column__",
        "column__x",
        "age",
    ]


def feature_of(case: Case) -> tuple[Column, Callable[[Raw], Any]]:
    column = case.fit()
    kind = inputs.kind_of(column)
    return column, lambda rows: kind.feature(column, keras.ops.convert_to_tensor(kind.encode(rows, column)))


def test_padding_becomes_zeros_and_a_mask() -> None:
    _, opened = feature_of(CASES["number, padded sequences"])
    feature = opened(PADDED)
    padding = np.isnan(PADDED).all(axis=-1)
    np.testing.assert_array_equal(feature.mask.numpy(), ~padding)
    assert not feature.tensor.numpy()[padding].any()


def test_a_category_unlike_any_training_row_is_all_zeros() -> None:
    _, opened = feature_of(CASES["category, never missing"])
    np.testing.assert_array_equal(opened(text("a", "zebra", None)).tensor.numpy(), [[1, 0], [0, 0], [0, 0]])


def test_a_missing_category_is_one_if_the_training_rows_have_it() -> None:
    _, opened = feature_of(Case("category", text("a", None), text("a")))
    np.testing.assert_array_equal(opened(text("a", "zebra", None)).tensor.numpy(), [[1, 0], [0, 0], [0, 1]])


def test_pictures_are_scaled_by_the_training_pixels() -> None:
    _, opened = feature_of(Case("image", np.array([[[10, 30]]], "uint8"), bytes_of(1, 1, 2)))
    np.testing.assert_allclose(opened(np.array([[[20, 50]]], "uint8")).tensor.numpy().ravel(), [0.5, 2.0])


def test_pictures_keep_their_precision_up_to_the_half_precision_of_the_network() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        _, opened = feature_of(
            Case("image", DICE.normal(1000, 1, (50, 4, 4)), bytes_of(1, 4, 4), {"scale": "standard"})
        )
        tensor = opened(DICE.normal(1000, 1, (50, 4, 4))).tensor
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert keras.backend.standardize_dtype(tensor.dtype) == "bfloat16"
    assert len(np.unique(keras.ops.convert_to_numpy(tensor))) > 100
