"""Every fault at once, each with its place, what came, what was expected, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli.messages import format_fault
from bmcli.recipe.paths import join_steps, parse_steps
from tests.recipe.files import SMALLEST, faults, only_fault, where, write

TEN = """\
# A recipe with ten faults of ten kinds.
name: two words
sead: 7
data:
  source: {kind: csv, path: train.csv, delimiter: ;;}
  split: {train: 0.9, test: 0.5}
  inputs:
    age: {kind: numbr}
    fare: {kind: number}
    fare: {kind: category}
  targets: {label: category}
model: {kind: mlp, hidden: [8, -1], dropout: 1e999, normalization: btach}
train:
  epochs: ${epochs}
  stop: {time: 30, patience: 2.5}
  optimizer: {kind: adamw, learning_rat: 1e-3}
evaluate:
  gates: {accuracy: 0.9}
runtime: {jit: maybe, strategy: !tpu tpu}
"""

PLACES = [
    (2, 7, "name"),
    (3, 1, "sead"),
    (5, 51, "data.source.delimiter"),
    (6, 10, "data.split"),
    (8, 17, "data.inputs.age.kind"),
    (10, 5, ""),
    (12, 32, "model.hidden.1"),
    (12, 46, ""),
    (12, 68, "model.normalization"),
    (14, 11, ""),
    (15, 16, "train.stop.time"),
    (15, 30, "train.stop.patience"),
    (16, 28, "train.optimizer.learning_rat"),
    (18, 21, "evaluate.gates.accuracy"),
    (19, 16, "runtime.jit"),
    (19, 33, ""),
]


def test_all_faults_come_at_once_each_with_its_place(tmp_path: Path) -> None:
    found = [(*where(fault)[1:], fault.path) for fault in faults(write(tmp_path, TEN))]
    assert found == PLACES


TEXT = """\
recipe.yaml:2:7  name: expected a name like digits-cnn, received 'two words'. It becomes the name of a folder: up to \
100 letters, digits, dots, dashes and underscores.
    name: two words
          ^
recipe.yaml:3:1  sead: no such key. Did you mean 'seed'?
    sead: 7
    ^
recipe.yaml:12:32  model.hidden.1: expected a number of at least 1, received -1.
    model: {kind: mlp, hidden: [8, -1], dropout: 1e999, normalization: btach}
                                   ^
recipe.yaml:12:68  model.normalization: expected 'batch' or 'layer', received 'btach'. Did you mean 'batch'?
    kind: mlp, hidden: [8, -1], dropout: 1e999, normalization: btach}
                                                               ^
recipe.yaml:15:16  train.stop.time: expected a duration like 30m, received 30. Units: d, h, m, s, ms.
      stop: {time: 30, patience: 2.5}
                   ^
recipe.yaml:16:28  train.optimizer.learning_rat: adamw has no option 'learning_rat'. Did you mean 'learning_rate'?
      optimizer: {kind: adamw, learning_rat: 1e-3}
                               ^
