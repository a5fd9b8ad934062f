"""Rules between the values of a recipe that need no data to be decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli.recipe.load import load
from tests.recipe.files import SMALLEST, faults, only_fault, write


def table(data: str = "", rest: str = "") -> str:
    return (
        "name: a\nmodel: mlp\ndata:\n  source: {kind: csv, path: x.csv}\n"
        f"  targets: {{label: category}}\n{data}\n{rest}\n"
    )


RULES = [
    ("train: {stop: {min_delta: 0.1}}", "train.stop.min_delta", "`min_delta` does nothing without `patience`."),
    ("train: {stop: {metric: train/loss}}", "train.stop", "`metric` goes with one of `above` and `below`."),
    ("train: {stop: {below: 0.1}}", "train.stop", "`metric` goes with one of `above` and `below`."),
    ("train: {stop: {metric: a, below: 1, above: 1}}", "train.stop", "`metric` goes with one of"),
    ("objective: regression", "objective", "regression cannot learn target 'label' of kind category."),
    ("objective: {label: regression}", "objective.label", "regression cannot learn target 'label'"),
    ("objective: {lable: classification}", "objective.lable", "no target 'lable'."),
    ("evaluate: {gates: {accuracy: 0.9}}", "evaluate.gates.accuracy", "expected a limit like '>= 0.9', received 0.9."),
    ("evaluate: {gates: {accuracy: '= 0.9'}}", "evaluate.gates.accuracy", "received '= 0.9'."),
    ("evaluate: {gates: {accuracy: '> 1e999'}}", "evaluate.gates.accuracy", "expected a limit like"),
    ("evaluate: {gates: {accuracy: '> ٣'}}", "evaluate.gates.accuracy", "expected a limit like"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "message"), RULES)
def test_a_broken_rule_stands_at_its_value(tmp_path: Path, text: str, path: str, message: str) -> None:
    found = only_fault(write(tmp_path, SMALLEST + text))
    assert (found.path, message in found.message) == (path, True)


SCHEDULES = ["cosine", "{kind: constant, warmup: 0.1}", "{kind: cosine_decay, decay_steps: 9}"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_leaves_no_rate_for_a_callback_to_change(tmp_path: Path, schedule: str) -> None:
    text = f"train: {{schedule: {schedule}, callbacks: [{{kind: reduce_lr_on_plateau}}]}}"
    found = only_fault(write(tmp_path, SMALLEST + text))
    assert (found.path, found.message.split()[0]) == ("train.callbacks.0", "reduce_lr_on_plateau")


DATA_RULES = [
    ("  inputs: {label: number}", "data.targets.label", "column 'label' is a target and an input."),
    ("  drop: [label]", "data.drop.0", "column 'label' is dropped and a target."),
    ("  inputs: {age: number}\n  drop: [x, age]", "data.drop.1", "column 'age' is dropped and an input."),
    ("  split: {column: label}", "data.targets.label", "is a target and the column that tells the split."),
    ("  split: {column: age}\n  inputs: {age: number}", "data.inputs.age", "is an input and the column that tells"),
    ("  split: {column: part}\n  drop: [part]", "data.drop.0", "is dropped and the column that tells the split."),
    ("  split: {train: 0.9, test: 0.2}", "data.split", "the shares add up to 1.1, more than 1."),
    ("  split: {train: 0.5, test: 0.2, validation: 0.2}", "data.split", "the shares add up to 0.9, not 1."),
    ("  split: {test: 0.5, validation: 0.5}", "data.split", "the shares leave no rows to train on."),
    ("  split: {column: part, train: 0.5}", "data.split", "beside it only `validation` can be a share."),
]


@pytest.mark.parametrize(("data", "path", "message"), DATA_RULES)
def test_a_column_has_one_role_and_a_row_one_split(tmp_path: Path, data: str, path: str, message: str) -> None:
    found = only_fault(write(tmp_path, table(data)))
    assert (found.path, message in found.message) == (path, True)


def test_a_source_that_knows_no_target_has_to_be_told(tmp_path: Path) -> None:
    text = table().replace("  targets: {label: category}\n", "")
    assert only_fault(write(tmp_path, text)).path == "data.targets"


def test_rules_are_checked_beside_other_faults(tmp_path: Path) -> None:
    text = table("  drop: [label]\n  splt: 3", "train: {epocs: 3, schedule: cosine, callbacks: [reduce_lr_on_plateau]}")
    paths = [fault.path for fault in faults(write(tmp_path, text))]
    assert paths == ["data.drop.0", "data.splt", "train.epocs", "train.callbacks.0"]


def test_a_rule_is_left_out_where_one_of_its_values_is_wrong(tmp_path: Path) -> None:
    text = SMALLEST + "train: {schedule: cosinus, callbacks: [reduce_lr_on_plateau]}"
    assert only_fault(write(tmp_path, text)).path == "train.schedule"


GOOD = [
    "train: {stop: {patience: 3, min_delta: 0.1}}",
    "train: {schedule: constant, callbacks: [reduce_lr_on_plateau]}",
    "evaluate: {gates: {accuracy: '>=0.9', loss: '< -1.5e-3'}}",
    "objective: {label: classification}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_keeps_the_rules_is_accepted(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, SMALLEST + text)).recipe.name == "smallest"


@pytest.mark.parametrize("name", ["a", "0a", "A.b-c_d", "x" * 100])
def test_a_name_is_that_of_a_folder(tmp_path: Path, name: str) -> None:
    assert load(write(tmp_path, SMALLEST.replace("smallest", name))).recipe.name == name


@pytest.mark.parametrize("name", ["..", "../x", "/x", "x/y", "-x", "é", '"a\\n"', '""', "x" * 101, "~", "3", "٣"])
def test_what_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    assert only_fault(write(tmp_path, SMALLEST.replace("smallest", name))).path == "name"


def test_targets_are_those_of_the_source_by_default(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, SMALLEST)).recipe
    assert {name: target.kind for name, target in recipe.targets().items()} == {"label": "category"}


def test_objectives_follow_from_the_targets(tmp_path: Path) -> None:
    text = table().replace("{label: category}", "{label: category, price: number}")
    objectives = load(write(tmp_path, text)).recipe.objectives()
    assert {name: each.kind for name, each in objectives.items()} == {"label": "classification", "price": "regression"}
