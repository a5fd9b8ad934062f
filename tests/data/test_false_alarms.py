"""Warnings can be believed: random tables without faults have hardly any, and real faults are still found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.commands.plan import list_warnings
from bmcli.data.checks import Finding, check_prepared
from bmcli.data.preparation import prepare
from bmcli.recipe.data import DataOptions
from bmcli.specs import PreparedData

Columns = dict[str, np.ndarray]
Prepare = Callable[..., PreparedData]
_PARAMETERS = 1000


@pytest.fixture
def prepared(tmp_path: Path, cache: Path) -> Prepare:
    """Prepare columns, of which `y` is the target, with a random split unless `options` say otherwise."""

    def call(columns: Columns, kind: str = "category", seed: int = 0, **options: Any) -> PreparedData:
        lines = [",".join(map(str, row)) for row in zip(*(each.tolist() for each in columns.values()), strict=True)]
        (tmp_path / "rows.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
        source = {"kind": "csv", "path": str(tmp_path / "rows.csv")}
        data = DataOptions.model_validate({"source": source, "targets": {"y": kind}, **options})
        return prepare(data, data.targets_by_name(), seed, cache)

    return call


def draw_words(dice: np.random.Generator, rows: int, count: int, power: float) -> np.ndarray:
    """Draw one of `count` words for each row, whose frequencies fall with a power of their rank."""
    shares = np.arange(1.0, count + 1) ** -power
    return np.char.add("w", dice.choice(count, rows, p=shares / shares.sum()).astype(str))


def draw_column(dice: np.random.Generator, rows: int) -> np.ndarray:
    """Draw a column of a random sort: numbers, amounts, counts, categories, users or booleans."""
    sort = dice.integers(7)
    if sort == 0:
        return dice.normal(size=rows).round(4)
    if sort == 1:
        return dice.lognormal(3, 1, rows).round(0)
    if sort == 2:
        return dice.poisson(dice.uniform(0.2, 9), rows)
    if sort == 3:
        return draw_words(dice, rows, int(dice.integers(2, 40)), dice.uniform(0, 2))
    if sort == 4:
        return draw_words(dice, rows, int(rows * dice.uniform(0.1, 0.45)), dice.uniform(0, 0.7))
    if sort == 5:
        return np.where(dice.random(rows) < dice.uniform(0.02, 0.98), "yes", "no")
    return np.array([f"c{n % 40:02}" for n in dice.integers(0, 1600, rows) // 40])


def draw_table(seed: int) -> tuple[Columns, str]:
    """Draw a table whose target follows in part from one of its numbers; also return the kind of the target."""
    dice = np.random.default_rng(seed)
    rows = int(dice.choice([1000, 1500, 2500]))
    columns = {f"c{number}": draw_column(dice, rows) for number in range(dice.integers(1, 8))}
    columns["base"] = dice.normal(size=rows).round(3)
    signal = columns["base"] + dice.normal(size=rows)
    if seed % 3 == 0:
        return {**columns, "y": signal.round(3)}, "number"
    edges = np.quantile(signal, np.arange(1, dice.integers(2, 5)) / 4)
    return {**columns, "y": np.char.add("k", np.searchsorted(edges, signal).astype(str))}, "category"


def find_warnings(data: PreparedData) -> list[str]:
    """Return the warnings of the checks before training, and those of `bmcli plan`."""
    return [*map(str, check_prepared(data)), *list_warnings(data, _PARAMETERS)]


def count_alarms(prepared: Prepare, tables: int) -> list[list[str]]:
    """Return the warnings of each table that has any."""
    found = []
    for seed in range(tables):
        columns, kind = draw_table(seed)
        found.append(find_warnings(prepared(columns, kind, seed)))
    return [warnings for warnings in found if warnings]


def test_few_of_some_tables_without_faults_warn(prepared: Prepare) -> None:
    alarms = count_alarms(prepared, 16)
    assert len(alarms) <= 1, alarms


@pytest.mark.slow
def test_fewer_than_one_in_twenty_tables_without_faults_warn(prepared: Prepare) -> None:
    alarms = count_alarms(prepared, 200)
    assert len(alarms) < 10, alarms


def drifts(data: PreparedData) -> list[Finding]:
    return [finding for finding in check_prepared(data) if finding.check == "drift"]


@pytest.mark.parametrize("rows_per_user", [1.5, 2.5, 8])
def test_many_users_in_a_random_split_are_no_drift(prepared: Prepare, rows_per_user: float) -> None:
    dice = np.random.default_rng(1)
    rows = int(1300 * rows_per_user)
    users = np.char.add("user", dice.integers(0, 1300, rows).astype(str))
    columns = {"user": users, "x": dice.normal(size=rows), "y": np.char.add("k", dice.integers(0, 2, rows).astype(str))}
    assert drifts(prepared(columns)) == []


def test_users_whom_training_has_never_seen_are_a_drift(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    users = dice.integers(0, 1300, 3900)
    split = np.where(users < 1040, "train", "test")
    y = np.char.add("k", dice.integers(0, 2, 3900).astype(str))
    columns = {"user": np.char.add("user", users.astype(str)), "x": dice.normal(size=3900), "y": y, "split": split}
    (found,) = drifts(prepared(columns, split={"column": "split"}))
    assert (found.numbers["column"], found.numbers["split"]) == ("user", "test")
    assert found.numbers["distance"] > 0.8


def test_rare_categories_that_become_frequent_are_a_drift(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    split = np.where(np.arange(3000) % 5 == 0, "test", "train")
    # In training 40 % of the rows have one of 600 rare words, in test nearly all.
    rare = dice.random(3000) < np.where(split == "test", 0.9, 0.4)
    words = np.where(rare, dice.integers(10, 610, 3000), dice.integers(0, 10, 3000)).astype(str)
    y = np.char.add("k", dice.integers(0, 2, 3000).astype(str))
    columns = {"word": np.char.add("w", words), "x": dice.normal(size=3000), "y": y, "split": split}
    (found,) = drifts(prepared(columns, split={"column": "split"}))
    assert found.numbers["column"] == "word"
    assert found.numbers["distance"] == pytest.approx(0.5, abs=0.1)


def test_a_shifted_number_is_a_drift(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    split = np.where(np.arange(2000) % 5 == 0, "test", "train")
    x = dice.normal(size=2000) + 0.5 * (split == "test")
    y = np.char.add("k", dice.integers(0, 2, 2000).astype(str))
    (found,) = drifts(prepared({"x": x, "y": y, "split": split}, split={"column": "split"}))
    assert found.numbers["column"] == "x"
    assert "data drift" in found.message


def test_groups_count_once_in_a_split_by_group(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    patients = np.repeat(np.arange(40), 30)
    age, sex = dice.normal(50, 9, 40)[patients], dice.integers(0, 2, 40)[patients]
    columns = {"patient": patients, "age": age.round(1), "sex": np.where(sex, "f", "m"), "x": dice.normal(size=1200)}
    data = prepared({**columns, "y": np.char.add("k", dice.integers(0, 2, 1200).astype(str))},
                    split={"group": "patient"}, inputs={"age": "number", "sex": "category", "x": "number"})  # fmt: skip
    assert data.spec.groups == {"train": 32, "validation": 4, "test": 4}
    assert drifts(data) == []


def test_rows_of_few_values_coincide_by_chance(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    colour, size = draw_words(dice, 900, 4, 0), draw_words(dice, 900, 5, 0)
    y = np.char.add("k", dice.integers(0, 2, 900).astype(str))
    assert check_prepared(prepared({"colour": colour, "size": size, "y": y})) == ()
    # Copies of columns have as few different rows.
    assert check_prepared(prepared({"colour": colour, "same": colour, "size": size, "also": size, "y": y})) == ()


def test_copied_rows_are_found_although_each_of_their_cells_repeats(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    half = {f"c{number}": dice.integers(0, 60, 500) for number in range(5)}
    columns = {name: np.concatenate([cells, cells]) for name, cells in half.items()}
    y = np.char.add("k", dice.integers(0, 2, 1000).astype(str))
    found = {finding.check: finding for finding in check_prepared(prepared({**columns, "y": y}))}
    assert found.keys() == {"duplicates", "conflicts"}
    assert "% of the test rows" in found["duplicates"].message
    assert "have the same inputs as a training row" in found["duplicates"].message
    assert found["conflicts"].message.startswith("identical inputs with different labels: ")


def test_classes_of_equal_size_are_no_imbalance_however_small(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    y = np.char.add("k", (np.arange(100) % 6).astype(str))
    assert check_prepared(prepared({"x": dice.normal(size=100), "y": y})) == ()


def test_a_few_rows_predicted_by_chance_are_no_leak(prepared: Prepare) -> None:
    dice = np.random.default_rng(1)
    y = np.where(np.arange(100) % 33 == 1, "rare", "usual")
    columns = {"x": dice.normal(size=100), "flag": np.where(y == "rare", "a", "b"), "y": y}
    assert "leak" not in {finding.check for finding in check_prepared(prepared(columns))}
