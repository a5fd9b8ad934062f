"""The `tune` section: valid and invalid entries, and candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bmcli import redaction
from bmcli.errors import BmcliError, Fault
from bmcli.messages import format_fault
from bmcli.recipe import nodes, space
from bmcli.recipe.fields import dump
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import escape_dollars
from bmcli.recipe.paths import join_steps, split_path
from bmcli.recipe.render import render_base, render_recipe
from bmcli.recipe.search import SearchParameter, TuneOptions, collect_conditions, format_overrides
from bmcli.recipe.space import load_search
from tests.recipe.files import faults, only_fault, where, write
from tests.recipe.test_render import KEYS, LAW, SCALARS, TREES, as_lists

BASE = """\
name: searched
seed: 4
vars: {width: 8, price: $$5}
data: {source: {kind: builtin, name: digits}, inputs: {image: {kind: image}}}
model: {kind: cnn, filters: [8], dense: ["${width}"]}
objective: classification
train: {epochs: 9, optimizer: {learning_rate: 1e-2}}
tune:
  objective: validation/accuracy
  space:
"""

SPACE = """\
    train.optimizer.learning_rate: {log: [1e-4, 1e-2]}
    model.kind: {choice: [mlp, cnn]}
    model.filters: {choice: [[16, 32], [32, 64]], when: {model.kind: cnn}}
    model.hidden: {choice: [[64], [128, 64]], when: {model.kind: mlp}}
    model.dropout: {float: [0, 0.5], step: 0.1}
    train.batch_size: {int: [16, 256], scale: log, step: 2}
    objective.label_smoothing: {float: [0, 0.2]}
    data.augment.image: {choice: [[], [flip]]}
    train.schedule: {choice: [constant, cosine]}
    train.ema: {choice: [null, 0.99]}
    vars.width: {int: [4, 16]}
