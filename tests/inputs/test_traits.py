"""The traits of a column agree with how its kind encodes it, on columns that together use all options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from keras import ops

from bmcli import inputs, parts
from bmcli.raw_columns import ColumnCells, is_file_column, is_text_column
from bmcli.recipe.fields import convert_lists
from bmcli.specs import Column, DataSpec
from tests.inputs.test_laws import CASES, Case, every_case


def encode_cell(column: Column, cell: Any) -> np.ndarray:
    """Encode raw cells by the layer of a served model."""
    cells = cell.tolist() if cell.dtype == object else cell
    return np.asarray(inputs.kind_of(column).build_encoder(column)(ops.convert_to_tensor(cells)))


@every_case
def test_the_form_is_that_of_the_feature(case: Case) -> None:
    column = case.fit()
    kind = inputs.kind_of(column)
    feature = kind.build_feature(column, ops.convert_to_tensor(kind.encode(case.rows, column)))
    assert {"vector": 2, "steps": 3, "map": 4}[kind.get_traits(column).form] == len(feature.tensor.shape)


@every_case
def test_unusual_cells_can_be_encoded(case: Case) -> None:
    column = case.fit()
    traits = inputs.get_traits(column)
    cell = inputs.to_serving_array(case.rows, column)[:1]
    missing = traits.make_missing_cell(cell)
    unusual = [each.cell for each in traits.make_edge_cells(cell)] + ([] if missing is None else [missing])
    assert unusual or column.state.get("missing_is_fault")
    for each in unusual:
        assert encode_cell(column, each).shape == (1, *column.shape)


@every_case
def test_random_cells_are_served_like_those_of_the_data(case: Case) -> None:
    column = case.fit()
    cells = inputs.get_traits(column).make_random_cells(3, np.random.default_rng(0))
    served = inputs.to_serving_array(case.rows, column)
    assert (cells.dtype, cells.shape[1:]) == (served.dtype, served.shape[1:])
    assert encode_cell(column, cells).shape == (3, *column.shape)


@every_case
def test_an_example_is_a_cell_that_can_be_read(case: Case) -> None:
    column = case.fit()
    example = inputs.get_traits(column).example
    if example and is_text_column(case.rows):
        cells = pa.chunked_array([example.split(" or ")])
        encoded = np.asarray(inputs.kind_of(column).encode(cells, column))
        assert np.isfinite(encoded).all()


@every_case
def test_a_column_can_be_crossed_if_its_options_say_so(case: Case) -> None:
    column = case.fit()
    traits = inputs.get_traits(column)
    count = traits.count_positions()
    assert (count is not None) == parts.load("inputs", case.kind).Options(**case.options).can_be_crossed
    if count is not None and np.prod(column.shape, dtype=int) - traits.flags == 1:
        encoded = inputs.kind_of(column).encode(case.rows, column)
        positions = np.asarray(traits.to_positions(ops.convert_to_tensor(encoded)))
        assert positions.shape == (len(encoded),)
        assert positions.min() >= 0
        assert positions.max() < count


@every_case
def test_flags_are_channels_of_zeros_and_ones(case: Case) -> None:
    column = case.fit()
    flags = inputs.get_traits(column).flags
    if flags:
        flagged = inputs.kind_of(column).encode(case.rows, column)[..., -flags:]
        assert set(np.unique(flagged[np.isfinite(flagged)])) <= {0.0, 1.0}


@every_case
def test_pictures_are_drawn_and_changed_between_0_and_1(case: Case) -> None:
    column = case.fit()
    traits = inputs.get_traits(column)
    encoded = inputs.kind_of(column).encode(case.rows, column)
    if traits.display != "picture":
        np.testing.assert_array_equal(traits.from_unit_range(traits.to_unit_range(encoded)), encoded)
        return
    drawn = traits.draw(encoded[0])
    assert drawn.shape == column.shape
    assert 0 <= drawn.min() <= drawn.max() <= 1
    values = traits.to_unit_range(ops.convert_to_tensor(encoded))
    np.testing.assert_allclose(np.asarray(values)[0], drawn, atol=1e-6)
    np.testing.assert_allclose(np.asarray(traits.from_unit_range(values)), encoded, atol=1e-3)


@every_case
def test_a_column_is_described(case: Case) -> None:
    traits = inputs.get_traits(case.fit())
    assert traits.describe_cells()
    assert isinstance(traits.summarize(), str) == (traits.column.kind != "number")


@pytest.mark.parametrize("name", ["text, sequence", "text, characters"])
def test_terms_are_paired_with_their_contributions(name: str) -> None:
    column = CASES[name].fit()
    kind = inputs.kind_of(column)
    encoded = kind.encode(CASES[name].rows, column)
    feature = np.asarray(kind.build_feature(column, ops.convert_to_tensor(encoded)).tensor)
    terms = kind.get_traits(column).attribute_terms(encoded[0], feature[0])
    assert terms
    assert {term for term, _ in terms} <= {*column.state["tokenizer"]["vocabulary"], "?"}
    assert sum(value for _, value in terms) == pytest.approx(float(feature[0].sum()), abs=1e-5)


def test_a_picture_is_converted_to_the_size_and_range_of_another_column() -> None:
    small, large = CASES["image, resized"].fit(), CASES["image, photos"].fit()
    assert inputs.get_traits(CASES["image"].fit()).build_conversion(large) is None  # other channels
    convert = inputs.get_traits(large).build_conversion(
        Column("x", "image", (4, 4, 3), "float32", state={"range": [0.0, 1.0]})
    )
    assert convert is not None
    white = np.asarray(convert(np.full((2, *large.shape), 255, "uint8")))
    np.testing.assert_allclose(white, np.ones((2, 4, 4, 3)), atol=1e-6)
    assert inputs.get_traits(CASES["date"].fit()).build_conversion(small) is None


def test_a_cross_has_the_traits_of_a_vector() -> None:
    crossed = [CASES[name].fit(name) for name in ("category, never missing", "boolean")]
    cross = inputs.build_cross("a_x_b", crossed, [4, 3], 10, None)
    traits = inputs.get_traits(cross)
    assert (traits.form, traits.is_number) == ("vector", False)
    encoded = {column.name: ops.zeros((2, *column.shape), column.dtype) for column in crossed}
    feature = inputs.build_cross_feature(cross, DataSpec(tuple(crossed), (), {}, "", ""), encoded)
    assert feature.tensor.shape == (2, 10)


@every_case
def test_a_kind_has_the_options_that_it_guesses(case: Case) -> None:
    guesses = inputs.guess_kinds(ColumnCells("x", case.rows), parts.names("inputs"))
    assert guesses
    assert [guess.certainty for guess in guesses] == sorted((guess.certainty for guess in guesses), reverse=True)
    for guess in guesses:
        written = convert_lists({"kind": guess.kind, **guess.options})  # as the lists of a recipe are
        assert parts.load("inputs", guess.kind).Options.model_validate(written)
    if is_file_column(case.rows):
        assert guesses[0].kind == "image"
