"""Past values of a column: made of all rows in their order, cut into splits, and made again for later rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from bmcli.data.derivation import derive_columns, get_derivations
from bmcli.data.preparation import encode_rows, prepare
from bmcli.data.sources import SourceRows, get_source, read_rows
from bmcli.errors import BmcliError
from bmcli.inputs import lags
from bmcli.raw_columns import to_numbers
from bmcli.recipe.data import DataOptions
from bmcli.specs import Column, PreparedData
from bmcli.windows import WindowedArray
from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

ROWS = 60
STEPS = (1, 2, 24)
LOADS = np.round(10 * np.sin(np.arange(ROWS) / 3) + np.random.default_rng(1).normal(size=ROWS), 3)
NAN = float("nan")


def text(*cells: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([None if cell is None else str(cell) for cell in cells], pa.string())])


def write_table(path: Path, rows: range = range(ROWS), cells: dict[int, str] | None = None) -> Path:
    lines = [f"{hour},{(cells or {}).get(hour, LOADS[hour])},{hour % 3}" for hour in rows]
    path.write_text("\n".join(["hour,load,other", *lines]) + "\n")
    return path


def describe(path: Path, **options: Any) -> DataOptions:
    values = {
        "source": {"kind": "csv", "path": str(path)},
        "inputs": {"past": {"kind": "lags", "of": "load", "steps": STEPS}},
        "targets": {"load": {"kind": "number"}},
        "split": {"time": "hour"},
    }
    return DataOptions.model_validate({**values, **options})


def prepare_data(options: DataOptions, folder: Path) -> PreparedData:
    return prepare(options, options.targets_by_name(), 0, folder / "cache")


def scale_back(prepared: PreparedData, encoded: Any) -> np.ndarray:
    state = prepared.spec.inputs[0].state
    return np.asarray(encoded) * np.array(state["scale"]) + np.array(state["offset"])


def read(path: Path, prepared: PreparedData, with_faults: bool = True) -> SourceRows:
    rows = read_rows(get_source(describe(path)), skip_malformed=False)
    return derive_columns(rows, get_derivations(prepared.spec), with_faults)


def test_values_of_earlier_rows_are_collected_and_none_of_others() -> None:
    found = lags.derive([text(3, None, 5, 7)], lags.Options(of="x", steps=(1, 2, 9)), None)
    np.testing.assert_array_equal(found, [[NAN, NAN, NAN], [3, NAN, NAN], [NAN, 3, NAN], [5, NAN, NAN]])


def test_groups_have_pasts_of_their_own() -> None:
    shops = text("b", "a", "b", "a", "b")
    found = lags.derive([np.arange(5.0), shops], lags.Options(of="x", within="shop", steps=(1, 2)), None)
    np.testing.assert_array_equal(found, [[NAN, NAN], [NAN, NAN], [0, NAN], [1, NAN], [2, 0]])


def test_the_first_rows_of_a_split_reach_back_into_the_one_before(tmp_path: Path) -> None:
    prepared = prepare_data(describe(write_table(tmp_path / "loads.csv")), tmp_path)
    start = 0
    for split in ("train", "validation", "test"):
        values = scale_back(prepared, prepared.split(split).inputs["past"])
        for row, past in enumerate(values, start):
            expected = [LOADS[row - step] if step <= row else NAN for step in STEPS]
            is_known = ~np.isnan(expected)
            np.testing.assert_allclose(past[is_known], np.array(expected)[is_known], atol=1e-4)
        start += len(values)
    assert start == ROWS
    column = prepared.spec.inputs[0]
    assert column.shape == column.raw_shape == (3,)
    mean = np.mean(LOADS[: prepared.spec.counts["train"] - 1])
    assert scale_back(prepared, prepared.split("train").inputs["past"])[0, 0] == pytest.approx(mean, abs=1e-4)


def test_later_rows_of_another_file_are_encoded_as_they_were_in_the_test_split(tmp_path: Path) -> None:
    prepared = prepare_data(describe(write_table(tmp_path / "loads.csv")), tmp_path)
    tested = np.asarray(prepared.split("test").inputs["past"])
    first = ROWS - len(tested)
    rows = read(write_table(tmp_path / "later.csv", range(first - max(STEPS), ROWS)), prepared)
    encoded = encode_rows(rows, prepared.spec, with_targets=True)
    np.testing.assert_array_equal(np.asarray(encoded.inputs["past"])[-len(tested) :], tested)


def test_rows_in_another_order_than_their_time_are_a_fault_also_later(tmp_path: Path) -> None:
    good = write_table(tmp_path / "loads.csv")
    lines = good.read_text().splitlines()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join([*lines[:10], lines[11], lines[10], *lines[12:]]) + "\n")
    with pytest.raises(BmcliError, match=r"wrong.csv:12 .*'load': its time is before that of the row before it"):
        prepare_data(describe(wrong), tmp_path)
    prepared = prepare_data(describe(good), tmp_path)
    with pytest.raises(BmcliError, match="its past would hold its future"):
        encode_rows(read(wrong, prepared), prepared.spec, with_targets=False)
    without = tmp_path / "without.csv"
    without.write_text("load\n1\n2\n")
    with pytest.raises(BmcliError, match="no column 'hour'"):
        read(without, prepared)


@pytest.mark.parametrize("policy", ["skip", "fill"])
def test_a_cell_that_cannot_be_read_is_a_missing_past_of_later_rows(tmp_path: Path, policy: str) -> None:
    path = write_table(tmp_path / "loads.csv", cells={4: "broken"})
    with pytest.raises(BmcliError, match=r"loads.csv:6 .*'load': expected a number, received 'broken'"):
        prepare_data(describe(path), tmp_path)
    prepared = prepare_data(describe(path, invalid=policy), tmp_path)
    assert prepared.spec.invalid_cells == {"past": 1, "load": 1}
    assert prepared.spec.skipped_rows == 1  # of the target
    past = scale_back(prepared, prepared.split("train").inputs["past"])
    mean = prepared.spec.inputs[0].state["fill"]
    # Row 4 is left out; row 5 has no value before it, and row 6 none before that.
    np.testing.assert_allclose(past[4, :2], [mean[0], LOADS[3]], atol=1e-4)
    np.testing.assert_allclose(past[5, :2], [LOADS[5], mean[1]], atol=1e-4)
    encoded = encode_rows(read(path, prepared, with_faults=False), prepared.spec, with_targets=False)
    np.testing.assert_allclose(scale_back(prepared, encoded.inputs["past"])[5, :2], past[4, :2], atol=1e-4)


def test_wrong_names_are_faults(tmp_path: Path) -> None:
    path = write_table(tmp_path / "loads.csv")
    with pytest.raises(BmcliError, match="no column 'laod'"):
        prepare_data(describe(path, inputs={"past": {"kind": "lags", "of": "laod"}}), tmp_path)
    with pytest.raises(BmcliError, match="input 'other' is made of 'load', but the data has a column 'other'"):
        prepare_data(describe(path, inputs={"other": {"kind": "lags", "of": "load"}}), tmp_path)


RECIPE = {
    "name": "loads",
    "data": {
        "source": {"kind": "csv", "path": "loads.csv"},
        "inputs": {"past": {"kind": "lags", "of": "load", "steps": [1, 2, 24]}, "other": "category"},
        "targets": {"load": "number"},
        "split": {"time": "hour"},
    },
    "model": {"kind": "mlp", "hidden": [8]},
    "train": {"epochs": 3, "batch_size": 16, "tensorboard": False},
}


def test_later_rows_are_predicted_as_they_were_evaluated(
    bmcli: Bmcli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (("BMCLI_CACHE", cache), ("BMCLI_RUNS", tmp_path / "runs")):
        monkeypatch.setenv(name, str(folder))
    write_table(tmp_path / "loads.csv")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

    def call(*arguments: object) -> Any:
        done = bmcli(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json()

    trained = call("train", "recipe.yaml")
    tested = ROWS // 10
    write_table(tmp_path / "later.csv", range(ROWS - tested - max(STEPS), ROWS))
    call("predict", "loads", "later.csv", "--output", "predicted.csv")
    call("export", "loads", "--formats", "saved_model,litert")
    exports = Path(trained["run"]) / "exports"
    card = json.loads((exports / "litert" / "card.json").read_text())
    assert card["verification"]["verified"], card["verification"]
    call("predict", exports / "litert", "later.csv", "--output", "served.csv")
    predicted, served = (
        np.array([float(row["load"]) for row in csv.DictReader((tmp_path / name).open(newline=""))])
        for name in ("predicted.csv", "served.csv")
    )
    np.testing.assert_allclose(served, predicted, rtol=1e-4, atol=1e-4)
    errors = np.abs(predicted[-tested:] - LOADS[-tested:])
    assert errors.mean() == pytest.approx(trained["metrics"]["test/mae"], rel=1e-4)


def test_a_kind_may_cut_windows_out_of_all_rows_that_share_one_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def derive(columns: Any, options: Any, times: Any) -> WindowedArray:
        values = np.asarray(to_numbers(columns[0]), "float32")
        return WindowedArray(np.concatenate([np.zeros(4, "float32"), values]), np.arange(len(values)), 4)

    monkeypatch.setattr(lags, "derive", derive)
    monkeypatch.setattr(lags, "fit", lambda name, rows, options: Column(name, "lags", (4,), "float32", (4,)))
    monkeypatch.setattr(lags, "encode", lambda rows, column: rows)
    prepared = prepare_data(describe(write_table(tmp_path / "loads.csv")), tmp_path)
    tested = prepared.split("test").inputs["past"]
    assert isinstance(tested, WindowedArray)
    assert len(tested.base) <= ROWS + 4
    np.testing.assert_allclose(np.asarray(tested)[0], LOADS[ROWS - len(tested) - 4 : ROWS - len(tested)], rtol=1e-6)