recipe.yaml:19:16  runtime.jit: expected 'auto' or true or false, received 'maybe'.
    runtime: {jit: maybe, strategy: !tpu tpu}
                   ^"""


def test_faults_read_like_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TEN)
    wanted = ("name", "sead", "model.", "train.stop.time", "train.optimizer", "runtime.jit")
    found = [fault for fault in faults("recipe.yaml") if fault.path.startswith(wanted)]
    assert "\n".join(format_fault(fault) for fault in found) == TEXT


def model(options: str) -> str:
    return SMALLEST.replace("model: mlp", f"model: {options}")


MESSAGES = [
    (SMALLEST + "seed: 1.5", "expected a whole number, received 1.5.", ""),
    (SMALLEST + "seed: true", "expected a whole number, received true.", ""),
    (SMALLEST + "seed: 4294967296", "expected a number below 4294967296, received 4294967296.", ""),
    (SMALLEST + "train: 3", "expected a mapping, received 3.", ""),
    (SMALLEST + "train:", "expected a mapping, received nothing.", ""),
    (SMALLEST + "train: {tensorboard: yes}", "expected true or false, received 'yes'.", ""),
    (
        SMALLEST + "runtime: {strategy: outo}",
        "expected 'auto', 'one_device', 'mirrored', 'multi_worker' or 'tpu', received 'outo'.",
        "mean 'auto'?",
    ),
    (SMALLEST + "train: {metrics: auc}", "expected a list, received 'auc'.", ""),
    (SMALLEST + "train: {metrics: [acu]}", "no kind 'acu'.", "Did you mean 'auc'?"),
    (SMALLEST + "data:", "'data' is written twice, first on line 2.", ""),
    (SMALLEST + "vars: {a: [1, 2]}", "expected text, a whole number, a number or true or false, received [1, 2].", ""),
    (model("mpl"), "no kind 'mpl'.", "Did you mean 'mlp'?"),
    (model("{hidden: [3]}"), "'kind' is missing.", ""),
    (model("[mlp]"), "expected a name or a mapping with a 'kind', received [mlp].", ""),
    (model("{kind: [mlp]}"), "no kind [mlp].", ""),
    (model("{kind: mlp, hidden: 8}"), "expected a list, received 8.", ""),
    (model("{kind: cnn, filters: []}"), "expected at least one value, received [].", ""),
    (model("{kind: cnn, kernel_size: [3, x]}"), "expected a whole number, received 'x'.", ""),
    (model("{kind: cnn, kernel_size: [3, 3, 3]}"), "expected at most 2 values, received [3, 3, 3].", ""),
    (model("{kind: cnn, kernel_size: [3]}"), "item 1 is missing, counted from 0.", ""),
    (SMALLEST.replace(", name: digits", ""), "'name' is missing.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "suggestion"), MESSAGES)
def test_a_fault_names_the_received_and_the_expected_value(
    tmp_path: Path, text: str, message: str, suggestion: str
) -> None:
    found = only_fault(write(tmp_path, text))
    assert (found.message, suggestion in found.suggestion) == (message, True)


def test_a_fault_deep_in_one_alternative_hides_the_shallow_one(tmp_path: Path) -> None:
    assert only_fault(write(tmp_path, model("{kind: cnn, kernel_size: [3, 0]}"))).path == "model.kernel_size.1"


def test_what_is_missing_is_shown_at_the_section_that_lacks_it(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, "name: a\nmodel: mlp\ndata:\n  split: {train: 0.5}\n"))
    assert (found.path, where(found)) == ("data.source", ("recipe.yaml", 3, 1))


def test_an_unknown_option_of_a_keras_object_is_shown_at_its_key(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, SMALLEST + "train: {optimizer: {kind: sgd, mometum: 1}}"))
    assert where(found) == ("recipe.yaml", 5, 32)


def test_several_faults_of_one_keras_object_are_all_reported(tmp_path: Path) -> None:
    found = faults(write(tmp_path, model("{kind: layers, layers: [{kind: embedding, trainable: 3}, {kind: dense}]}")))
    assert len(found) == 3


def test_a_faulty_value_is_not_reported_twice(tmp_path: Path) -> None:
    assert only_fault(write(tmp_path, SMALLEST + "seed: 1e999")).message == "expected a finite number, received 1e999."


def test_a_mapping_with_a_merge_key_lacks_nothing(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, "name: a\nmodel: mlp\ndata: {<<: *x}\n".replace("*x", "{}")))
    assert found.message == "merge keys are not part of YAML 1.2."


STEPS = [("a", "b"), ("a.b", 3), ('a"b\\c',), ("a=b", "c d"), ("", "x"), (" a",)]


@pytest.mark.parametrize("steps", STEPS)
def test_a_written_path_reads_back_to_its_steps(steps: tuple[str | int, ...]) -> None:
    assert parse_steps(join_steps(steps)) == (steps, "")
