"""Windows that a kind encodes: stored once for all splits, and opened as they were encoded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data import checks
from bmcli.data.preparation import encode_rows
from bmcli.data.sources import csv
from bmcli.data.targets import number as number_target
from bmcli.distillation.transfer_set import load_transfer_set
from bmcli.inputs import number
from bmcli.recipe.distill import DistillationOptions, TransferOptions
from bmcli.recipe.fields import PartField
from bmcli.specs import MANY_COLUMNS, SPLITS, Column, PreparedData
from bmcli.windows import WindowedArray
from tests.data.test_preparation import run

ROWS = 60
SERIES = np.random.default_rng(0).normal(size=(ROWS + 40, 1)).astype("float32")
_encode, _encode_target = number.encode, number_target.encode


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode columns called `position` as the four steps of the series from a position on, targets as the next two."""

    def encode(rows: Any, column: Column) -> Any:
        if not column.name.startswith("position"):
            return _encode(rows, column)
        return WindowedArray(SERIES, np.asarray(number.to_numbers(rows)).reshape(-1).astype("int64"), 4)

    def encode_target(rows: Any, column: Column) -> Any:
        return WindowedArray(SERIES[4:, 0], np.asarray(number.to_numbers(rows)).astype("int64"), 2)

    def fit(name: str, rows: Any, options: Any, _fit: Any = number_target.fit) -> Column:
        fitted: Column = _fit(name, rows, options)
        return Column(fitted.name, fitted.kind, (2,), "float32", state=fitted.state)

    def fit_input(name: str, rows: Any, options: Any, _fit: Any = number.fit) -> Column:
        fitted: Column = _fit(name, rows, options)
        return Column(name, "number", (4, 1), "float32", (4, 1), state=fitted.state) if "position" in name else fitted

    for kind, name, function in (
        (number, "encode", encode), (number, "fit", fit_input),
        (number_target, "encode", encode_target), (number_target, "fit", fit),
    ):  # fmt: skip
        monkeypatch.setattr(kind, name, function)


def prepare_series(tmp_path: Path, cache: Path, columns: int = 1) -> PreparedData:
    """Prepare rows whose positions are 20 to 79 in some order, beside other columns."""
    names = ["position", *(f"x{n}" for n in range(columns)), "y", "split"]
    lines = [",".join(names)]
    for row in range(ROWS):
        position = 20 + row * 7 % ROWS
        numbers = [f"{row * (n + 1) % 11}" for n in range(columns)]
        lines.append(",".join([str(position), *numbers, str(position), SPLITS[min(row % 5, 2)]]))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    source = {"kind": "csv", "path": str(tmp_path / "t.csv")}
    return run(cache, source=source, targets={"y": {"kind": "number"}}, split={"column": "split"})


def expected_positions(split: str) -> list[int]:
    return [20 + row * 7 % ROWS for row in range(ROWS) if SPLITS[min(row % 5, 2)] == split]


@pytest.mark.parametrize("columns", [1, MANY_COLUMNS])
def test_the_windows_of_all_splits_share_one_stored_base(tmp_path: Path, cache: Path, columns: int) -> None:
    prepared = prepare_series(tmp_path, cache, columns)
    for split in SPLITS:
        rows, positions = prepared.split(split), expected_positions(split)
        assert len(rows) == len(positions)
        assert isinstance(rows.inputs["position"], WindowedArray)
        assert isinstance(rows.inputs["position"].base, np.memmap)
        np.testing.assert_array_equal(rows.inputs["position"], [SERIES[place : place + 4] for place in positions])
        np.testing.assert_array_equal(rows.targets["y"], [SERIES[place + 4 : place + 6, 0] for place in positions])
        assert rows.inputs["x0"].shape == (len(rows), 1)
    bases = {
        path.relative_to(prepared.folder).as_posix(): np.load(path) for path in prepared.folder.rglob("*-base.npy")
    }
    assert list(bases["inputs-0-base.npy"].shape) == [63, 1], "the part of the series that the rows use"
    assert set(bases) == {"inputs-0-base.npy", "targets-0-base.npy"}
    starts = np.load(prepared.folder / "train" / "inputs-0.npy")
    assert (starts.dtype, starts.tolist()) == ("int32", [place - 20 for place in expected_positions("train")])


def test_other_rows_are_encoded_as_windows(tmp_path: Path, cache: Path) -> None:
    prepared = prepare_series(tmp_path, cache)
    (tmp_path / "new.csv").write_text("position,x0\n0,1\n50,2\n")
    rows = encode_rows(csv.read(csv.Options(path=str(tmp_path / "new.csv"))), prepared.spec, with_targets=False)
    np.testing.assert_array_equal(rows.inputs["position"], [SERIES[:4], SERIES[50:54]])


def test_a_fault_names_the_row_of_the_source(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = number.encode

    def refuse(rows: Any, column: Column) -> Any:
        encoded = inner(rows, column)
        if column.name == "position" and len(rows) == ROWS:
            raise number.RowFault(ROWS - 1, "expected another position.")
        return encoded

    monkeypatch.setattr(number, "encode", refuse)
    with pytest.raises(Exception, match=r"t\.csv:61  column 'position': expected another position"):
        prepare_series(tmp_path, cache)


def test_checks_compare_windows_as_rows(tmp_path: Path, cache: Path) -> None:
    prepared = prepare_series(tmp_path, cache)
    head = checks._load_head(prepared.split("train"), None)
    assert checks._hash_rows(head)[3] == np.frombuffer(
        hashlib.blake2b(
            b"".join(np.asarray(head.inputs[name][3]).tobytes() for name in prepared.split("train").inputs),
            digest_size=8,
        ).digest(),
        "uint64",
    )
    checks.check_prepared(prepared)


def test_a_transfer_set_keeps_windows(tmp_path: Path, cache: Path) -> None:
    prepared = prepare_series(tmp_path, cache)
    (tmp_path / "more.csv").write_text("position,x0\n0,1\n50,2\n")
    unlabelled = PartField("data.sources").check({"kind": "csv", "path": str(tmp_path / "more.csv")})
    losses = (PartField("distillation.losses").check({"kind": "hard"}),)
    options = DistillationOptions(losses=losses, transfer=TransferOptions(unlabelled=unlabelled))
    recipe: Any = None  # not used without teachers
    made = load_transfer_set(recipe, options, prepared, None, cache)
    rows, train = made.prepared.split("train"), prepared.split("train")
    positions = expected_positions("train")
    assert isinstance(rows.inputs["position"], WindowedArray)
    assert isinstance(rows.targets["y"], WindowedArray)
    np.testing.assert_array_equal(rows.inputs["position"], [SERIES[place : place + 4] for place in [*positions, 0, 50]])
    np.testing.assert_array_equal(rows.targets["y"][: len(train)], train.targets["y"])
    np.testing.assert_array_equal(rows.targets["y"][-1], train.targets["y"][0])
    assert rows.inputs["x0"].shape == (len(positions) + 2, 1)
