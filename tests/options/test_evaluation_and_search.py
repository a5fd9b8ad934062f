"""Another value of an option of `evaluate` or `tune` changes what is measured or tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.objectives import open_answers
from bmcli.recipe.schema import Recipe
from bmcli.training import prepare_data
from bmcli.tuning.oracle import Oracle
from bmcli.workflows.evaluation import RawColumnReader, check_evaluation, evaluate_predictions
from tests.options.law import Change, Subject, find_idle_options, load
from tests.options.sights import digest
from tests.options.test_data import make_recipe, make_table


def see_evaluation(recipe: Recipe, folder: Path) -> str:
    """Digest all figures of random predictions of a split."""
    prepared = prepare_data(recipe, folder)
    check_evaluation(recipe, prepared.spec)
    rows, answers = prepared.split(recipe.evaluate.split), open_answers(prepared.spec)
    truth = {name: each.read_truth(rows) for name, each in answers.items()}
    draw = np.random.default_rng(5)
    predictions = {}
    for target in prepared.spec.targets:
        scores = draw.random((len(rows), len(target.classes)))
        predictions[target.name] = (scores / scores.sum(axis=1, keepdims=True)).astype("float32")
    reader = RawColumnReader(recipe, recipe.evaluate.split)
    return repr(evaluate_predictions(recipe, prepared.spec, answers, truth, predictions, reader))


GROUPED = {"data.split": {"validation": 0.2, "test": 0.5}}
EVALUATION: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "EvaluateOptions": (
        "evaluate",
        {},
        {"top_k": 2, "slices": ["city"], "fairness": {"columns": ["flag"]}},
        {
            "gates": "tests/commands/test_evaluate.py::test_groups_are_compared_and_gates_hold_them",
            "folds": "tests/commands/test_folds.py::test_gates_hold_the_mean_of_folds_and_recipes_can_ask_for_them",
        },
    ),
    "IntervalOptions": ("evaluate.intervals", {}, {"group": "group"}, {}),
    "SliceOptions": ("evaluate.slices.0", {"slices": [{"columns": ["size"], "bins": 2}]}, {"columns": ["city"]}, {}),
    "FairnessOptions": (
        "evaluate.fairness",
        {"fairness": {"columns": ["flag"], "target": "label"}},
        {"columns": ["city"], "target": "grade", "positive": "red"},
        {},
    ),
}


OWNERS = (*EVALUATION, "algorithms.bayesian", "algorithms.hyperband")


@pytest.mark.parametrize("owner", EVALUATION)
def test_no_option_of_an_evaluation_is_idle(owner: str, tmp_path: Path, cache: Path) -> None:
    place, options, changes, elsewhere = EVALUATION[owner]
    targets = {"label": {"kind": "category"}, "grade": {"kind": "category"}}
    recipe = make_recipe(make_table(tmp_path), targets=targets, split={"validation": 0.2, "test": 0.5})
    recipe["evaluate"] = {"intervals": {"resamples": 200}, **options}
    subject = Subject(owner, place, recipe, (lambda each: see_evaluation(each, cache),), changes, elsewhere)
    assert find_idle_options(subject, tmp_path) == []


def see_candidates(recipe: Recipe) -> str:
    """Digest the first candidates of a search, which tells the oracle some scores."""
    assert recipe.tune is not None
    oracle = Oracle(recipe.tune.algorithm, recipe.tune.space, 3, epochs=9)
    answers = []
    for number in range(14):
        answer = oracle.suggest()
        answers.append(repr(answer))
        if isinstance(answer, str):
            break
        oracle.report_score(number, float(len(repr(answer)) % 5))
    oracle.close()
    return digest(answers)


def make_search(**tune: Any) -> dict[str, Any]:
    return {
        "name": "search",
        "data": {"source": {"kind": "builtin", "name": "iris"}},
        "model": {"kind": "mlp"},
        "tune": {"space": {"train.optimizer.learning_rate": {"log": [0.001, 0.1]}}, **tune},
    }


@pytest.mark.parametrize("kind", ["bayesian", "hyperband"])
def test_no_option_of_an_algorithm_is_idle(kind: str, tmp_path: Path) -> None:
    changes = {"bayesian": {"beta": Change(90.0, {"tune.algorithm.initial": 2}), "initial": 6},
               "hyperband": {"factor": 2, "iterations": Change(2, {"tune.algorithm.factor": 9})}}[kind]  # fmt: skip
    recipe = make_search(algorithm={"kind": kind})
    subject = Subject(f"algorithms.{kind}", "tune.algorithm", recipe, (see_candidates,), changes)
    assert find_idle_options(subject, tmp_path) == []


# An entry with each option, and another value of the option.
SPACES: dict[str, tuple[dict[str, Any], Any]] = {
    "choice": ({"choice": [4, 8]}, [8, 16]),
    "int": ({"int": [2, 9]}, [4, 20]),
    "float": ({"float": [0.1, 0.9]}, [0.2, 0.5]),
    "log": ({"log": [0.1, 0.9]}, [0.2, 0.5]),
    "step": ({"int": [2, 9], "step": 1}, 3),
    "scale": ({"int": [2, 9], "scale": "linear"}, "log"),
}
CONDITIONS = "tests/tuning/test_oracle.py::test_values_are_those_of_the_space_and_conditions_hold"


@pytest.mark.parametrize("option", SPACES)
def test_no_option_of_a_search_space_is_idle(option: str, tmp_path: Path) -> None:
    entry, value = SPACES[option]
    path = "model.dropout" if option in ("float", "log") else "train.epochs"
    first, second = (
        see_candidates(load(make_search(algorithm="random", space={path: each}), tmp_path))
        for each in (entry, {**entry, option: value})
    )
    assert first != second
