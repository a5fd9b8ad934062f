"""Many columns alike are computed together, and to the same bits as each alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bmcli import inputs, parts
from bmcli.recipe.fields import PartField
from bmcli.specs import MANY_COLUMNS, Column, DataSpec

ROWS = 12
_dice = np.random.default_rng(0)


def _text(*words: str) -> Any:
    return pa.chunked_array([pa.array(_dice.choice(words, ROWS).tolist(), pa.string())])


def _of(number: int) -> tuple[str, Any]:
    """One of every kind that is stacked, and of some that are not, in turn."""
    return (
        ("number", _dice.normal(3, 2, ROWS)),
        ("category", _text("x", "y", f"only {number}")),
        ("category", _dice.integers(0, 5, ROWS)),
        ("boolean", _text("yes", "no")),
        ("number", np.where(_dice.random(ROWS) < 0.3, np.nan, _dice.normal(size=ROWS).astype("float32"))),
        ("category", pa.chunked_array([pa.array(["a", None, "b"] * 4, pa.string())])),
        ("number", _dice.normal(size=(ROWS, 3))),
        ("date", pa.chunked_array([pa.array([f"2024-01-{day + 1:02}" for day in range(ROWS)])])),
    )[number % 8]


CELLS = {f"c {number}": _of(number) for number in range(MANY_COLUMNS + 8)}


def _fit(name: str, kind: str, cells: Any) -> Column:
    column: Column = parts.load("inputs", kind).fit(name, cells, PartField("inputs").check(kind))
    return column


@pytest.fixture(scope="module")
def columns() -> tuple[Column, ...]:
    return tuple(_fit(name, kind, cells) for name, (kind, cells) in CELLS.items())


def _encoded(columns: tuple[Column, ...]) -> dict[str, Any]:
    return {
        column.name: tf.constant(inputs.kind_of(column).encode(CELLS[column.name][1], column)) for column in columns
    }


def test_stacked_columns_share_a_layer_that_encodes_each_like_a_separate_one(columns: tuple[Column, ...]) -> None:
    raw = {column.name: tf.constant(inputs.to_serving_array(CELLS[column.name][1], column)) for column in columns}
    found = inputs.build_encoders(columns)
    assert len(found) < len(columns) / 2
    together = {name: tensor for each in found for name, tensor in each(raw).items()}
    assert set(together) == set(raw)
    for name, expected in _encoded(columns).items():
        np.testing.assert_array_equal(together[name], expected, err_msg=name)
        assert together[name].dtype == expected.dtype


def test_an_unknown_category_is_one_for_its_own_column_alone(columns: tuple[Column, ...]) -> None:
    some = [column for column in columns if column.kind == "category" and column.raw_dtype == "string"][:3]
    words = ["only 1", "only 9", ""]
    together = inputs._load_stackable(some).build_stacked_encoder(some)([tf.constant(words)] * 3)
    alone = [inputs.kind_of(column).build_encoder(column)(tf.constant(words)) for column in some]
    np.testing.assert_array_equal(np.stack(together), np.stack(alone))


def test_categories_together_have_the_one_hot_vectors_of_each(columns: tuple[Column, ...]) -> None:
    encoded = _encoded(columns)
    together = inputs.build_features(columns, encoded, stacked=True)
    apart = inputs.build_features(columns, encoded, stacked=False)
    assert len(apart) == len(columns) > len(together)

    def flat(features: list[inputs.Feature]) -> list[tuple[float, ...]]:
        """Return the columns of the features, sorted, so that their order does not matter."""
        cells = np.concatenate([np.asarray(each.tensor).reshape(ROWS, -1) for each in features], axis=1)
        return sorted(map(tuple, np.nan_to_num(cells.T).tolist()))

    assert flat(together) == flat(apart)


def test_few_columns_are_never_computed_together(columns: tuple[Column, ...]) -> None:
    few = columns[: MANY_COLUMNS - 1]
    assert len(inputs.build_encoders(few)) == len(few)
    assert len(inputs.build_features(few, _encoded(few), stacked=True)) == len(few)


def test_a_saved_model_of_many_columns_gives_what_it_gave(columns: tuple[Column, ...], tmp_path: Any) -> None:
    spec = DataSpec(inputs=columns, targets=(), counts={}, fingerprint="", key="")
    raw, encoded = inputs.build_serving_inputs(spec)
    flat = [keras.layers.Flatten()(keras.ops.cast(encoded[name], "float32")[..., None]) for name in list(raw)[:40]]
    names = inputs.make_tensor_names(columns)
    model = keras.Model({names[name]: tensor for name, tensor in raw.items()}, keras.layers.Concatenate()(flat))
    model.save(tmp_path / "model.keras")
    given = {names[name]: tf.constant(inputs.to_serving_array(cells, column)) for (name, (_, cells)), column in zip(
        CELLS.items(), columns, strict=True)}  # fmt: skip
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(given), model(given))
