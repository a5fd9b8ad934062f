from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data import columns, store
from bmcli.data.preparation import encode_rows, prepare
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import csv
from bmcli.errors import BmcliError
from bmcli.raw_columns import RowFault
from bmcli.recipe.data import DataOptions
from bmcli.recipe.load import load_recipe
from bmcli.specs import SPLITS, DataSpec
from tests.conftest import WriteRecipe
from tests.data.test_preparation import faults, run

PLACES = ["test", "train", "train", "validation", "train", "train"] * 4
WEIGHTS = [f"{n / 4}" for n in range(len(PLACES))]


def table(path: Path, weights: Sequence[str] = WEIGHTS, **data: Any) -> dict[str, Any]:
    """Data options for a file whose rows 0 to 23 have these weights and the splits of PLACES."""
    lines = [f"{n % 7},{w},{PLACES[n]},{'ab'[n % 2]}\n" for n, w in enumerate(weights)]
    path.write_text("x,w,split,y\n" + "".join(lines))
    source = {"kind": "csv", "path": str(path)}
    return {"source": source, "targets": {"y": "category"}, "split": {"column": "split"}, "weight": "w", **data}


def with_cell(row: int, cell: str) -> list[str]:
    return [*WEIGHTS[:row], cell, *WEIGHTS[row + 1 :]]


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_the_weights_of_its_rows_as_they_are(cache: Path, file: Path, split: str) -> None:
    weights = run(cache, **table(file)).split(split).weights
    assert isinstance(weights, np.memmap)
    assert weights.dtype == "float32"
    assert weights.tolist() == [n / 4 for n, place in enumerate(PLACES) if place == split]


def test_a_split_without_rows_has_weights_without_rows(cache: Path, file: Path) -> None:
    data = table(file, split={"train": 0.5, "test": 0.5})
    weights = run(cache, **data).split("validation").weights
    assert weights is not None
    assert weights.shape == (0,)


def test_weights_follow_their_rows_through_a_split_by_chance(cache: Path, file: Path) -> None:
    inputs = {"x": "number", "copy": {"kind": "number", "scale": "none"}}
    data = table(file, split={}, inputs=inputs)
    lines = file.read_text().splitlines()
    copies = ["copy", *WEIGHTS]
    file.write_text("".join(f"{line},{copy}\n" for line, copy in zip(lines, copies, strict=True)))
    prepared = run(cache, **data)
    for name in SPLITS:
        split = prepared.split(name)
        np.testing.assert_array_equal(split.weights, split.inputs["copy"][:, 0])


def test_the_weight_is_no_input(cache: Path, file: Path) -> None:
    spec = run(cache, **table(file)).spec
    assert spec.weight == "w"
    assert [column.name for column in spec.inputs] == ["x"]


def test_without_a_weight_column_there_are_no_weights(cache: Path, file: Path) -> None:
    prepared = run(cache, **table(file, weight=None))
    assert prepared.spec.weight is None
    assert all(prepared.split(name).weights is None for name in SPLITS)
    assert "w" in [column.name for column in prepared.spec.inputs]


def test_the_weight_is_part_of_the_key(cache: Path, file: Path) -> None:
    inputs = {"x": "number"}
    weighted = run(cache, **table(file, inputs=inputs))
    plain = run(cache, **table(file, inputs=inputs, weight=None))
    assert weighted.spec.key != plain.spec.key


def test_resolved_options_give_the_same_weights(cache: Path, file: Path) -> None:
    options = DataOptions.model_validate(table(file))
    first = run(cache, **table(file))
    again = resolve_options(options, options.targets_by_name(), first.spec)
    second = prepare(again, options.targets_by_name(), 0, cache)
    np.testing.assert_array_equal(first.split("train").weights, second.split("train").weights)


