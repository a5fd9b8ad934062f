"""Cells as people write them: they are prepared like the clean ones, and the others are refused all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.commands.plan import list_warnings
from bmcli.data.preparation import encode_rows, prepare, to_serving_arrays
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import csv
from bmcli.errors import BmcliError
from bmcli.recipe.data import DataOptions
from bmcli.specs import SPLITS, PreparedData
from tests.data.test_preparation import faults, run

ROWS = 100


def write(file: Path, cells: list[str], prices: list[str] | None = None) -> dict[str, Any]:
    """Write a column of awkward cells, one of numbers, and prices to predict; return options without inputs."""
    prices = prices or [str(row * 3 % 17) for row in range(len(cells))]
    rows = zip(cells, range(len(cells)), prices, strict=True)
    file.write_text("a;b;price\n" + "".join(f"{a};{b % 7};{price}\n" for a, b, price in rows))
    return {"source": {"kind": "csv", "path": str(file)}, "targets": {"price": "number"}}


def clean() -> list[str]:
    return [f"{row * 10.5:.1f}" for row in range(ROWS)]


def with_notes(*notes: str) -> list[str]:
    """Return clean cells, some of them replaced from the end, where rows of every split are."""
    return [*clean()[: ROWS - len(notes)], *notes]


def assert_same(found: PreparedData, wanted: PreparedData) -> None:
    for split in SPLITS:
        mine, others = found.split(split), wanted.split(split)
        for name, cells in others.inputs.items():
            np.testing.assert_array_equal(mine.inputs[name], cells)
        for name, cells in others.targets.items():
            np.testing.assert_array_equal(mine.targets[name], cells)


def test_a_recipe_without_inputs_reads_the_notation_of_its_training_rows(cache: Path, tmp_path: Path) -> None:
    wanted = run(cache, **write(tmp_path / "clean.csv", clean()))
    data = write(tmp_path / "commas.csv", [cell.replace(".", ",") for cell in clean()])
    found = run(cache, **data)
    assert found.spec.input("a").state["notation"] == {"decimal": ","}
    assert_same(found, wanted)
    options = DataOptions.model_validate(data)
    resolved = resolve_options(options, options.targets_by_name(), found.spec)
    assert resolved.model_dump()["inputs"]["a"]["decimal"] == ","
    assert_same(prepare(resolved, resolved.targets_by_name(), 0, cache), wanted)


def test_later_rows_are_read_in_the_same_notation(cache: Path, tmp_path: Path) -> None:
    spec = run(cache, **write(tmp_path / "t.csv", [cell.replace(".", ",") for cell in clean()])).spec
    write(tmp_path / "new.csv", ["10,5", "NULL", "21,0"])
    rows = csv.read(csv.Options(path=str(tmp_path / "new.csv")))
    state = spec.input("a").state
    wanted = (np.array([10.5, state["fill"][0], 21]) - state["offset"][0]) / state["scale"][0]
    np.testing.assert_allclose(encode_rows(rows, spec, with_targets=False).inputs["a"][:, 0], wanted, rtol=1e-6)
    np.testing.assert_array_equal(to_serving_arrays(rows, spec)["a"], np.array([10.5, np.nan, 21], "float32"))


def test_later_cells_that_cannot_be_read_are_listed(cache: Path, tmp_path: Path) -> None:
    spec = run(cache, **write(tmp_path / "t.csv", clean())).spec
    write(tmp_path / "new.csv", ["10,5", "7", "21,0", "10,5"])
    rows = csv.read(csv.Options(path=str(tmp_path / "new.csv")))
    for read in (lambda: encode_rows(rows, spec, with_targets=False), lambda: to_serving_arrays(rows, spec)):
        with pytest.raises(BmcliError, match=r"received '10,5'\. 3 cells are no better: '10,5' \(2\) and '21,0'"):
            read()


@pytest.mark.parametrize("kind", ["number", "count"])
def test_a_target_is_read_in_its_notation(cache: Path, tmp_path: Path, kind: str) -> None:
    plain = [1000 + row * 37 for row in range(ROWS)]
    wanted = run(cache, **{**write(tmp_path / "1.csv", clean(), list(map(str, plain))), "targets": {"price": kind}})
    data = write(tmp_path / "2.csv", clean(), [f"${price:,}" for price in plain])
    found = run(cache, **{**data, "targets": {"price": {"kind": kind, "thousands": ",", "unit": "$"}}})
    assert_same(found, wanted)
    (fault,) = faults(cache, **{**data, "targets": {"price": kind}})
    assert fault.suggestion.startswith('Write `thousands: ",", unit: "$$"` beside its kind')


def test_a_target_that_is_missing_is_a_fault_with_its_cell(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", clean(), [*["1", "2"] * 49, "None", "None"])
    (fault,) = faults(cache, **data)
    assert "expected a number, received 'None', which marks a missing value." in fault.message
    assert "`invalid: skip`" in fault.suggestion
    assert run(cache, **{**data, "invalid": "skip"}).spec.skipped_rows == 2


def test_a_fault_lists_all_foreign_cells_with_the_option_that_settles_them(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", with_notes("tbd", "see note", "see note", "NULL"))
    inputs = {"a": {"kind": "number", "missing_cells": ("?!",)}, "b": "number"}
    (fault,) = faults(cache, **data, inputs=inputs)
    assert fault.message.endswith("3 cells are no better: 'see note' (2) and 'tbd' (1).")
    advice = '`missing_cells: ["?!", "see note", "tbd"]`'
    assert fault.suggestion == f"Write {advice} beside its kind to treat such cells as missing."
    inputs["a"] = {"kind": "number", "missing_cells": ("?!", "See Note", "tbd")}
    found = run(cache, **data, inputs=inputs)
    assert_same(found, run(cache, **write(tmp_path / "clean.csv", with_notes("", "", "", ""))))
    counted = [warning for warning in list_warnings(found, 1) if "column 'a'" in warning and "missing" in warning]
    assert len(counted) == 1


def test_without_inputs_the_source_can_settle_foreign_cells(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", with_notes("tbd", "see note", "see note"))
    (fault,) = faults(cache, **data)
    advice = fault.suggestion.removeprefix("Add them to `missing: ").removesuffix("`.")
    assert json.loads(advice)[-2:] == ["see note", "tbd"]
    data["source"]["missing"] = tuple(json.loads(advice))
    run(cache, **data)


def test_without_inputs_and_option_of_the_source_the_inputs_are_to_be_listed(cache: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"a": cell, "price": row % 7}) for row, cell in enumerate(with_notes("tbd", "tbd"))]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    source = {"kind": "jsonl", "path": str(tmp_path / "t.jsonl")}
    (fault,) = faults(cache, source=source, targets={"price": "number"})
    assert fault.suggestion.startswith('List the inputs, with `missing_cells: ["tbd"]` beside its kind')


def test_many_kinds_of_foreign_cells_are_settled_by_the_policy(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", with_notes(*(f"note {number}" for number in range(40))))
    (fault,) = faults(cache, **data, inputs={"a": "number"})
    assert "40 cells are no better" in fault.message
    assert "and 30 others." in fault.message
    assert fault.suggestion == "Write `invalid: fill` to treat such cells as missing."


def test_foreign_cells_of_a_target_are_not_advised_to_be_missing(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", clean(), [*["1", "2"] * 49, "tbd", "tbd"])
    (fault,) = faults(cache, **data)
    assert fault.suggestion == "Correct the cells, or write `invalid: skip` to leave out their rows."


def test_a_column_of_words_is_of_another_kind(cache: Path, tmp_path: Path) -> None:
    (fault,) = faults(cache, **write(tmp_path / "t.csv", ["one", "two"] * 50), inputs={"a": "number"})
    assert fault.suggestion == "Most cells are of another kind: name it in the recipe."


def test_numbers_in_another_notation_are_a_fault_that_names_it(cache: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", [cell.replace(".", ",") for cell in clean()])
    (fault,) = faults(cache, **data, inputs={"a": "number"})
    assert fault.suggestion.startswith('Write `decimal: ","` beside its kind: nearly all of the cells')
    run(cache, **data, inputs={"a": {"kind": "number", "decimal": ","}})


def test_booleans_with_markers_are_booleans_with_missing_cells(cache: Path, tmp_path: Path) -> None:
    words = ["Y", "N", "unknown", "N"] * 25
    found = run(cache, **write(tmp_path / "1.csv", words))
    assert found.spec.input("a").kind == "boolean"
    assert_same(found, run(cache, **write(tmp_path / "2.csv", ["" if word == "unknown" else word for word in words])))


def test_a_few_other_words_beside_yes_and_no_are_missing(cache: Path, tmp_path: Path) -> None:
    words = [*["ja", "nein"] * 48, *["see note"] * 4]
    found = run(cache, **write(tmp_path / "1.csv", words)).spec.input("a")
    assert (found.kind, found.state["missing_cells"]) == ("boolean", ["see note"])
    inputs = {"a": "boolean"}
    (fault,) = faults(cache, **write(tmp_path / "1.csv", words), inputs=inputs)
    assert 'Or write `missing_cells: ["see note"]`' in fault.suggestion


def test_words_stay_categories_in_a_column_of_categories(cache: Path, tmp_path: Path) -> None:
    found = run(cache, **write(tmp_path / "t.csv", ["Rom", "Bern", "unknown", "none"] * 25)).spec.input("a")
    assert (found.kind, found.classes) == ("category", ("Bern", "Rom", "none", "unknown"))
