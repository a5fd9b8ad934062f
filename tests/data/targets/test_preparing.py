"""Targets of every kind from a file to arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.specs import SPLITS
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
    assert prepared.spec.stratified is None
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
    assert prepared.spec.stratified == "grade"
    for split in SPLITS:
        counts = np.bincount(prepared.split(split).targets["grade"])
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("targets", "broken", "message"),
    [
        (
            {"tags": {"kind": "labels", "classes": ("red",)}},
            {},
            "column 'tags': 'round' is a label absent from training",
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
