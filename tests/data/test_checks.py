"""Planted problems are found, and clean data passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bmcli.data import checks
from bmcli.data.checks import Finding, check_prepared
from bmcli.data.preparation import prepare
from bmcli.recipe.data import DataOptions

Check = Callable[..., list[Finding]]
ROWS = 400


def table(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Two numbers and a category, with a target that they predict in part."""
    dice = np.random.default_rng(0)
    size, age, town = dice.normal(size=ROWS), dice.normal(size=ROWS), dice.choice(list("abc"), ROWS)
    paid = np.where(size + dice.normal(size=ROWS) > 0, "yes", "no")
    split = dice.choice(["train", "validation", "test"], ROWS, p=[0.6, 0.2, 0.2])
    return {"size": size, "age": age, "town": town, "paid": paid, "split": split, **changes}


@pytest.fixture
def check(tmp_path: Path, cache: Path) -> Check:
    def find(columns: dict[str, np.ndarray], kind: str = "category") -> list[Finding]:
        lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / "t.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
        options = DataOptions.model_validate(
            {
                "source": {"kind": "csv", "path": str(tmp_path / "t.csv")},
                "split": {"column": "split"},
                "targets": {"paid": {"kind": kind}},
            }
        )
        return list(check_prepared(prepare(options, options.targets_by_name(), 0, cache)))

    return find


def only(found: list[Finding], kind: str) -> Finding:
    assert [each.check for each in found] == [kind], [str(each) for each in found]
    return found[0]


def test_clean_data_is_not_suspected(check: Check) -> None:
    assert check(table()) == []


def test_numbers_of_groups_that_are_in_several_splits_are_found(check: Check) -> None:
    rows = table(patient_id=np.arange(ROWS) // 10)
    found = only(check(rows), "groups")
    assert found.numbers["column"] == "patient_id"
    assert found.numbers["split"] == "validation"
    whole = np.array(["train", "validation", "test"])[np.arange(ROWS) // 10 % 3]
    assert [each for each in check({**rows, "split": whole}) if each.check == "groups"] == []
    assert check(table(rooms=np.arange(ROWS) // 10 * 7 % 40)) == []


def test_a_planted_leak_is_found(check: Check) -> None:
    rows = table()
    noise = np.random.default_rng(1).normal(size=ROWS) / 10
    found = only(check({**rows, "fee": (rows["paid"] == "yes") + noise}), "leak")
    assert found.numbers["column"] == "fee"
    assert found.numbers["predictability"] > 0.97
    assert "data.drop: [fee]" in found.suggestion


def test_a_planted_leak_of_a_number_is_found(check: Check) -> None:
    rows = table()
    price = 10 * rows["size"] + 3 * np.random.default_rng(1).normal(size=ROWS)
    assert check({**rows, "paid": price}, "number") == []
    found = only(check({**rows, "paid": price, "with_tax": 1.2 * price}, "number"), "leak")
    assert found.numbers["column"] == "with_tax"


def test_an_identifier_is_no_leak(check: Check) -> None:
    assert check({**table(), "id": np.arange(ROWS) * 3.5}) == []


def test_planted_duplicates_across_splits_are_found_and_counted(check: Check) -> None:
    rows = table()
    train, test = (np.flatnonzero(rows["split"] == name) for name in ("train", "test"))
    source = np.arange(ROWS)
    source[test[:7]] = train[:7]
    copied = {name: column if name == "split" else column[source] for name, column in rows.items()}
    found = only(check(copied), "duplicates")
    assert (found.numbers["split"], found.numbers["rows"]) == ("test", 7)
    assert f"of the test rows (7 of {len(test)}) have the same inputs as a training row" in found.message


def test_planted_conflicts_are_found_and_counted(check: Check) -> None:
    rows = table()
    train = np.flatnonzero(rows["split"] == "train")
    source = np.arange(ROWS)
    source[train[:5]] = train[5:10]
    copied = {name: column if name == "split" else column[source] for name, column in rows.items()}
    paid = copied["paid"].copy()
    paid[train[:5]] = np.where(paid[train[5:10]] == "yes", "no", "yes")
    found = only(check({**copied, "paid": paid}), "conflicts")
    assert (found.numbers["rows"], found.numbers["groups"]) == (10, 5)


def test_planted_drift_is_found_in_numbers_and_categories(check: Check) -> None:
    rows = table()
    test = rows["split"] == "test"
    found = only(check({**rows, "age": rows["age"] + 2 * test}), "drift")
    assert (found.numbers["column"], found.numbers["split"]) == ("age", "test")
    found = only(check({**rows, "town": np.where(test, "c", rows["town"])}), "drift")
    assert (found.numbers["column"], found.numbers["split"]) == ("town", "test")


def test_rare_classes_are_reported(check: Check) -> None:
    rows = table()
    paid = np.where(np.arange(ROWS) % 40 == 0, "yes", "no")
    found = only(check({**rows, "paid": paid}), "imbalance")
    assert found.numbers["rare"] == "yes"
    assert f"{found.numbers['rows']} of {found.numbers['of']} training rows" in found.message


def test_of_large_splits_the_first_rows_are_looked_at(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    source = np.where(np.arange(ROWS) > 300, np.arange(ROWS) - 100, np.arange(ROWS))
    rows |= {name: rows[name][source] for name in ("size", "age", "town")}
    assert {each.check for each in check(rows)} >= {"duplicates", "conflicts"}
    monkeypatch.setattr(checks, "MAX_ROWS", 20)
    assert "duplicates" not in {each.check for each in check(rows)}
