"""Fitted state depends on the training rows only, for every kind of input and every splitter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli import parts
from bmcli.data.preparation import prepare
from bmcli.data.sources import SourceRows, csv
from bmcli.data.splitting import splits
from bmcli.raw_columns import RawColumn
from bmcli.recipe.data import DataOptions
from bmcli.specs import PreparedData

ROWS = 200
DICE = np.random.default_rng(0)
WORDS = ("apple", "pear", "plum", "fig", "quince")


def picked(cells: Any) -> list[Any]:
    return [cells[number] for number in DICE.integers(0, len(cells), ROWS)]


@dataclass(frozen=True)
class Case:
    """A column of ordinary cells, and a cell that would show in what is fitted to it."""

    kind: str
    cells: list[Any]
    extreme: Any
    options: dict[str, Any] = field(default_factory=dict)

    def rows(self, places: set[int]) -> RawColumn:
        """The column with the extreme cell at some rows."""
        cells = [self.extreme if row in places else cell for row, cell in enumerate(self.cells)]
        if isinstance(cells[0], np.ndarray):
            return np.stack(cells).astype("uint8")
        return pa.chunked_array([pa.array(cells, pa.string())])

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}


def numbers(**options: Any) -> Case:
    return Case("number", picked([str(number / 7) for number in range(40)]), "-1e30", options)


def dates(**options: Any) -> Case:
    return Case("date", picked([f"2024-05-{day:02d}" for day in range(1, 31)]), "2999-12-31T23:59:59", options)


def categories(**options: Any) -> Case:
    return Case("category", picked(WORDS), "Atlantis", options)


def texts(**options: Any) -> Case:
    pairs = zip(picked(WORDS), picked(WORDS), strict=True)
    return Case("text", [" ".join(words) for words in pairs], "zeppelin zeppelin and a long text", options)


INPUTS = {
    "boolean": Case("boolean", picked(["yes", "no"]), None),
    "category": categories(),
    "categories, the most frequent": categories(max_categories=4),
    "categories, not the rare ones": categories(min_count=2),
    "categories, several in a cell": Case("category", picked(["a;b", "c", "b;c;d"]), "x;y;z;a;b;c", {"separator": ";"}),
    "date": dates(),
    "date in a format": dates(format="iso"),
    "image": Case(
        "image", list(DICE.integers(90, 110, (ROWS, 4, 4, 1), "uint8")), np.full((4, 4, 1), 255), {"scale": "standard"}
    ),
    "number": numbers(),
    "number, minmax": numbers(scale="minmax"),
    "number, quantile": numbers(scale="quantile"),
    "number, logarithm": numbers(log=True),
    "number, bins": numbers(bins=4),
    "number, bins of one width": numbers(bins=4, binning="uniform"),
    "number, median": Case("number", picked(["1", "2", "7", None]), "9", {"missing": "median", "scale": "none"}),
    "text": texts(),
    "text, sequence": texts(encoding="sequence"),
    "text, bag of characters": texts(encoding="bag", tokens="characters"),
}
TARGETS = {
    "price": Case("number", picked([str(number) for number in range(40)]), "1e9"),
    "visits": Case("count", picked([str(number) for number in range(40)]), "1000000"),
}
OTHERS = {"id": np.arange(ROWS)} | {name: DICE.integers(0, n, ROWS) for name, n in (("who", 40), ("at", 150), ("y", 3))}
WAYS: dict[str, dict[str, Any]] = {
    "by chance": {},
    "stratified": {"stratify": "y"},
    "by group": {"group": "who"},
    "by group, stratified": {"group": "who", "stratify": "y"},
    "by time": {"time": "at"},
    "by hash": {"hash": ("id",)},
}


def columns(places: set[int]) -> dict[str, RawColumn]:
    """Every column, with the extreme cells at some rows."""
    return {**OTHERS, **{name: case.rows(places) for name, case in {**INPUTS, **TARGETS}.items()}}


def options_of(path: Path, split: dict[str, Any], sample: Any) -> DataOptions:
    described = {
        "source": {"kind": "csv", "path": str(path)},
        "split": split,
        "inputs": {name: case.described() for name, case in INPUTS.items()},
        "targets": {name: case.described() for name, case in TARGETS.items()},
        "sample": sample,
    }
    return DataOptions.model_validate(described)


def test_every_kind_of_input_is_among_the_columns() -> None:
    # Cells of lags are those of earlier rows, in whichever split these are.
    assert {case.kind for case in INPUTS.values()} == set(parts.names("inputs")) - {"lags"}


@pytest.mark.parametrize("name", INPUTS)
def test_each_extreme_would_show_if_it_were_looked_at(name: str) -> None:
    case = INPUTS[name]
    part, some = parts.load("inputs", case.kind), set(range(ROWS // 3))
    plain, other = (part.fit("x", case.rows(places), part.Options(**case.options)) for places in (set(), some))
    assert plain != other


@pytest.mark.parametrize(("way", "sample"), [*((way, None) for way in WAYS), ("by chance", 0.5)])
def test_extremes_in_validation_and_test_rows_leave_every_fitted_number_unchanged(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, sample: Any
) -> None:
    def prepared(name: str, places: set[int]) -> PreparedData:
        path = tmp_path / name
        path.write_text(name)
        monkeypatch.setattr(csv, "read", lambda _: SourceRows(columns(places), None, lambda row: f"{name}:{row}"))
        data = options_of(path, WAYS[way], sample)
        return prepare(data, data.targets_by_name(), 1, cache)

    data = options_of(tmp_path, WAYS[way], sample)
    assigned = splits.split_rows(SourceRows(columns(set()), None, str), data, data.targets_by_name(), 1).indices
    unseen = set(range(ROWS)) - set(assigned["train"].tolist())
    assert len(unseen) > 20
    plain = prepared("plain.csv", set())
    other = prepared("planted.csv", unseen)
    assert other.spec.fingerprint != plain.spec.fingerprint
    assert other.spec.counts == plain.spec.counts
    assert other.spec.inputs == plain.spec.inputs
    assert other.spec.targets == plain.spec.targets
    for column in plain.spec.inputs:
        before, after = (each.split("train").inputs[column.name] for each in (plain, other))
        np.testing.assert_array_equal(after, before)
