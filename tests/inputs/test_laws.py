"""Laws that hold for every kind of input, on columns that together use all of their options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from bmcli import inputs, parts
from bmcli.raw_columns import FileColumn, RawColumn, is_file_column, is_text_column, take_rows
from bmcli.specs import Column, DataSpec
from tests.pictures import encoded, pixels, with_orientation

NAN = float("nan")
DICE = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """A column to fit, and further rows to encode, with missing and unknown cells where there can be."""

    kind: str
    rows: RawColumn
    more: RawColumn
    options: dict[str, Any] = field(default_factory=dict)

    def fit(self, name: str = "x") -> Column:
        part = parts.load("inputs", self.kind)
        return part.fit(name, self.rows, part.Options(**self.options))


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def bytes_of(*shape: int) -> np.ndarray:
    return DICE.integers(0, 256, shape, "uint8")


def files(*kinds: str) -> FileColumn:
    """Encoded pictures, made when they are read: no tensor may be made before the tests run.

    Args:
        kinds: Formats, as jpg, or as jpg6 with a note of how the photo lies.
    """

    def read(row: int) -> bytes:
        kind = kinds[row].rstrip("12345678")
        data = encoded(pixels(7, 6, seed=row) // 40 * 40, kind)
        return data if kind == kinds[row] else with_orientation(data, int(kinds[row][-1]))

    return FileColumn(np.arange(len(kinds)), read)


SEQUENCES = DICE.normal(3, 2, (5, 4, 2)).astype("float32")
PADDED = np.where(np.arange(4)[:, None] < DICE.integers(1, 4, (5, 1, 1)), SEQUENCES, np.float32(NAN))
PADDED[0, 0, 0] = NAN
CHANNELS = DICE.normal(size=(5, 4, 4, 2))
VECTORS = DICE.normal(100, 5, (6, 3))
NUMBERS = text("1.25", "-3", "1e3", None, "7.7")
LETTERS = text("b", "a", None, "ß", "a\nb", "b")
MORE_LETTERS = text("a", "zebra", None, "", "a\nb", " b")

DAYS = text("2024-02-29", None, "1969-12-31", "2024-03-01")
MOMENTS = text("29/02/2024 23:59", "01/03/2024 7:05", None)
MORE_MOMENTS = text("1/1/1970 0:00", None, "31/12/2099 12:30")
SAYINGS = text("To be, or not to be!", "that IS the question", None, "Ça va? Жя: to be", "")
MORE_SAYINGS = text("be be be to", "nothing known", None, "", "\u00a0 the\tquestion?", "ça va 👍")
RARE_TOO = {"kind": "words", "min_count": 1}
COLOURS = text("red; blue", "blue", None, "green;red;red", " ; ")
MORE_COLOURS = text("blue;blue ;pink", "", "red;green;blue;black", None)
SPELLINGS = text("3", "3.0", "12", "Zu\u0308rich", None)
MORE_SPELLINGS = text(" 3", "+3.00", "003", "12.", "Zürich\u00a0", "Zu\u0308rich", " ", "zürich")
IDS = np.array([3, -1, 10, 3])
SKEWED = np.array([[1.0, NAN, 3, 3, 3, 900, -40, 5], [0, 1, 2, 3, 4, 5, 6, 7]]).T

CASES = {
    "number of text": Case("number", NUMBERS, text("5", None, "")),
    "number, minmax, median": Case("number", NUMBERS, text("5", None), {"scale": "minmax", "missing": "median"}),
    "number, unscaled, flagged": Case("number", NUMBERS, text("5", None), {"scale": "none", "flag": True}),
    "number of whole numbers": Case("number", np.arange(9), np.array([-3, 10**6])),
    "number, large": Case("number", 1.7e9 + np.arange(9.0), np.array([1.7e9 + 3.5, NAN])),
    "number, vectors": Case("number", VECTORS, np.where(VECTORS > 104, NAN, VECTORS), {"flag": True}),
    "number, sequences": Case("number", SEQUENCES, PADDED, {"missing": "zero"}),
    "number, padded sequences": Case("number", PADDED, PADDED[::-1], {"flag": True}),
    "number, quantiles": Case("number", SKEWED, SKEWED[::-1] * 1.1, {"scale": "quantile", "flag": True}),
    "number, quantiles of float32": Case(
        "number", SKEWED.astype("float32"), np.float32([[3, 900], [NAN, 0]]), {"scale": "quantile"}
    ),
    "number, logarithm": Case("number", SKEWED, SKEWED[::-1] * 1e5, {"log": True}),
    "number, bins": Case("number", SKEWED, SKEWED[::-1] * 1.1, {"bins": 4, "flag": True}),
    "number, uniform bins of text": Case("number", NUMBERS, text("5", None), {"bins": 3, "binning": "uniform"}),
    "number, bins of padded sequences": Case("number", PADDED, PADDED[::-1], {"bins": 3}),
    "number, learned": Case("number", NUMBERS, text("5", None, ""), {"missing": "learned", "log": True}),
    "lags": Case("lags", VECTORS, np.where(VECTORS > 104, NAN, VECTORS), {"of": "load", "steps": (1, 2, 3)}),
    "number, learned in padded sequences": Case("number", PADDED, PADDED[::-1], {"missing": "learned", "flag": True}),
    "category": Case("category", LETTERS, MORE_LETTERS),
    "category, spellings": Case("category", SPELLINGS, MORE_SPELLINGS),
    "category, spellings of numbers": Case("category", text("3", "12", "0.50"), MORE_SPELLINGS),
    "category, spellings of codes": Case("category", text("003", "12"), MORE_SPELLINGS),
    "category, spellings hashed": Case("category", SPELLINGS, MORE_SPELLINGS, {"encoding": "hash", "buckets": 99}),
    "category, raw cells": Case("category", SPELLINGS, MORE_SPELLINGS, {"normalize": False}),
    "category, several spellings": Case(
        "category", text("Zürich;3", "12; 3"), text("Zu\u0308rich\u00a0;3.0", "12.0; +3"), {"separator": ";"}
    ),
    "category, rare ones pooled": Case("category", LETTERS, MORE_LETTERS, {"min_count": 2}),
    "category, the most frequent": Case("category", IDS, np.array([10, 3, 7]), {"max_categories": 1}),
    "category, hashed": Case("category", LETTERS, MORE_LETTERS, {"encoding": "hash", "buckets": 5}),
    "category, hashed whole numbers": Case("category", IDS, np.array([10, 3, -7]), {"encoding": "hash"}),
    "category, several": Case("category", COLOURS, MORE_COLOURS, {"separator": ";"}),
    "category, several embedded": Case("category", COLOURS, MORE_COLOURS, {"separator": ";", "dimension": 3}),
    "category, several hashed": Case(
        "category", COLOURS, MORE_COLOURS, {"separator": ";", "encoding": "hash", "buckets": 99}
    ),
    "category, never missing": Case("category", text("b", "a"), MORE_LETTERS, {"encoding": "one_hot"}),
    "category, embedded": Case("category", LETTERS, MORE_LETTERS, {"encoding": "embedding"}),
    "category of whole numbers": Case("category", np.array([3, -1, 10]), np.array([10, 99, -1])),
    "category, one a row": Case("category", np.array([[3], [1]]), np.array([[1], [2]])),
    "boolean": Case("boolean", text("yes", "No", None, " T "), text("", "1", "off", "TRUE")),
    "boolean in other words": Case("boolean", text("ja", "no"), text("No", None), {"yes": ("Ja",), "no": ("no",)}),
    "boolean of an array": Case("boolean", np.array([True, False]), np.array([False, True])),
    "boolean of vectors": Case("boolean", np.array([[0, 1.0], [NAN, 1]]), np.array([[1, NAN]] * 2)),
    "date": Case("date", DAYS, text("1900-01-01", "", "2100-12-31")),
    "date with time": Case("date", MOMENTS, MORE_MOMENTS, {"format": "%d/%m/%Y %H:%M"}),
    "date, all parts": Case(
        "date",
        text("2024-02-29T10:30Z", "3. May 1999", "1700000000"),
        text("2024-02-29 10:30:59.25+05:30", "31. dec 1968", "-1.5"),
        {
            "format": ("iso", "%d. %b %Y", "seconds"),
            "parts": ("minute", "hour", "weekday", "day", "month", "day_of_year", "trend"),
        },
    ),
    "date, few cells are none": Case(
        "date",
        text("31.01.2024", "unknown", "see note", "29.02.2024"),
        text("31.04.2024", "SEE NOTE", "1.1.1900", "")[1:],
        {"missing_cells": ("see note", "1.1.1900")},
    ),
    "date of digits": Case("date", text("202401311530", "0", "202402291200"), text("202312312359", "n/a")),
    "date of numbers that are digits": Case("date", np.array([20240131, 20240229]), np.array([20231231, 99991231])),
    "date, weeks": Case("date", text("2021-W05-3", "2020-W53-7"), text("1999-W01-1", ""), {"format": "%G-W%V-%u"}),
    "date of numbers": Case("date", np.array([1.7e9, NAN, 1.6e9 + 60]), np.array([-1, 1e10])),
    "text": Case("text", SAYINGS, MORE_SAYINGS),
    "text, decomposed": Case("text", SAYINGS, text("C\u0327a va", "Ça va, A\u030angstro\u0308m"), {"tokens": RARE_TOO}),
    "text, raw": Case("text", SAYINGS, text("C\u0327a va", "Ça va"), {"tokens": RARE_TOO, "normalize": False}),
    "text, bag": Case(
        "text",
        SAYINGS,
        MORE_SAYINGS,
        {"encoding": "bag", "accents": "strip", "tokens": {"kind": "words", "punctuation": "drop"}},
    ),
    "text, embedded bag": Case(
        "text",
        SAYINGS,
        MORE_SAYINGS,
        {"dimension": 3, "lowercase": False, "tokens": {"kind": "words", "ngrams": (1, 1)}},
    ),
    "text, sequence": Case("text", SAYINGS, MORE_SAYINGS, {"encoding": "sequence", "length": 3}),
    "text, characters": Case("text", SAYINGS, MORE_SAYINGS, {"tokens": "characters"}),
    "text, sequence of characters": Case(
        "text",
        SAYINGS,
        MORE_SAYINGS,
        {"tokens": {"kind": "characters", "punctuation": "drop"}, "encoding": "sequence"},
    ),
    "text, bytes": Case("text", SAYINGS, MORE_SAYINGS, {"tokens": "bytes"}),
    "text, sequence of bytes": Case("text", SAYINGS, MORE_SAYINGS, {"tokens": "bytes", "encoding": "sequence"}),
    "image": Case("image", bytes_of(5, 4, 3), bytes_of(2, 4, 3)),
    "image, standard": Case("image", bytes_of(5, 4, 3, 3), bytes_of(2, 4, 3, 3), {"scale": "standard"}),
    "image, resized": Case("image", bytes_of(5, 8, 6, 3), bytes_of(2, 8, 6, 3), {"size": (5, 7), "channels": 1}),
    "image of floats": Case("image", DICE.normal(size=(5, 4, 4)), DICE.normal(size=(2, 4, 4)), {"channels": 3}),
    "image, floats resized": Case("image", CHANNELS, CHANNELS[:2], {"size": (9, 3)}),
    "image, padded": Case("image", bytes_of(5, 8, 4, 3), bytes_of(2, 8, 4, 3), {"size": (6, 6), "fit": "pad"}),
    "image, cropped": Case("image", bytes_of(5, 8, 4), bytes_of(2, 8, 4), {"size": (3, 5), "fit": "crop"}),
    "image, files": Case("image", files("png", "bmp"), files("bmp", "png", "png")),
    "image, files stretched": Case(
        "image",
        files("jpg", "png", "gif"),
        files("png", "jpg").with_missing(np.array([True, False])),
        {"size": (20, 9)},
    ),
    "image, photos": Case("image", files("jpg6"), files(*(f"jpg{way}" for way in range(1, 9))), {"size": (9, 7)}),
    "image, files padded": Case(
        "image", files("jpg"), files("gif", "jpg"), {"size": (5, 5), "fit": "pad", "scale": "standard"}
    ),
    "image, files cropped": Case(
        "image", files("png", "jpg"), files("png", "jpg"), {"size": (5, 9), "fit": "crop", "channels": 1}
    ),
}

if find_spec("sentencepiece") and find_spec("tensorflow_text"):  # pip install 'bmcli[text]'
    CASES["text, pieces"] = Case("text", SAYINGS, MORE_SAYINGS, {"tokens": "bpe"})
    CASES["text, sequence of pieces"] = Case(
        "text", SAYINGS, MORE_SAYINGS, {"tokens": "unigram", "encoding": "sequence"}
    )

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def served(rows: RawColumn, column: Column) -> Any:
    """Rows as a client sends them to a served model."""
    if is_file_column(rows):
        return keras.ops.convert_to_tensor(
            [b"" if missing else rows.read(row) for row, missing in enumerate(rows.missing())]
        )
    if column.raw_dtype == "string":
        return keras.ops.convert_to_tensor([cell or "" for cell in rows.to_pylist()])
    if is_text_column(rows):
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
        layer = kind.build_encoder(column)(served(rows, column))
        np.testing.assert_array_equal(layer.numpy(), kind.encode(rows, column))


@every_case
def test_the_encoding_of_a_row_does_not_depend_on_the_other_rows(case: Case) -> None:
    column = case.fit()
    kind = inputs.kind_of(column)
    whole = kind.encode(case.more, column)
    for row in range(len(case.more)):
        np.testing.assert_array_equal(kind.encode(take_rows(case.more, np.array([row])), column)[0], whole[row])


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
    feature = kind.build_feature(column, keras.ops.convert_to_tensor(kind.encode(case.more, column)))
    values = feature.tensor.numpy()
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.ndim == _rank(column)


def _rank(column: Column) -> int:
    if column.kind == "text":
        return 2 if column.state["bag"] else 3
    return max(2, len(column.shape) + 1)


def test_raw_rows_to_features_survive_saving(tmp_path: Path) -> None:
    """One model over all cases, since every saving costs a second."""
    columns = [case.fit(f"column {position} (a/b)") for position, case in enumerate(CASES.values())]
    raw, encoded = inputs.build_serving_inputs(spec_of(*columns))
    assert set(raw) == set(encoded) == {column.name for column in columns}
    features = [inputs.kind_of(column).build_feature(column, encoded[column.name]) for column in columns]
    model = keras.Model(
        list(raw.values()),
        [
            *encoded.values(),
            *(feature.tensor for feature in features),
            *(f.mask for f in features if f.mask is not None),
        ],
    )
    again = reloaded(model, tmp_path)
    rows = [take_rows(case.more, np.array([0, 1])) for case in CASES.values()]
    sent = [served(each, column) for each, column in zip(rows, columns, strict=True)]
    for before, after in zip(model(sent), again(sent), strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy())
    for column, each, result in zip(columns, rows, again(sent), strict=False):
        expected = inputs.kind_of(column).encode(each, column)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_names_of_served_inputs_are_plain_and_differ() -> None:
    columns = [Column(name, "number", (1,), "float32") for name in ("a/b", "a_b", "length (cm)", "ä", "_x", "age")]
    assert list(inputs.make_tensor_names(columns).values()) == [
        "a_b",
        "a_b_",
        "length__cm_",
        "column__",
        "column__x",
        "age",
    ]


def feature_of(case: Case) -> tuple[Column, Callable[[RawColumn], Any]]:
    column = case.fit()
    kind = inputs.kind_of(column)
    return column, lambda rows: kind.build_feature(column, keras.ops.convert_to_tensor(kind.encode(rows, column)))


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