"""


def recipe(entries: str, base: str = BASE) -> str:
    """A recipe that searches these entries, one a line."""
    return base + "".join(f"    {line.strip()}\n" for line in entries.splitlines())


def tune(folder: Path, entries: str = SPACE, *arguments: str) -> TuneOptions:
    options = load_recipe(write(folder, recipe(entries)), arguments).recipe.tune
    assert options is not None
    return options


def parameter(folder: Path, entry: str) -> SearchParameter:
    return tune(folder, f"model.x: {entry}").space["model.x"]


# The section


def test_defaults_are_those_of_a_careful_search(tmp_path: Path) -> None:
    found = tune(tmp_path, "model.dropout: {float: [0, 0.5]}", "tune.objective=null")
    assert (found.algorithm.kind, found.objective, found.max_trials, found.workers) == ("random", ("auto",), 20, 1)
    assert (found.stop.time, found.stop.trial_time, found.stop.failures, found.uses_median_pruning) == (
        None,
        None,
        5,
        True,
    )
    assert found.confirm is not None
    assert (found.confirm.top, found.confirm.seeds) == (3, 3)


def test_hyperband_has_as_many_trials_as_its_brackets_by_default(tmp_path: Path) -> None:
    entry = "model.dropout: {float: [0, 0.5]}"
    assert tune(tmp_path, entry, "tune.algorithm=hyperband").max_trials is None
    assert tune(tmp_path, entry, "tune.algorithm=hyperband", "tune.trials=7").max_trials == 7


def test_the_whole_section_reads_back_from_its_dump(tmp_path: Path) -> None:
    text = recipe(SPACE) + (
        "  algorithm: {kind: hyperband, factor: 4, iterations: 2}\n  trials: 30\n  workers: 2\n"
        "  stop: {time: 2h, trial_time: 10m, failures: 3}\n  confirm: none\n"
    )
    file = write(tmp_path, text.replace("objective: validation/accuracy", "objective: [auto, parameters, latency]"))
    found = load_recipe(file).recipe
    again = load_recipe(write(tmp_path, render_recipe(found, load_recipe(file).tree), "again.yaml")).recipe
    assert again.tune == found.tune
    assert found.tune is not None
    assert (found.tune.stop.time, found.tune.confirm) == (7200, None)
    assert json.loads(json.dumps(dump(found.tune)))["space"]["model.kind"] == {"choice": ["mlp", "cnn"]}


@pytest.mark.parametrize("kind", ["random", "bayesian", "grid", "hyperband"])
def test_an_algorithm_by_its_bare_name(tmp_path: Path, kind: str) -> None:
    found = tune(tmp_path, SPACE, f"tune.algorithm={kind}")
    assert found.algorithm.kind == kind
    assert found.uses_median_pruning == (kind != "hyperband")


@pytest.mark.parametrize("given", ["none", "null"])
def test_none_confirms_nothing(tmp_path: Path, given: str) -> None:
    assert load_recipe(write(tmp_path, recipe(SPACE) + f"  confirm: {given}\n")).recipe.tune.confirm is None  # type: ignore[union-attr]


OBJECTIVES = [
    ("tune.objective=null", "validation/loss"),
    ("tune.objective=auto train.select.metric=validation/auc", "validation/auc"),
    ("tune.objective=auto train.select.metric=train/auc", "validation/loss"),
    ("tune.objective=validation/auc", "validation/auc"),
    ("tune.objective=[auto,size]", "validation/loss size"),
    ("tune.objective=[auto,validation/loss,size]", "validation/loss size"),
]


@pytest.mark.parametrize(("arguments", "names"), OBJECTIVES)
def test_what_is_searched_for(tmp_path: Path, arguments: str, names: str) -> None:
    found = load_recipe(write(tmp_path, recipe(SPACE)), arguments.split()).recipe
    assert found.search_objectives() == tuple(names.split())


SECTION_FAULTS = [
    ("algorithm: hyperbend", "algorithm", "no kind 'hyperbend'.", "Did you mean 'hyperband'?"),
    ("algorithm: {kind: hyperband, factr: 3}", "algorithm.factr", "no such key.", "Did you mean 'factor'?"),
    ("algorithm: {kind: hyperband, factor: 1}", "algorithm.factor", "expected a number of at least 2", ""),
    ("algorithm: {kind: bayesian, initial: 0}", "algorithm.initial", "at least 1, received 0.", ""),
    ("objective: accuracy", "objective", "received 'accuracy'.", "Did you mean 'validation/accuracy'?"),
    ("objective: train/accuracy", "objective", "received 'train/accuracy'.", "Did you mean 'validation/accuracy'?"),
    (
        "objective: test/accuracy",
        "objective",
        "received 'test/accuracy'.",
        "The test rows are for the final evaluation.",
    ),
    ("objective: parameters", "objective", "received 'parameters'.", "Write a list with a metric"),
    ("objective: 3", "objective", "received 3.", "Write validation/accuracy, or"),
    ("objective: []", "objective", "expected at least one objective, received [].", ""),
    (
        "objective: [size, auto]",
        "objective.0",
        "size cannot be the first objective.",
        "Put a validation metric before it.",
    ),
    ("objective: [auto, siz]", "objective.1", "received 'siz'.", "Did you mean 'size'?"),
    ("objective: [auto, size, size]", "objective.2", "'size' is there twice.", ""),
    ("trials: 1", "trials", "expected a number of at least 2, received 1.", ""),
    ("workers: two", "workers", "expected a whole number, received 'two'.", ""),
    ("pruning: medain", "pruning", "received 'medain'.", "Did you mean 'median'?"),
    ("stop: {tim: 2h}", "stop.tim", "no such key.", "Did you mean 'time'?"),
    ("stop: {failures: 0}", "stop.failures", "expected a number of at least 1, received 0.", ""),
    ("confirm: {top: 0}", "confirm.top", "expected a number of at least 1, received 0.", ""),
    ("confirm: 3", "confirm", "expected a mapping, received 3.", ""),
    ("{algorithm: hyperband, pruning: median}", "pruning", "hyperband stops trials itself.", "Leave `pruning` out."),
]


@pytest.mark.parametrize(("text", "path", "message", "suggestion"), SECTION_FAULTS)
def test_a_wrong_option_is_a_fault(tmp_path: Path, text: str, path: str, message: str, suggestion: str) -> None:
    base = recipe("model.dropout: {float: [0, 0.5]}").replace("  objective: validation/accuracy\n", "")
    section = base + "".join(f"  {line}\n" for line in text.strip("{}").split(", ") if text.startswith("{a"))
    found = only_fault(write(tmp_path, section if text.startswith("{a") else f"{base}  {text}\n"))
    assert found.path == f"tune.{path}"
    assert message in found.message
    assert suggestion in found.suggestion


def test_a_search_without_a_space_is_a_fault(tmp_path: Path) -> None:
    assert only_fault(write(tmp_path, BASE.replace("  space:\n", ""))).message == "'space' is missing."
    assert only_fault(write(tmp_path, BASE.replace("space:", "space: {}"))).message.startswith("expected at least one")
    assert only_fault(write(tmp_path, BASE.replace("space:", "space: 3"))).message.endswith("received 3.")


# Entries

PARAMETERS = [
    ("bool", SearchParameter("bool", (False, True)), (False, True)),
    ("{bool: true}", SearchParameter("bool", (False, True)), (False, True)),
    ("{choice: [[1, 2], {a: [b]}, null, x]}", SearchParameter("choice", ([1, 2], {"a": ["b"]}, None, "x")), None),
    ("{choice: [1, 1.0, true, '1']}", SearchParameter("choice", (1, 1.0, True, "1")), None),
    ("{int: [1, 4]}", SearchParameter("int", low=1, high=4), (1, 4, 2)),
    ("{int: [1, 2]}", SearchParameter("int", low=1, high=2), (1, 2)),
    ("{int: [-3, 8], step: 5}", SearchParameter("int", low=-3, high=8, step=5), (-3, 7, 2)),
    ("{int: [4, 100], scale: log}", SearchParameter("int", low=4, high=100, scale="log"), (4, 100, 20)),
    (
        "{int: [16, 300], scale: log, step: 2}",
        SearchParameter("int", low=16, high=300, step=2, scale="log"),
        (16, 256, 64),
    ),
    ("{float: [0, 1]}", SearchParameter("float", low=0.0, high=1.0), (0.0, 1.0, 0.5)),
    ("{float: [0, 0.35], step: 0.1}", SearchParameter("float", low=0.0, high=0.35, step=0.1), (0.0, 0.3, 0.1)),
    ("{float: [0, 1], scale: linear}", SearchParameter("float", low=0.0, high=1.0), (0.0, 1.0, 0.5)),
    ("{log: [1, 100]}", SearchParameter("float", low=1.0, high=100.0, scale="log"), (1.0, 100.0, 10.0)),
    ("{float: [1, 100], scale: log}", SearchParameter("float", low=1.0, high=100.0, scale="log"), (1.0, 100.0, 10.0)),
]


@pytest.mark.parametrize(("entry", "wanted", "tried"), PARAMETERS)
def test_an_entry_becomes_a_parameter(
    tmp_path: Path, entry: str, wanted: SearchParameter, tried: tuple[Any, ...] | None
) -> None:
    found = parameter(tmp_path, entry)
    assert repr(found) == repr(wanted)
    assert [nodes.write_scalar(each) for each in found.values_to_try()] == [
        nodes.write_scalar(each) for each in (wanted.values if tried is None else tried)
    ]
    assert all(found.allows(value) for value in found.values_to_try())


CANNOT_BE = [
    ("{choice: [1, x]}", [1.0, True, "X", None, [1]]),
    ("{int: [1, 9], step: 2}", [0, 2, 10, 3.0, True, "3"]),
    ("{int: [2, 9], scale: log, step: 2}", [1, 6, 9]),
    ("{float: [0, 1], step: 0.1}", [-0.1, 0.25, 1.1, True, "a"]),
    ("bool", [0, 1, "true"]),
]


@pytest.mark.parametrize(("entry", "others"), CANNOT_BE)
def test_what_a_parameter_cannot_be(tmp_path: Path, entry: str, others: list[Any]) -> None:
    found = parameter(tmp_path, entry)
    assert [value for value in others if found.allows(value)] == []


@given(low=st.integers(-50, 50), span=st.integers(1, 900), step=st.integers(1, 90), digits=st.integers(0, 4))
@LAW
def test_steps_end_at_the_last_value_of_the_range(low: int, span: int, step: int, digits: int) -> None:
    ends = (low / 10**digits, (low + span) / 10**digits, min(step, span) / 10**digits)
    found = SearchParameter("float", low=ends[0], high=ends[1], step=ends[2])
    values = [found.value_at(number) for number in range(found.last_step() + 1)]
    assert values == [(low + number * min(step, span)) / 10**digits for number in range(len(values))]
    assert values[-1] <= ends[1] < (low + len(values) * min(step, span)) / 10**digits
    assert all(found.allows(value) for value in values)


ENTRY_FAULTS = [
    ("3", "", "expected values to choose from, received 3.", "Write {choice: [A, B]}"),
    ("boolean", "", "expected values to choose from, received 'boolean'.", ""),
    ("{}", "", "its values are missing.", "Write {choice: [A, B]}"),
    ("{choise: [1, 2]}", "choise", "no such key.", "Did you mean 'choice'?"),
    ("{int: [1, 2], stp: 1}", "stp", "no such key.", "Did you mean 'step'?"),
    ("{choice: [1, 2], float: [1, 2]}", "float", "`choice` and `float` both set its values.", "Leave one of them"),
    ("{choice: 3}", "choice", "expected a list of values, received 3.", ""),
    ("{choice: []}", "choice", "expected at least one value, received [].", ""),
    ("{choice: [a, b, a]}", "choice.2", "'a' is there twice.", "List it once."),
    ("{choice: [a, b], step: 1}", "step", "`step` does nothing with `choice`.", "Leave it out."),
    ("{bool: true, scale: log}", "scale", "`scale` does nothing with `bool`.", ""),
    ("{log: [1, 2], scale: log}", "scale", "`scale` does nothing with `log`.", ""),
    ("{bool: false}", "bool", "expected true, received false.", ""),
    ("{int: 3}", "int", "expected [LOW, HIGH], received 3.", ""),
    ("{int: [1, 2, 3]}", "int", "expected [LOW, HIGH], received [1, 2, 3].", ""),
    ("{int: [1, 2.5]}", "int.1", "expected a whole number, received 2.5.", ""),
    ("{float: [a, 1]}", "float.0", "expected a number, received 'a'.", ""),
    ("{float: [true, 2]}", "float.0", "expected a number, received true.", ""),
    ("{float: [1, 1]}", "float", "the low end 1 is not below the high end 1.", ""),
    ("{int: [4, 2]}", "int", "the low end 4 is not below the high end 2.", ""),
    ("{log: [0, 1]}", "log.0", "a logarithmic range must begin above 0, received 0.", ""),
    ("{int: [-2, 2], scale: log}", "int.0", "a logarithmic range must begin above 0, received -2.", ""),
    ("{int: [1, 2], scale: lag}", "scale", "expected linear or log, received 'lag'.", "Did you mean 'log'?"),
    ("{float: [0, 1], step: 0}", "step", "expected a step above 0, received 0.", ""),
    ("{float: [0, 1], step: 1.5}", "step", "a step of 1.5 is larger than the range.", ""),
    ("{int: [0, 9], step: 0.5}", "step", "expected a whole number, received 0.5.", ""),
    (
        "{int: [1, 9], scale: log, step: 1}",
        "step",
        "expected a factor of at least 2 on a logarithmic scale, received 1.",
        "",
    ),
    ("{int: [4, 9], scale: log, step: 3}", "step", "4 times 3 is above the high end 9.", ""),
    ("{log: [1e-3, 1], step: 10}", "step", "a logarithmic range of floats has no steps.", "Write {choice: "),
    ("{float: [1, 9], scale: log, step: 2}", "step", "a logarithmic range of floats has no steps.", ""),
    ("{int: [1, 2], step: null}", "step", "expected a whole number, received nothing.", ""),
    ("{choice: [1, 2], when: null}", "when", "expected values of other entries, received nothing.", ""),
    ("{choice: [1, 2], when: cnn}", "when", "expected values of other entries, received 'cnn'.", ""),
    ("{choice: [1, 2], when: {model.knd: cnn}}", 'when."model.knd"', "no entry of the space.", "Did you mean 'model.k"),
    ("{choice: [1, 2], when: {model.x: 1}}", 'when."model.x"', "this depends on itself.", ""),
    ("{choice: [1, 2], when: {model.kind: rnn}}", 'when."model.kind"', "model.kind can never be 'rnn'.", "mlp, cnn."),
    ("{choice: [1, 2], when: {model.kind: [mlp, rnn]}}", 'when."model.kind"', "can never be 'rnn'.", ""),
    ("{choice: [1, 2], when: {model.kind: []}}", 'when."model.kind"', "received [].", ""),
]


@pytest.mark.parametrize(("entry", "path", "message", "suggestion"), ENTRY_FAULTS)
def test_a_wrong_entry_is_a_fault_at_its_place(
    tmp_path: Path, entry: str, path: str, message: str, suggestion: str
) -> None:
    found = only_fault(write(tmp_path, recipe(f"model.kind: {{choice: [mlp, cnn]}}\nmodel.x: {entry}")))
    assert found.path == 'tune.space."model.x"' + (f".{path}" if path else "")
    assert message in found.message
    assert suggestion in found.suggestion
    assert where(found)[1] == 12


NO_PATHS = [
    ("model..x", "expected the path of a value.", "Write it with dots"),
    ('"\\"model\\".x"', "expected the path of a value.", "Write model.x."),
    ("model.hidden.00", "expected the path of a value.", "Write model.hidden.0."),
    ("seed", "it changes the evaluation", "`confirm`"),
    ("data.seed", "it changes the evaluation", ""),
    ("data.split.train", "it changes the evaluation", ""),
    ("data.source.path", "it changes the evaluation", ""),
    ("data.targets", "it changes the evaluation", ""),
    ("data.invalid", "it changes the evaluation", ""),
    ("evaluate.top_k", "it changes the evaluation", ""),
    ("name", "does not change the trained network", ""),
    ("bmcli", "does not change the trained network", ""),
    ("extends", "does not change the trained network", ""),
    ("runtime.jit", "does not change the trained network", ""),
    ("tune.trials", "does not change the trained network", ""),
    ("train.checkpoint.steps", "does not change the trained network", ""),
]


@pytest.mark.parametrize(("path", "message", "suggestion"), NO_PATHS)
def test_what_cannot_be_searched_is_refused(tmp_path: Path, path: str, message: str, suggestion: str) -> None:
    found = only_fault(write(tmp_path, recipe(f"{path}: {{int: [1, 3]}}")))
    assert message in found.message
    assert suggestion in found.suggestion
    assert where(found) == ("recipe.yaml", 11, 5)


def test_an_entry_inside_of_another_is_refused(tmp_path: Path) -> None:
    text = "train.schedule: {choice: [constant, cosine]}\ntrain.schedule.warmup: {float: [0, 0.5]}"
    found = only_fault(write(tmp_path, recipe(text)))
    assert (found.message, found.suggestion) == (
        "this is a part of train.schedule, which is searched too.",
        "Search train.schedule.kind instead of train.schedule.",
    )
    assert where(found)[1] == 12


def test_hyperband_decides_the_epochs_itself(tmp_path: Path) -> None:
    text = recipe("train.epochs: {int: [2, 9]}")
    assert load_recipe(write(tmp_path, text)).recipe.tune
    found = only_fault(write(tmp_path, text), ["tune.algorithm=hyperband"])
    assert found.message == "hyperband sets the epochs of each trial."
    assert where(found) == ("recipe.yaml", 11, 5)


# Conditions


def test_a_condition_names_one_value_or_several(tmp_path: Path) -> None:
    text = (
        "model.kind: {choice: [mlp, cnn, rnn]}\nmodel.hidden: {choice: [[1], [1, 2], 1]}\n"
        "train.a: {int: [1, 2], when: {model.kind: [mlp, rnn]}}\n"
        "train.b: {int: [1, 2], when: {model.hidden: [1]}}\ntrain.c: {int: [1, 2], when: {model.hidden: [[1], 1]}}\n"
        "train.d: {int: [1, 2], when: {train.a: 2, model.hidden: 1}}\n"
    )
    found = tune(tmp_path, text)
    assert [each.when for each in found.space.values()][2:] == [
        {"model.kind": ("mlp", "rnn")},
        {"model.hidden": ([1],)},
        {"model.hidden": ([1], 1)},
        {"train.a": (2,), "model.hidden": (1,)},
    ]
    assert collect_conditions("train.d", found.space)["model.kind"] == ("mlp", "rnn")
    assert found.space["train.d"].is_active({"train.a": 2, "model.hidden": 1})
    assert not found.space["train.d"].is_active({"train.a": 2, "model.hidden": [1]})
    assert not found.space["train.d"].is_active({"train.a": 2})
    file = write(tmp_path, recipe(text))
    assert (
        load_recipe(
            write(tmp_path, render_recipe(load_recipe(file).recipe, load_recipe(file).tree), "a.yaml")
        ).recipe.tune
        == found
    )


def test_each_condition_of_a_circle_is_a_fault(tmp_path: Path) -> None:
    text = (
        "train.a: {int: [1, 2], when: {train.b: 1}}\ntrain.b: {int: [1, 2], when: {train.c: 1}}\n"
        "train.c: {int: [1, 2], when: {train.a: 1}}\ntrain.d: {int: [1, 2], when: {train.a: 1}}\n"
    )
    found = faults(write(tmp_path, recipe(text)))
    assert [where(fault)[1] for fault in found] == [11, 12, 13]
    assert {fault.message for fault in found} == {"this depends on itself in a circle."}


def test_conditions_that_never_hold_together_are_refused(tmp_path: Path) -> None:
    text = (
        "model.kind: {choice: [mlp, cnn]}\ntrain.a: {int: [1, 2], when: {model.kind: mlp}}\n"
        "train.b: {int: [1, 2], when: {train.a: 1, model.kind: cnn}}\n"
    )
    found = only_fault(write(tmp_path, recipe(text)))
    assert found.message == "no value of model.kind meets all conditions of this entry."


# The recipe takes every value


def search_faults(folder: Path, text: str, *arguments: str) -> tuple[Fault, ...]:
    with pytest.raises(BmcliError) as caught:
        load_search(write(folder, text), arguments)
    return caught.value.faults


def test_a_sound_space_is_accepted(tmp_path: Path) -> None:
    loaded = load_search(write(tmp_path, recipe(SPACE)))
    assert loaded.recipe.tune is not None
    assert len(loaded.recipe.tune.space) == 11


WRONG = """\
    model.filter: {choice: [[16, 32], [32, 64]]}
    model.dropout: {float: [0, 1.5]}
    train.batch_size: {int: [0, 256]}
    model.dense: {choice: [[8], [16, -3]]}
    train.optimizer.learning_rat: {log: [1e-4, 1e-2]}
    train.optimizer.learning_rate: {choice: [0.1, fast]}
    train.schedule: {choice: [cosine, {kind: cosine, warmup: 2}]}
    train.precision: {choice: [float32, float16]}
    modle.pool: {int: [1, 3]}
    train.tensorbord: bool
    model.hidden: {log: [0, 1]}
