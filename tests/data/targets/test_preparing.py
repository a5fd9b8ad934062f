"""Targets of every kind from a file to arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data.preparation import encode_rows
from bmcli.data.sources import csv
from bmcli.errors import BmcliError
from bmcli.specs import SPLITS, DataSpec
from tests.data.conftest import cache, file
from tests.data.test_preparation import faults, run

__all__ = ["cache", "file"]  # the fixtures

GRADES = ("poor", "fair", "good")
TAGS = ("", "red", "round; red", "round")


def table(path: Path, **data: Any) -> dict[str, Any]:
    lines = [f"{n},{GRADES[n % 3]},{TAGS[n % 4]},{n % 7},{n / 10}\n" for n in range(90)]
    path.write_text("x,grade,tags,visits,price\n" + "".join(lines))
    return {"source": {"kind": "csv", "path": str(path)}, "inputs": {"x": "number"}, **data}


def test_each_kind_is_encoded_in_its_own_form(cache: Path, file: Path) -> None:
    targets = {
        "grade": {"kind": "ordered", "classes": GRADES},
        "tags": "labels",
        "visits": "count",
        "price": {"kind": "number", "scale": "log"},
    }
    prepared = run(cache, **table(file, targets=targets))
    assert prepared.spec.stratified_by is None
    for split in SPLITS:
        rows = prepared.split(split)
        x = np.rint(prepared.spec.input("x").state["offset"][0] + rows.inputs["x"][:, 0] * _scale(prepared)).astype(int)
        np.testing.assert_array_equal(rows.targets["grade"], x % 3)
        np.testing.assert_array_equal(rows.targets["tags"], np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[x % 4])
        np.testing.assert_array_equal(rows.targets["visits"], x % 7)
        assert rows.targets["price"].dtype == np.float32


def _scale(prepared: Any) -> float:
    return float(prepared.spec.input("x").state["scale"][0])


def test_splits_keep_the_proportions_of_ordered_categories(cache: Path, file: Path) -> None:
    prepared = run(cache, **table(file, targets={"grade": {"kind": "ordered", "classes": GRADES}}))
    assert prepared.spec.stratified_by == "grade"
    for split in SPLITS:
        counts = np.bincount(prepared.split(split).targets["grade"])
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("targets", "broken", "message"),
    [
        (
            {"tags": {"kind": "labels", "classes": ("red",)}},
            {},
            "column 'tags': expected labels of the training rows, received 'round'",
        ),
        ({"visits": "count"}, {"3,poor,round,3,0.3": "3,poor,round,-3,0.3"}, ":5  column 'visits': expected a whole"),
        ({"price": {"kind": "number", "scale": "log"}}, {",0.3\n": ",-1.5\n"}, ":5  column 'price': expected a number"),
        ({"grade": "ordered"}, {}, "the order of its 3 categories is not known"),
    ],
    ids=["labels", "count", "number", "ordered"],
)
def test_a_cell_that_cannot_be_learned_is_named_by_its_line(
    cache: Path, file: Path, targets: dict[str, Any], broken: dict[str, str], message: str
) -> None:
    data = table(file, targets=targets, split={"train": 0.98, "test": 0.02})
    text = file.read_text()
    for old, new in broken.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    (fault,) = faults(cache, **data)
    assert message in fault.message


SPORT, ART = np.arange(90) % 2, np.arange(90) // 2 % 2
TOPICS = {"topics": {"kind": "labels", "columns": ("sport", "art")}}


def topics(path: Path, **data: Any) -> dict[str, Any]:
    """90 rows with a column for each of two labels; x counts them."""
    lines = [f"{n},{n % 7},{('no', 'Yes')[SPORT[n]]},{ART[n]}\n" for n in range(90)]
    path.write_text("x,z,sport,art\n" + "".join(lines))
    return {"source": {"kind": "csv", "path": str(path)}, "targets": TOPICS, **data}


def test_columns_of_labels_are_the_target_and_no_inputs(cache: Path, file: Path) -> None:
    prepared = run(cache, **topics(file, inputs=None))
    assert [column.name for column in prepared.spec.inputs] == ["x", "z"]
    assert prepared.spec.target("topics").classes == ("sport", "art")
    state = prepared.spec.input("x").state
    for split in SPLITS:
        rows = prepared.split(split)
        x = np.rint(state["offset"][0] + rows.inputs["x"][:, 0] * state["scale"][0]).astype(int)
        np.testing.assert_array_equal(rows.targets["topics"], np.stack([SPORT[x], ART[x]], axis=1))


def test_a_new_table_is_encoded_by_the_columns_of_labels(cache: Path, file: Path) -> None:
    spec = DataSpec.from_json(json.loads(json.dumps(run(cache, **topics(file)).spec.to_json())))
    rows = csv.read(csv.Options(path=str(file)))
    encoded = encode_rows(rows, spec, with_targets=True)
    np.testing.assert_array_equal(encoded.targets["topics"], np.stack([SPORT, ART], axis=1))
    file.write_text("x,z,sport\n1,2,1\n")
    rows = csv.read(csv.Options(path=str(file)))
    assert set(encode_rows(rows, spec, with_targets=False).inputs) == {"x", "z"}
    with pytest.raises(BmcliError, match="no column 'art'"):
        encode_rows(rows, spec, with_targets=True)


def test_what_the_columns_of_labels_are_called_decides_nothing_but_the_labels(cache: Path, file: Path) -> None:
    by_hash = {"split": {"hash": True}}
    plain = run(cache, **topics(file, **by_hash))
    alone = run(cache, **topics(file, targets={"sport": "category"}, inputs={"x": "number"}, **by_hash))
    assert plain.spec.counts == alone.spec.counts
    assert plain.spec.key != run(cache, **topics(file, targets=_of("art", "sport"), **by_hash)).spec.key


def _of(*columns: str) -> dict[str, Any]:
    return {"topics": {"kind": "labels", "columns": columns}}


def test_a_sample_or_strata_may_be_by_one_of_the_labels(cache: Path, file: Path) -> None:
    prepared = run(cache, **topics(file, sample={"balance": "sport"}, split={"stratify": "art"}))
    assert prepared.spec.stratified_by == "art"
    counts = prepared.split("train").targets["topics"][:, 0]
    assert counts.sum() * 2 == len(counts)


def test_a_bad_label_follows_the_policy(cache: Path, file: Path) -> None:
    data = topics(file)
    for old, new in {"\n3,3,Yes,1\n": "\n3,3,perhaps,1\n", "\n8,1,no,0\n": "\n8,1,no,\n"}.items():
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    (fault,) = faults(cache, **data)
    assert fault.message == f"{file}:5  column 'topics': expected yes or no for 'sport', received 'perhaps'."
    changed = file.read_text()
    for policy in ("skip", "fill"):
        data = topics(file, invalid=policy)
        file.write_text(changed)
        spec = run(cache, **data).spec
        assert (spec.invalid_cells, spec.skipped_rows, sum(spec.counts.values())) == ({"topics": 2}, 2, 88)


@pytest.mark.parametrize(
    ("targets", "data", "message", "path"),
    [
        (_of("sport", "arts"), {}, "no column 'arts'. Did you mean 'art'?", "data.targets.topics.columns.1"),
        ({"z": {"kind": "labels", "columns": ("sport", "art")}}, {"inputs": {"x": "number"}},
         "the data also has a column 'z'", "data.targets.z"),
    ],
)  # fmt: skip
def test_columns_of_labels_must_be_there_and_the_name_free(
    cache: Path, file: Path, targets: Any, data: Any, message: str, path: str
) -> None:
    (fault,) = faults(cache, **topics(file, **{**data, "targets": targets}))
    assert (message in f"{fault.message} {fault.suggestion}", fault.path) == (True, path)


@pytest.mark.parametrize(("kind", "what"), [("labels", "with this label"), ("category", "of this class")])
def test_what_only_test_rows_have_is_a_fault_whose_next_step_helps(
    cache: Path, file: Path, kind: str, what: str
) -> None:
    lines = [f"{n},{('red', 'round')[n % 2]},{'test' if n % 4 == 0 else 'train'}\n" for n in range(90)]
    file.write_text("x,tags,split\n" + "".join(lines) + "90,small,test\n")
    data = {
        "source": {"kind": "csv", "path": str(file)}, "inputs": {"x": "number"}, "split": {"column": "split"},
    }  # fmt: skip
    (fault,) = faults(cache, **data, targets={"tags": kind})
    assert "of the training rows, received 'small'." in fault.message
    assert fault.suggestion.endswith(
        f"ut a row {what} into the training rows, or list those to learn in `classes` and write `invalid: skip` to "
        "leave out the rows of others."
    )
    prepared = run(cache, **data, targets={"tags": {"kind": kind, "classes": ("red", "round")}}, invalid="skip")
    assert (prepared.spec.skipped_rows, prepared.spec.counts["test"]) == (1, 23)
