"""Rules between the values of a recipe that need no data to be decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli import parts
from bmcli.recipe.load import load_recipe
from bmcli.recipe.render import render_recipe
from tests.recipe.files import SMALLEST, faults, only_fault, write


def table(data: str = "", rest: str = "") -> str:
    return (
        "name: a\nmodel: mlp\ndata:\n  source: {kind: csv, path: x.csv}\n"
        f"  targets: {{label: category}}\n{data}\n{rest}\n"
    )


RULES = [
    ("train: {stop: {min_delta: 0.1}}", "train.stop.min_delta", "`min_delta` does nothing without `patience`."),
    ("train: {stop: {overfit: 0}}", "train.stop.overfit", ""),
    ("train: {ema: 0.9, swa: {}}", "train.swa", "`swa` and `ema` both set the average of the weights that is kept."),
    ("train: {swa: {start: 1}}", "train.swa.start", ""),
    ("train: {ema: 0.9, schedule_free: true}", "train.schedule_free", "`schedule_free` and `ema` both set the average"),
    ("train: {swa: {}, schedule_free: true}", "train.schedule_free", "`schedule_free` and `swa` both set the average"),
    ("train: {schedule: cosine, schedule_free: true}", "train.schedule_free", "replaces the schedule cosine."),
    (
        "train: {callbacks: [reduce_lr_on_plateau], schedule_free: true}",
        "train.schedule_free",
        "`schedule_free` replaces reduce_lr_on_plateau.",
    ),
    ("train: {optimizer: lion, schedule_free: true}", "train.schedule_free", "lion cannot be schedule-free."),
    (
        "train: {optimizer: sgd, schedule_free: true}",
        "train.schedule_free",
        "expected momentum of sgd between 0 and 1, received 0.0.",
    ),
    (
        "train: {optimizer: {beta_1: 1.0}, schedule_free: true}",
        "train.schedule_free",
        "expected beta_1 of adam between 0 and 1, received 1.0.",
    ),
    (
        "train: {optimizer: {kind: sgd, momentum: 0.9, nesterov: true}, schedule_free: true}",
        "train.schedule_free",
        "`nesterov` does nothing with `schedule_free`.",
    ),
    ("train: {optimizer: schedule_free_adamw}", "train.optimizer", "does not put the mean of its steps into"),
    ("train: {curriculum: {epochs: 0}}", "train.curriculum.epochs", ""),
    ("train: {layer_rates: {a: -0.1}}", "train.layer_rates.a", ""),
    ("train: {stop: {metric: train/loss}}", "train.stop", "`metric` needs exactly one of `above` and `below`."),
    ("train: {stop: {below: 0.1}}", "train.stop", "`metric` needs exactly one of `above` and `below`."),
    ("train: {stop: {metric: a, below: 1, above: 1}}", "train.stop", "`metric` needs exactly one of"),
    ("objective: regression", "objective", "regression does not suit target 'label' of kind category."),
    ("objective: multi_label", "objective", "multi_label does not suit target 'label' of kind category."),
    ("objective: {kind: classification, beta: 0.9}", "objective.beta", "does nothing without effective class weights"),
    ("objective: {label: regression}", "objective.label", "regression does not suit target 'label'"),
    ("objective: {lable: classification}", "objective.lable", "no target 'lable'."),
    ("evaluate: {gates: {accuracy: 0.9}}", "evaluate.gates.accuracy", "expected a limit like '>= 0.9', received 0.9."),
    ("evaluate: {gates: {accuracy: '= 0.9'}}", "evaluate.gates.accuracy", "received '= 0.9'."),
    ("evaluate: {gates: {accuracy: '> 1e999'}}", "evaluate.gates.accuracy", "expected a limit like"),
    ("evaluate: {gates: {accuracy: '> ٣'}}", "evaluate.gates.accuracy", "expected a limit like"),
    ("evaluate: {slices: [[a, b, c]]}", "evaluate.slices.0", "expected one column or two, received 3."),
    ("evaluate: {fairness: {}}", "evaluate.fairness.columns", ""),
    ("evaluate: {folds: 1}", "evaluate.folds", ""),
    ("evaluate: {intervals: {level: 1.5}}", "evaluate.intervals.level", ""),
    ("objective: {kind: classification, calibrate: platt}", "objective.calibrate", ""),
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
    ("  split: {column: label}", "data.targets.label", "is a target and the column that defines the split."),
    ("  split: {column: age}\n  inputs: {age: number}", "data.inputs.age", "is an input and the column that defines"),
    ("  split: {column: part}\n  drop: [part]", "data.drop.0", "is dropped and the column that defines the split."),
    ("  split: {train: 0.9, test: 0.2}", "data.split", "the fractions add up to 1.1, more than 1."),
    ("  split: {train: 0.5, test: 0.2, validation: 0.2}", "data.split", "the fractions add up to 0.9, not 1."),
    ("  split: {test: 0.5, validation: 0.5}", "data.split", "the fractions leave no rows for training."),
    ("  split: {column: part, train: 0.5}", "data.split", "beside it only `validation` can be a fraction."),
    ("  split: {group: a, time: b}", "data.split.time", "`time` and `group` both define the split of a row."),
    ("  split: {hash: [a], group: b}", "data.split.hash", "`hash` and `group` both define the split of a row."),
    ("  split: {hash: true, time: b}", "data.split.hash", "`hash` and `time` both define the split of a row."),
    ("  split: {group: a, column: part}", "data.split.group", "`group` does nothing beside `column`"),
    ("  split: {hash: true, column: part}", "data.split.hash", "`hash` does nothing beside `column`"),
    ("  split: {time: a, column: a, validation: 0.1}", "data.split.time", "column 'a' already defines the split."),
    ("  split: {time: a, stratify: label}", "data.split.stratify", "so rows cannot be stratified."),
    ("  split: {hash: true, stratify: label}", "data.split.stratify", "so rows cannot be stratified."),
    ("  split: {group: a, stratify: a}", "data.split.stratify", "so they cannot be stratified by it."),
    ("  split: {group: label}", "data.targets.label", "is a target and the group of the split."),
    ("  split: {hash: []}", "data.split.hash", ""),
    ("  split: {hash: city}", "data.split.hash", ""),
    ("  sample: 0", "data.sample", ""),
    ("  sample: 1.5", "data.sample", ""),
    ("  sample: true", "data.sample", ""),
    ("  sample: {}", "data.sample", "the size of the sample is missing."),
    ("  sample: {share: 0.1, count: 10}", "data.sample", "`share` and `count` both set the size of the sample."),
    ("  sample: {count: 10, balanced: label}", "data.sample.balanced", "no such key."),
]


OF_LABELS = [
    ("}\n  inputs: {b: number}", "targets.topics.columns.1", "column 'b' is a target and an input."),
    ("}\n  drop: [c, a]", "drop.1", "column 'a' is dropped and a target."),
    ("}\n  weight: b", "weight", "column 'b' is the weight and a target."),
    ("}\n  split: {column: a}", "targets.topics.columns.0", "is a target and the column that defines the split."),
    ("}\n  inputs: {topics: number}", "targets.topics", "column 'topics' is a target and an input."),
    (", b: category}", "targets.b", "'b' is there twice among the targets."),
]


@pytest.mark.parametrize(("more", "path", "message"), OF_LABELS)
def test_a_column_that_a_target_lists_has_no_other_role(tmp_path: Path, more: str, path: str, message: str) -> None:
    labels = f"  targets: {{topics: {{kind: labels, columns: [a, b]}}{more}"
    found = only_fault(write(tmp_path, table().replace("  targets: {label: category}", labels)))
    assert (found.path, message in found.message) == (f"data.{path}", True), found


@pytest.mark.parametrize(("data", "path", "message"), DATA_RULES)
def test_a_column_has_one_role_and_a_row_one_split(tmp_path: Path, data: str, path: str, message: str) -> None:
    found = only_fault(write(tmp_path, table(data)))
    assert (found.path, message in found.message) == (path, True)


def test_a_source_without_default_target_needs_targets(tmp_path: Path) -> None:
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
    "train: {stop: {overfit: 3}, swa: {start: 0.5}, layer_rates: {'*/kernel': 0.5}}",
    "train: {swa: {}}",
    "train: {schedule_free: true, schedule: {kind: constant, warmup: 0.1}, callbacks: [early_stopping]}",
    "train: {schedule_free: true, optimizer: {kind: sgd, momentum: 0.9}, curriculum: {}}",
    "train: {curriculum: {input: text, epochs: 2}}",
    "train: {schedule: constant, callbacks: [reduce_lr_on_plateau]}",
    "evaluate: {gates: {accuracy: '>=0.9', loss: '< -1.5e-3'}}",
    "objective: {label: classification}",
    "objective: {kind: classification, threshold: 0.3}",
    "objective: {kind: classification, calibrate: temperature, threshold: {goal: cost, false_negative: 5}}",
    "objective: {kind: classification, threshold: {goal: recall, precision: 0.9}}",
    "evaluate: {slices: [a, [a, b], {columns: [a], bins: 3}], fairness: {columns: [a], positive: b}, folds: 5}",
    "evaluate: {slices: all, intervals: {level: 0.9, resamples: 200, group: none}}",
]

GOOD_DATA = [
    "  split: {group: a}",
    "  split: {group: a, stratify: label, test: 0.2}",
    "  split: {group: a, column: part, validation: 0.1}",
    "  split: {time: a}\n  inputs: {a: number}",
    "  split: {hash: true}",
    "  split: {test: 0.2, fold: {number: 2, of: 5}}",
    "  split: {hash: [a, b]}\n  sample: 0.5",
    "  sample: 1000",
    "  sample: {count: 1000, balance: label}",
    "  sample: {balance: label}",
]


@pytest.mark.parametrize("data", GOOD_DATA)
def test_ways_to_split_and_to_sample_survive_the_lock(tmp_path: Path, data: str) -> None:
    loaded = load_recipe(write(tmp_path, table(data)))
    lock = tmp_path / "lock.yaml"
    lock.write_text(render_recipe(loaded.recipe, loaded.tree))
    assert load_recipe(str(lock)).recipe == loaded.recipe


@pytest.mark.parametrize("text", GOOD)
def test_what_keeps_the_rules_is_accepted(tmp_path: Path, text: str) -> None:
    assert load_recipe(write(tmp_path, SMALLEST + text)).recipe.name == "smallest"


@pytest.mark.parametrize("name", ["a", "0a", "A.b-c_d", "x" * 100])
def test_a_name_is_that_of_a_folder(tmp_path: Path, name: str) -> None:
    assert load_recipe(write(tmp_path, SMALLEST.replace("smallest", name))).recipe.name == name


@pytest.mark.parametrize("name", ["..", "../x", "/x", "x/y", "-x", "é", '"a\\n"', '""', "x" * 101, "~", "3", "٣"])
def test_what_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    assert only_fault(write(tmp_path, SMALLEST.replace("smallest", name))).path == "name"


def test_targets_are_those_of_the_source_by_default(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALLEST)).recipe
    assert {name: target.kind for name, target in recipe.targets().items()} == {"label": "category"}


def test_objectives_follow_from_the_targets(tmp_path: Path) -> None:
    usual = {
        "category": "classification", "labels": "multi_label", "ordered": "ordinal", "number": "regression",
        "count": "count", "tags": "tagging",
    }  # fmt: skip
    assert set(usual) == set(parts.names("data.targets"))
    needed = {"tags": "{kind: tags, input: text}"}
    named = ", ".join(f"{kind}: {needed.get(kind, kind)}" for kind in usual)
    text = table().replace("{label: category}", f"{{{named}}}")
    objectives = load_recipe(write(tmp_path, text)).recipe.objectives()
    assert {name: each.kind for name, each in objectives.items()} == usual


def test_a_target_may_be_called_kind(tmp_path: Path) -> None:
    text = table().replace("{label: category}", "{kind: category, price: number}")
    rest = "objective: {kind: {kind: classification, class_weights: effective}, price: quantile}"
    recipe = load_recipe(write(tmp_path, text + rest)).recipe
    assert {name: each.kind for name, each in recipe.objectives().items()} == {
        "kind": "classification", "price": "quantile"
    }  # fmt: skip