"""

WRONG_TEXT = """\
recipe.yaml:11:5  model.filter: no such key. Did you mean 'filters'?
recipe.yaml:12:32  model.dropout: expected a number below 1, received 1.5.
recipe.yaml:13:30  train.batch_size: expected a number of at least 1, received 0.
recipe.yaml:14:38  model.dense.1: expected a number of at least 1, received -3.
recipe.yaml:15:5  train.optimizer.learning_rat: adam has no option 'learning_rat'. Did you mean 'learning_rate'?
recipe.yaml:16:51  train.optimizer.learning_rate: expected a number, received 'fast'. Keras' default is 0.001.
recipe.yaml:17:62  train.schedule.warmup: expected a number below 1, received 2.
recipe.yaml:18:41  train.precision: expected 'float32', 'mixed_bfloat16' or 'mixed_float16', received 'float16'. \
Did you mean 'float32'?
recipe.yaml:19:5  modle: no such key. Did you mean 'model'?
recipe.yaml:20:5  train.tensorbord: no such key. Did you mean 'tensorboard'?
recipe.yaml:21:26  tune.space."model.hidden".log.0: a logarithmic range must begin above 0, received 0."""


def test_every_wrong_entry_is_reported_at_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, recipe(WRONG))
    with pytest.raises(BmcliError) as caught:
        load_search("recipe.yaml")
    assert "\n".join(format_fault(fault).splitlines()[0] for fault in caught.value.faults) == WRONG_TEXT


def test_whole_numbers_are_no_range_of_floats(tmp_path: Path) -> None:
    (found,) = search_faults(tmp_path, recipe("model.pool: {float: [1, 2], step: 1}"))
    assert (found.path, found.message) == ("model.pool", "expected a whole number or a list, received 1.0.")
    assert where(found) == ("recipe.yaml", 11, 26)


def test_entries_of_other_files_are_reported_there(tmp_path: Path) -> None:
    write(tmp_path, recipe("model.dropout: {float: [0, 2]}"), "base.yaml")
    text = "extends: base.yaml\ntune:\n  space:\n    model.pool: {int: [0, 3]}\n"
    found = search_faults(tmp_path, text, 'tune.space."train.epochs"={int: [0, 3]}')
    assert [(where(fault), fault.path) for fault in found] == [
        (("recipe.yaml", 4, 24), "model.pool"),
        (("base.yaml", 11, 32), "model.dropout"),
        (("command line", 1, 34), "train.epochs"),
    ]


def test_the_caret_stands_below_the_wrong_value(tmp_path: Path) -> None:
    (found,) = search_faults(tmp_path, recipe("model.dropout: {choice: [0.1, 2]}"))
    line, caret = format_fault(found).splitlines()[1:]
    assert line[caret.index("^")] == "2"


def test_a_recipe_that_is_wrong_itself_reports_its_own_faults(tmp_path: Path) -> None:
    found = search_faults(tmp_path, recipe(WRONG).replace("epochs: 9", "epochs: 0"))
    assert [fault.path for fault in found] == ["train.epochs", 'tune.space."model.hidden".log.0']


def test_an_option_of_one_kind_needs_a_condition_if_kinds_are_searched(tmp_path: Path) -> None:
    (found,) = search_faults(tmp_path, recipe("model.kind: {choice: [cnn, mlp]}\nmodel.filters: {choice: [[8], [9]]}"))
    assert (found.path, found.message) == ("model.filters", "no such key.")
    assert found.suggestion == "model.kind is mlp here. Add when: {model.kind: cnn}."
    assert where(found) == ("recipe.yaml", 12, 5)


def test_an_option_of_another_kind_hints_at_conditions(tmp_path: Path) -> None:
    (found,) = search_faults(tmp_path, recipe("model.hidden: {choice: [[8], [9]]}"))
    assert "model.kind is cnn" in found.suggestion
    assert "add when: {model.kind: ...}" in found.suggestion


def test_a_condition_that_is_too_wide_is_narrowed(tmp_path: Path) -> None:
    text = (
        "model.kind: {choice: [cnn, mlp, linear]}\n"
        "model.hidden: {choice: [[8], [9]], when: {model.kind: [mlp, linear]}}"
    )
    (found,) = search_faults(tmp_path, recipe(text))
    assert found.path == "model.hidden"


def test_a_wrong_parent_is_reported_once(tmp_path: Path) -> None:
    text = "model.kind: {choice: [cnn, mpl]}\nmodel.hidden: {choice: [[8], [9]], when: {model.kind: mpl}}"
    (found,) = search_faults(tmp_path, recipe(text))
    assert (found.path, found.suggestion) == ("model.kind", "Did you mean 'mlp'?")


def test_a_value_that_breaks_another_part_names_it(tmp_path: Path) -> None:
    text = recipe("train.schedule: {choice: [constant, cosine]}").replace(
        "train: {", "train: {callbacks: [reduce_lr_on_plateau], "
    )
    (found,) = search_faults(tmp_path, text)
    assert found.path == "train.schedule"
    assert found.message.startswith("with train.schedule=cosine: train.callbacks.0: reduce_lr_on_plateau cannot change")


def test_an_option_of_an_objective_needs_its_kind(tmp_path: Path) -> None:
    text = recipe("objective.label_smoothing: {float: [0, 0.2]}").replace("objective: classification\n", "")
    (found,) = search_faults(tmp_path, text)
    assert found.suggestion == "Write objective: classification."


ALIKE = [
    ("model.pool: {choice: [2, 3]}", ""),
    ("model.pool: {choice: [2, [2, 2], 3]}", ""),
    ("vars.price: {choice: [a, b]}", "no value of the recipe uses this variable."),
    ("vars.widht: {choice: [8, 9]}", "no value of the recipe uses this variable."),
    ("train.optimizer: {choice: [{kind: adam}, {kind: adam, learning_rate: 0.01}]}", "give the same recipe."),
    ("train.schedule: {choice: [constant, {kind: constant, warmup: 0.0}]}", "give the same recipe."),
]


@pytest.mark.parametrize(("entry", "message"), ALIKE)
def test_values_that_come_to_the_same_are_refused(tmp_path: Path, entry: str, message: str) -> None:
    if not message:
        load_search(write(tmp_path, recipe(entry)))
        return
    (found,) = search_faults(tmp_path, recipe(entry))
    assert message in found.message


UNFAIR = [
    ("data: {choice: [{split: {train: 0.7}}, {split: {train: 0.6}}]}", "", "this changes data.split"),
    ("vars.width: {choice: [8, 9]}", "seed=${width}", "this changes seed"),
    ("vars.width: {choice: [8, 9]}", "train.epochs=${width} tune.algorithm=hyperband", "this changes train.epochs"),
    ("objective.label_smoothing: {float: [0, 0.2]}", "tune.objective=validation/loss", "this changes the loss itself"),
    ("objective.label_smoothing: {float: [0, 0.2]}", "tune.objective=null", "this changes the loss itself"),
    ("model.kernel_regularizer: {choice: [null, l2]}", "tune.objective=[auto,size]", "this changes the loss itself"),
]


@pytest.mark.parametrize(("entry", "arguments", "message"), UNFAIR)
def test_what_candidates_are_compared_by_stays(tmp_path: Path, entry: str, arguments: str, message: str) -> None:
    (found,) = search_faults(tmp_path, recipe(entry), *arguments.split())
    assert message in found.message
    assert where(found) == ("recipe.yaml", 11, 5)


def test_regularizers_may_be_searched_by_a_metric(tmp_path: Path) -> None:
    load_search(write(tmp_path, recipe("model.kernel_regularizer: {choice: [null, l2]}")))


def test_a_recipe_is_read_once_for_all_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = write(tmp_path, recipe(SPACE)), []
    monkeypatch.setattr(nodes, "read_text", lambda *given, real=nodes.read_text: read.append(given) or real(*given))
    load_search(file)
    assert len(read) == 1


def test_relative_files_of_a_space_are_those_beside_the_recipe(tmp_path: Path) -> None:
    text = BASE.replace('{kind: cnn, filters: [8], dense: ["${width}"]}', "{kind: application, architecture: vgg16}")
    file = write(tmp_path, recipe("model.weights: {choice: [null, a.h5, /b.h5]}", text))
    found = load_recipe(file).recipe.tune
    assert found is not None
    assert found.space["model.weights"].values == (None, str(tmp_path / "a.h5"), "/b.h5")


FUZZ_PATHS = (
    *("model.kind", "model.filters", "model.hidden", "model.dropout", "model", "model.filters.0", "train.schedule"),
    *("train.optimizer", "train.optimizer.kind", "train.optimizer.learning_rate", "train.ema", "train.swa", "vars"),
    *("train.callbacks.0", "objective", "objective.loss", "data", "data.inputs.image.kind", "data.augment"),
    *("vars.width", "data.inputs", "runtime", "a", "data.drop", "train.epochs", "train.layer_rates", "train"),
)  # fmt: skip
FUZZ_VALUES = st.recursive(
    st.sampled_from(["mlp", "cnn", "cosine", "adam", "${width}", "${no}", "$", "image", 8, 0, -1, 0.5, None, True]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "width", "image", "epochs", "0"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FUZZ_ENDS = st.lists(st.sampled_from([0, 1, 2, 8, 0.5, 1e-3, -1, "x"]), min_size=2, max_size=2)
FUZZ_ENTRIES = st.one_of(
    st.just("bool"),
    st.fixed_dictionaries(
        {"choice": st.lists(FUZZ_VALUES, max_size=3)},
        optional={"when": st.dictionaries(st.sampled_from(FUZZ_PATHS), FUZZ_VALUES, max_size=2)},
    ),
    st.fixed_dictionaries({}, optional={key: FUZZ_ENDS for key in ("int", "float", "log")} | {"step": FUZZ_VALUES}),
)


@settings(LAW, max_examples=150)
@given(entries=st.dictionaries(st.sampled_from(FUZZ_PATHS), FUZZ_ENTRIES, min_size=1, max_size=5))
def test_any_space_is_accepted_or_refused_with_places(tmp_path: Path, entries: dict[str, Any]) -> None:
    lines = "\n".join(f"{path}: {json.dumps(entry)}" for path, entry in entries.items())
    file = write(tmp_path, recipe(lines))
    faults: tuple[Fault, ...] | None = None
    try:
        load_search(file)
    except BmcliError as error:
        faults = error.faults
    assert faults is None or (faults and all(where(fault)[1] > 10 for fault in faults))


def test_each_value_of_a_sound_space_is_a_candidate_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, recipe(SPACE))
    loaded = load_search(file)
    assert loaded.recipe.tune is not None
    parameters = loaded.recipe.tune.space
    for path, each in parameters.items():
        context = {other: values[0] for other, values in collect_conditions(path, parameters).items()}
        assert each.is_active(context)
        candidates = [{**context, path: value} for value in each.values_to_try()]
        found = [loaded.with_values(values).recipe for values in candidates]
        assert found == [load_recipe(file, format_overrides(values)).recipe.without_tune() for values in candidates]
        assert all(recipe not in found[:position] for position, recipe in enumerate(found))


# Candidates

CANDIDATE = {
    "train.optimizer.learning_rate": 0.00123, "model.kind": "mlp", "model.hidden": [64, 32], "model.dropout": 0.3,
    "train.batch_size": 32, "data.augment.image": ["flip"], "train.schedule": "cosine", "seed": 7, "data.seed": 4,
    "vars.width": 12,
}  # fmt: skip


@pytest.mark.parametrize("values", [CANDIDATE, {"vars.width": 3}, {"train.optimizer.kind": "sgd"}, {"train.ema": None}])
def test_a_candidate_is_the_same_however_it_is_laid_over(tmp_path: Path, values: dict[str, Any]) -> None:
    loaded = load_recipe(write(tmp_path, recipe(SPACE)), ["train.epochs=3"])
    found = loaded.with_values(values)
    other = tmp_path / "elsewhere" / "base.yaml"
    other.parent.mkdir()
    other.write_text(render_base(loaded))
    assert found.recipe == load_recipe(str(other), format_overrides(values)).recipe
    assert (
        found.recipe
        == load_recipe(str(loaded.file), ["train.epochs=3", *format_overrides(values)]).recipe.without_tune()
    )
    assert found.recipe.tune is None
    assert found.recipe.train.epochs == 3


def test_a_base_keeps_the_paths_of_its_recipe(tmp_path: Path) -> None:
    text = "name: a\nvars: {to: $$data}\ndata: {source: {kind: csv, path: '${to}/a.csv'}, targets: {label: category}}\n"
    loaded = load_recipe(write(tmp_path, f"{text}model: mlp\n"))
    again = load_recipe(write(tmp_path / "deep", render_base(loaded)))
    assert again.recipe == loaded.recipe
    assert again.recipe.data.source.path == str(tmp_path / "$data/a.csv")  # type: ignore[attr-defined]


def test_a_candidate_renders_to_a_recipe_without_a_search(tmp_path: Path) -> None:
    found = load_recipe(write(tmp_path, recipe(SPACE))).with_values(CANDIDATE)
    text = render_recipe(found.recipe, found.tree)
    assert "tune" not in text
    assert "# search: model.kind=mlp" in text
    assert load_recipe(write(tmp_path, text, "best.yaml")).recipe == found.recipe


def test_a_rendered_recipe_without_its_search_keeps_the_rest(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, recipe(SPACE)))
    again = load_recipe(write(tmp_path, render_recipe(loaded.recipe.without_tune(), loaded.tree), "lock.yaml"))
    assert again.recipe == loaded.recipe.without_tune()


def test_an_impossible_candidate_names_its_values(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, recipe(SPACE)))
    with pytest.raises(BmcliError) as caught:
        loaded.with_values({"model.kind": "mlp", "model.filters": [8]})
    (found,) = caught.value.faults
    assert found.path == 'tune.space."model.filters"', "the user wrote the values of candidates there"
    assert found.place is not None
    assert found.place.text.strip().startswith("model.filters:")
    assert found.message == "no such key. The candidate: model.kind=mlp model.filters=[8]."


@LAW
@given(value=SCALARS, key=KEYS)
@example(value=3, key="Credential")
@example(value=None, key="hf_token")
def test_an_argument_reads_back_to_its_value(tmp_path: Path, value: Any, key: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE.replace("  space:\n", "  space: {model.dropout: {float: [0, 0.5]}}\n"))
    path = join_steps(("vars", key))
    found = load_recipe(str(file), format_overrides({path: value})).recipe.vars
    # The value of a variable that names a secret is dropped while the recipe is read.
    expected = redaction.HIDDEN if redaction.is_secret(key) and value is not None else value
    assert repr(found.get(key)) == repr(expected)
    assert split_path(path) == ("vars", key) or key.isdecimal()


@LAW
@given(value=TREES)
def test_lists_and_mappings_read_back_from_arguments(value: Any) -> None:
    (argument,) = format_overrides({"data.x": value})
    read = nodes.parse_tree(argument.removeprefix("data.x="), "", Path()).plain()
    assert repr(as_lists(read)) == repr(escape_dollars(as_lists(value)))


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    import numpy as np

    assert format_overrides({"train.ema": np.float64(0.5)}) == ["train.ema=0.5"]
    with pytest.raises(TypeError, match="int64"):
        format_overrides({"train.epochs": np.int64(3)})


# The seed of the data


def test_the_data_has_the_recipes_seed_unless_it_has_its_own(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, recipe(SPACE)))
    assert loaded.recipe.data_seed == 4
    assert loaded.with_values({"seed": 9}).recipe.data_seed == 9
    assert loaded.with_values({"seed": 9, "data.seed": 0}).recipe.data_seed == 0


def test_contexts_are_bounded(tmp_path: Path) -> None:
    """A value is not tried beside every combination of many conditions."""
    when = ", ".join(f"train.optimizer.{name}: [1, 2, 3]" for name in ("beta_1", "beta_2", "epsilon", "weight_decay"))
    entries = "".join(
        f"train.optimizer.{name}: {{choice: [1, 2, 3]}}\n" for name in ("beta_1", "beta_2", "epsilon", "weight_decay")
    )
    tried: list[Any] = []
    real = space._SpaceCheck._build_recipe
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            space._SpaceCheck, "_build_recipe", lambda self, values: tried.append(values) or real(self, values)
        )
        load_search(write(tmp_path, recipe(f"{entries}model.dropout: {{float: [0, 0.5], when: {{{when}}}}}")))
    assert len(tried) < 50
