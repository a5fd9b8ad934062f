"""Cells that cannot be read: the policy of `data.invalid`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli import parts
from bmcli.data import invalid
from bmcli.data.resolution import resolve_options
from bmcli.errors import BmcliError
from bmcli.raw_columns import RowFault
from bmcli.recipe.data import DataOptions
from tests.data.test_preparation import run

INPUTS = {"x": "number", "yes": "boolean"}
BAD_X, BAD_YES, BAD_Y, BAD_W = {3, 17}, {17, 20}, {30}, {31}


def table(path: Path, **data: Any) -> dict[str, Any]:
    """60 rows, of which some cells of every column cannot be read."""
    lines = []
    for n in range(60):
        x = "abc" if n in BAD_X else "" if n == 5 else str(n)
        yes = "perhaps" if n in BAD_YES else ["no", "yes"][n % 2]
        y, w = "" if n in BAD_Y else "ab"[n % 2], "-1" if n in BAD_W else "1"
        lines.append(f"{x},{yes},{w},{'test' if n % 5 == 0 else 'train'},{n},{y}\n")
    path.write_text("x,yes,w,split,n,y\n" + "".join(lines))
    source = {"kind": "csv", "path": str(path)}
    inputs = {**INPUTS, "n": {"kind": "number", "scale": "none"}}
    usual = {"source": source, "inputs": inputs, "targets": {"y": "category"}, "weight": "w"}
    return {**usual, "split": {"column": "split"}, **data}


def kept(prepared: Any) -> set[int]:
    return {int(n) for split in ("train", "test") for n in prepared.split(split).inputs["n"][:, 0]}


def test_stop_reports_the_first_unreadable_cell_of_every_column(cache: Path, file: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        run(cache, **table(file, weight=None, drop=("w",)))
    assert [fault.message.removeprefix(str(file)) for fault in caught.value.faults] == [
        ":5  column 'x': expected a number, received 'abc'. 2 cells are no better: 'abc' (2).",
        ":19  column 'yes': expected yes or no, received 'perhaps'. 2 cells are no better: 'perhaps' (2).",
        ":32  column 'y': expected a class, received nothing.",
    ]


def test_skip_leaves_the_rows_out_and_counts_them(cache: Path, file: Path) -> None:
    prepared = run(cache, **table(file, invalid="skip"))
    bad = BAD_X | BAD_YES | BAD_Y | BAD_W
    assert kept(prepared) == set(range(60)) - bad
    assert prepared.spec.invalid_cells == {"x": 2, "yes": 2, "y": 1, "w": 1}
    assert prepared.spec.skipped_rows == len(bad) == 5
    assert sum(prepared.spec.counts.values()) == 55
    assert type(prepared.spec).from_json(prepared.spec.to_json()) == prepared.spec


def test_fill_takes_cells_of_inputs_for_missing_and_skips_the_others(cache: Path, file: Path) -> None:
    prepared = run(cache, **table(file, invalid="fill"))
    assert kept(prepared) == set(range(60)) - BAD_Y - BAD_W
    assert prepared.spec.invalid_cells == {"x": 2, "yes": 2, "y": 1, "w": 1}
    assert prepared.spec.skipped_rows == 2
    train = prepared.split("train")
    place = {int(n): row for row, n in enumerate(train.inputs["n"][:, 0])}
    assert (train.inputs["x"][[place[3], place[17]], 0] == 0).all()  # the mean
    assert train.inputs["yes"][place[17]].tolist()[1] == 1  # flagged


def test_what_fill_cannot_fill_is_skipped(cache: Path, file: Path) -> None:
    inputs = {**INPUTS, "x": {"kind": "number", "missing": "fault"}, "n": {"kind": "number", "scale": "none"}}
    prepared = run(cache, **table(file, inputs=inputs, invalid="fill"))
    assert kept(prepared) == set(range(60)) - BAD_X - BAD_Y - BAD_W - {5}


def test_rows_that_are_left_out_have_no_part_in_what_is_fitted(cache: Path, file: Path, tmp_path: Path) -> None:
    skipped = run(cache, **table(file, invalid="skip", split={"train": 0.8}))
    lines = file.read_text().splitlines(keepends=True)
    bad = BAD_X | BAD_YES | BAD_Y | BAD_W
    clean = tmp_path / "clean.csv"
    options = table(clean, split={"train": 0.8})
    clean.write_text("".join(line for n, line in enumerate(lines, start=-1) if n not in bad))
    whole = run(cache, **options)
    assert skipped.spec.inputs == whole.spec.inputs
    assert skipped.spec.counts == whole.spec.counts
    for split in skipped.spec.counts:
        for name, array in skipped.split(split).inputs.items():
            np.testing.assert_array_equal(array, whole.split(split).inputs[name])


def test_nothing_is_counted_where_nothing_is_wrong(cache: Path, file: Path) -> None:
    spec = run(
        cache, **table(file, inputs={"n": "number"}, targets={"yes": "category"}, weight=None, invalid="skip")
    ).spec
    assert (spec.invalid_cells, spec.skipped_rows) == ({}, 0)


def test_no_row_left_is_a_fault(cache: Path, file: Path) -> None:
    with pytest.raises(BmcliError, match=r"no row is left.*in column 'yes'"):
        run(cache, **table(file, inputs={"yes": "number"}, invalid="skip"))


def test_a_place_is_that_of_the_file_after_rows_were_left_out(cache: Path, file: Path) -> None:
    data = table(file, invalid="skip")
    file.write_text(file.read_text().rstrip("\n") + "\n1,yes,1,test,60,c\n")
    with pytest.raises(BmcliError) as caught:
        run(cache, **data)
    assert (
        caught.value.faults[0].message == f"{file}:62  column 'y': expected a class of the training rows, received 'c'."
    )


def test_every_bad_cell_of_a_long_column_is_found(cache: Path, file: Path) -> None:
    bad = set(range(0, 3000, 7))
    file.write_text("x,y\n" + "".join(f"{'bad' if n in bad else n},{'ab'[n % 2]}\n" for n in range(3000)))
    source = {"kind": "csv", "path": str(file)}
    spec = run(cache, source=source, inputs={"x": "number"}, targets={"y": "category"}, invalid="skip").spec
    assert spec.skipped_rows == len(bad)


def test_the_policy_is_part_of_the_key_and_stays_when_resolved(cache: Path, file: Path) -> None:
    options = DataOptions.model_validate(table(file, invalid="skip"))
    skipped, filled = (run(cache, **table(file, invalid=way)) for way in ("skip", "fill"))
    assert skipped.spec.key != filled.spec.key
    again = resolve_options(options, options.targets_by_name(), skipped.spec)
    assert (again.invalid, again.source.delimiter, again.source.encoding) == ("skip", ",", "utf-8")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("room", "kind"), [(room, kind) for room in ("inputs", "data.targets") for kind in parts.names(room)]
)
def test_every_kind_can_check_its_cells(room: str, kind: str) -> None:
    assert callable(parts.load(room, kind).check)


def test_a_fault_of_the_policy_is_one_of_cells_alone() -> None:
    def check(column: Any) -> None:
        raise RowFault(0, "never")

    assert invalid.find_unreadable(np.arange(3), check).all()


def test_ragged_records_stop_or_are_left_out_and_counted(cache: Path, file: Path) -> None:
    data = table(file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:10], "1,yes\n", *lines[10:], "1,yes,1,train,60,a,b,c\n"]))
    with pytest.raises(BmcliError, match=r":11  expected 6 cells, received 2\."):
        run(cache, **data)
    for policy in ("skip", "fill"):
        whole = run(cache, **table(file, invalid=policy)).spec
        file.write_text("".join([*lines[:10], "1,yes\n", *lines[10:], "1,yes,1,train,60,a,b,c\n"]))
        spec = run(cache, **{**data, "invalid": policy}).spec
        assert (spec.malformed_records, whole.malformed_records) == (2, 0)
        assert (spec.inputs, spec.counts, spec.invalid_cells) == (whole.inputs, whole.counts, whole.invalid_cells)
        assert type(spec).from_json(spec.to_json()) == spec