def test_rows_of_another_file_need_no_weights(cache: Path, file: Path, tmp_path: Path) -> None:
    spec = run(cache, **table(file)).spec
    new = tmp_path / "new.csv"
    new.write_text("x,y\n1,a\n")
    assert encode_rows(csv.read(csv.Options(path=str(new))), spec, with_targets=True).weights is None


def test_the_weight_survives_json(cache: Path, file: Path) -> None:
    spec = run(cache, **table(file)).spec
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))).weight == "w"


def test_a_spec_from_before_there_were_weights_has_none(cache: Path, file: Path) -> None:
    values = run(cache, **table(file)).spec.to_json()
    del values["weight"]
    assert DataSpec.from_json(values).weight is None


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def retype(path: Path) -> None:
    np.save(path, np.load(path).astype("float64"))


@pytest.mark.parametrize("damage", [remove, cut, shorten, retype])
def test_damaged_weights_are_prepared_again(cache: Path, file: Path, damage: Callable[[Path], None]) -> None:
    first = run(cache, **table(file))
    before = np.array(first.split("test").weights)
    damage(first.folder / "test" / "weights.npy")
    assert "weights.npy" in store.find_damage(first.folder)
    np.testing.assert_array_equal(run(cache, **table(file)).split("test").weights, before)


def test_a_weight_column_the_source_lacks_is_one_fault_at_its_line(
    cache: Path, file: Path, write_recipe: WriteRecipe
) -> None:
    data = json.dumps(table(file, weight="x1"))
    recipe = write_recipe(f"bmcli: 1\nname: t\nmodel: mlp\ndata: {data}\n")
    loaded = load_recipe(str(recipe), ())
    with pytest.raises(BmcliError) as caught:
        prepare(loaded.recipe.data, loaded.recipe.targets(), 0, cache)
    (fault,) = loaded.locate(caught.value).faults
    assert (fault.path, fault.message, fault.suggestion) == (
        "data.weight",
        f"{file}: no column 'x1'.",
        "Did you mean 'x'?",
    )
    assert fault.place is not None
    assert fault.place.line == 4


@pytest.mark.parametrize("row", [PLACES.index(split) for split in SPLITS])
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("heavy", "expected a number, received 'heavy'."),
        ("", "expected a number of at least 0, received nothing."),
        ("nan", "expected a number of at least 0, received nothing."),
        ("inf", "expected a finite number, received 'inf'."),
        ("1e999", "expected a finite number, received '1e999'."),
        ("1e39", "expected a weight of at most 3.4e+38, received 1e+39."),
        ("-1e-60", "expected a number of at least 0, received -1e-60."),
    ],
)
def test_a_bad_weight_of_any_split_is_named_by_file_line_and_column(
    cache: Path, file: Path, row: int, cell: str, message: str
) -> None:
    (fault,) = faults(cache, **table(file, with_cell(row, cell)))
    assert fault.message == f"{file}:{row + 2}  column 'w': {message}"
    assert "missing" not in fault.suggestion


def test_training_rows_that_all_weigh_nothing_are_a_fault(cache: Path, file: Path) -> None:
    (fault,) = faults(cache, **table(file, ["0" if place == "train" else "1" for place in PLACES]))
    assert fault.path == "data.weight"
    assert fault.message.startswith(f"{file}: column 'w': every training row has the weight 0")


def test_test_rows_may_all_weigh_nothing(cache: Path, file: Path) -> None:
    weights = run(cache, **table(file, ["1" if place == "train" else "0" for place in PLACES])).split("test").weights
    assert weights is not None
    assert not weights.any()


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_arrays_of_any_number_are_weights(shape: tuple[int, ...], dtype: str) -> None:
    weights = columns.read_weights(np.array([1, 0, 1], dtype).reshape(shape))
    assert weights.dtype == "float32"
    assert weights.tolist() == [1, 0, 1]


def test_several_numbers_a_row_are_no_weight() -> None:
    with pytest.raises(RowFault, match=r"expected one number a row, received an array of shape \(2,\)"):
        columns.read_weights(np.ones((3, 2)))
