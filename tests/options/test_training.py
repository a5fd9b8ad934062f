"""Another value of an option of the section `train` or of an objective changes what is trained, measured or kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import runs
from bmcli.distribution import strategy
from bmcli.recipe.schema import Recipe
from bmcli.training import prepare_data
from bmcli.training.loss import compute_label_losses
from bmcli.training.objective_batch import prepare_examples
from bmcli.workflows.assembly import build_trainer
from bmcli.workflows.decisions import calibrate_network
from tests.options.law import Change, Subject, find_idle_options
from tests.options.sights import describe_archive, digest, eager_steps, make_archive, make_network
from tests.options.test_data import make_table
from tests.trainers import Silent

_TIMES = ("seconds", "examples_per_second")


def see_training(recipe: Recipe, folder: Path, cache: Path) -> str:
    """Digest the kept weights, the metrics of all epochs, why the training ended, and the files of the run."""
    prepared = prepare_data(recipe, cache)
    network = make_network(recipe, prepared)
    run = runs.create(folder / "runs", recipe.name)
    watcher = Silent()
    with eager_steps():
        placement = strategy.create_placement(recipe.runtime)
        outcome = build_trainer(recipe, network, prepared, placement, run, cache).train(watcher)
    rows = [{name: value for name, value in row.items() if name not in _TIMES} for row in watcher.rows]
    weights = [weight.numpy() for weight in outcome.network.model.weights]
    files = sorted(path.parent.name for path in run.events.rglob("*.tfevents*"))
    return digest(weights, rows, outcome.selected_epoch, outcome.steps, outcome.stop_reason, files)


_SEQUENCES = {"data.inputs": {"text": {"kind": "number"}}, "model": {"kind": "rnn", "units": 2}}
FAST = {"kind": "sgd", "learning_rate": 1.5}
SGD = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9}


def make_recipe(folder: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "steps",
        "data": describe_archive(make_archive(folder), ("age", "city")),
        "model": {"kind": "mlp", "hidden": [4]},
        "train": {"epochs": 3, "batch_size": 8, "tensorboard": False, "optimizer": SGD, "select": {"metric": "last"},
                  **train},
        "runtime": {"jit": False, "strategy": "one_device"},
    }  # fmt: skip


# By owner: its place, options of `train` in both recipes, and values that the schema cannot suggest.
TRAIN: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "TrainOptions": (
        "train",
        {},
        {
            "batch_size": 4,
            "gradient_accumulation": Change(2, {"model.normalization": "batch"}),
            "optimizer": "adam",
            "schedule": "cosine",
            "metrics": ["categorical_accuracy"],
            "callbacks": [{"kind": "reduce_lr_on_plateau", "monitor": "loss", "patience": 1, "min_delta": 5.0}],
            "swa": {"start": 0.3},
            "curriculum": Change({}, _SEQUENCES),
            "layer_rates": {"*/kernel": 0.5},
            "tensorboard": True,
        },
        {},
    ),
    "SelectOptions": ("train.select", {"optimizer": FAST}, {"metric": "train/accuracy"}, {}),
    "StopOptions": (
        "train.stop",
        {"epochs": 8, "stop": {}},
        {
            "patience": Change(1, {"train.optimizer": FAST}),
            "min_delta": Change(10.0, {"train.stop.patience": 2}),
            "overfit": Change(1, {"train.optimizer": FAST}),
            "steps": 2,
            "time": "1ms",
            "metric": Change("train/accuracy", {"train.stop": {"metric": "train/loss", "above": 0.5}}),
            "above": Change(100.0, {"train.stop": {"metric": "train/loss", "above": 0.0}}),
            "below": Change(0.0, {"train.stop": {"metric": "train/loss", "below": 100.0}}),
        },
        {},
    ),
    "SwaOptions": ("train.swa", {"epochs": 6, "swa": {"start": 0.5}}, {"start": 0.2}, {}),
    "CurriculumOptions": (
        "train.curriculum", {"curriculum": {"input": "text", "epochs": 1}}, {"input": "words"}, {}
    ),
    "prune.weights": (
        "train.prune",
        {"epochs": 4, "prune": {"kind": "weights", "sparsity": 0.5, "start": 0.0, "end": 0.9, "updates": 4}},
        {"layers": {"dense/*": 0}},
        {},
    ),
    "prune.channels": (
        "train.prune",
        {"epochs": 4, "prune": {"kind": "channels", "sparsity": 0.5, "start": 0.0, "end": 0.9, "updates": 4}},
        {"widths": {"hidden": [3]}, "sparsity": 0.25},
        {},
    ),
    "QuantizeAwareOptions": (
        "train.quantize_aware", {"epochs": 4, "quantize_aware": {"start": 0.25}}, {"start": 0.5}, {}
    ),
    **{
        f"schedules.{kind}": (
            "train.schedule",
            {"schedule": {"kind": kind, "warmup": 0.4}},
            {"warmup": 0.9, "span": 2},
            {},
        )
        for kind in ("constant", "cosine", "linear")
    },
    "keras.callbacks.reduce_lr_on_plateau": (
        "train.callbacks.0",
        {"epochs": 6, "callbacks": [{"kind": "reduce_lr_on_plateau", "monitor": "loss", "patience": 1,
                                     "min_delta": 1.0}]},
        {
            "monitor": Change("accuracy", {"train.callbacks.0.min_delta": 0.0, "train.optimizer": FAST}),
            "patience": 2, "min_delta": 0.0, "factor": 0.5, "cooldown": 3, "min_lr": 0.05,
            "mode": Change("max", {"train.callbacks.0.min_delta": 0.0}),
        },
        {},
    ),
    "keras.callbacks.early_stopping": (
        "train.callbacks.0",
        {"epochs": 10, "optimizer": FAST,
         "callbacks": [{"kind": "early_stopping", "monitor": "loss", "patience": 3, "min_delta": 0.0}]},
        {"monitor": "accuracy", "patience": 1, "min_delta": 5.0, "baseline": -5.0, "mode": "max",
         "start_from_epoch": Change(6, {"train.callbacks.0.patience": 1})},
        {},
    ),
}  # fmt: skip


def make_subject(owner: str, folder: Path, cache: Path) -> Subject:
    place, train, changes, elsewhere = TRAIN[owner]
    recipe = make_recipe(folder, **train)
    if owner == "CurriculumOptions":
        texts = {name: {"kind": "number"} for name in ("text", "words")}
        recipe["data"]["inputs"], recipe["model"] = texts, {"kind": "mlp", "hidden": [4], "sequences": "mean"}
    return Subject(owner, place, recipe, (partial(see_training, folder=folder, cache=cache),), changes, elsewhere)


_SLOW = {"keras.callbacks.early_stopping", "keras.callbacks.reduce_lr_on_plateau"}  # many epochs


@pytest.mark.parametrize("owner", [pytest.param(each, marks=[pytest.mark.slow] * (each in _SLOW)) for each in TRAIN])
def test_no_option_of_the_training_is_idle(owner: str, tmp_path: Path, cache: Path) -> None:
    assert find_idle_options(make_subject(owner, tmp_path, cache), tmp_path) == []


def see_objective(recipe: Recipe, cache: Path) -> str:
    """Digest losses of fixed outputs, and what is decided on the validation rows."""
    prepared = prepare_data(recipe, cache)
    network = make_network(recipe, prepared)
    rows = prepared.split("train")
    draw = np.random.default_rng(1)
    model = network.model
    outputs = {name: tf.constant(draw.normal(size=(len(rows), *tensor.shape[1:])), tf.float32)
               for name, tensor in model.output.items()}  # fmt: skip
    examples = {"targets": {name: tf.constant(np.asarray(array)) for name, array in rows.targets.items()}}
    losses = compute_label_losses(network, examples, outputs).by_example.numpy()
    placement = strategy.create_placement(recipe.runtime)
    decided = calibrate_network(recipe, network, prepared, placement, lambda text: None)
    predictions = {name: objective.predict(outputs[name]) for name, objective in decided.network.objectives.items()}
    states = [output.state for output in decided.spec.outputs]
    return digest(losses, {name: np.asarray(each) for name, each in predictions.items()}, states)


OBJECTIVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classification": (
        "is_high", "category",
        {"class_weights": {"yes": 3.0}, "beta": Change(0.5, {"objective.class_weights": "effective"}), "loss": "hinge"},
    ),
    "count": ("visits", "count", {}),
    "multi_label": (
        "tags", "labels",
        {"beta": Change(0.5, {"objective.class_weights": "effective"}), "loss": "binary_focal_crossentropy"},
    ),
    "ordinal": ("grade", "ordered", {"beta": Change(0.5, {"objective.class_weights": "effective"})}),
    "quantile": ("price", "number", {"quantiles": [0.2, 0.8]}),
    "regression": ("price", "number", {"loss": "mean_absolute_error"}),
}  # fmt: skip
OWNERS = (
    *TRAIN, *(f"objectives.{kind}" for kind in (*OBJECTIVES, "causal_language_model", "masked_language_model")),
    "ThresholdOptions", "PeriodicOptions",
)  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_no_option_of_an_objective_is_idle(kind: str, tmp_path: Path, cache: Path) -> None:
    target, target_kind, changes = OBJECTIVES[kind]
    recipe = make_recipe(tmp_path)
    recipe["data"] = describe_archive(make_archive(tmp_path), ("age", "city"), target, target_kind)
    recipe["objective"] = {"kind": kind}
    sights = (partial(see_objective, cache=cache),)
    assert find_idle_options(Subject(f"objectives.{kind}", "objective", recipe, sights, changes), tmp_path) == []


def see_token_losses(recipe: Recipe, cache: Path) -> str:
    """Digest losses of fixed outputs for the tokens that the first step asks for."""
    prepared = prepare_data(recipe, cache)
    network = make_network(recipe, prepared)
    rows = prepared.split("train")
    draw = np.random.default_rng(1)
    outputs = {name: tf.constant(draw.normal(size=(len(rows), *tensor.shape[1:])), tf.float32)
               for name, tensor in network.model.output.items()}  # fmt: skip
    inputs = {name: tf.constant(np.asarray(array)) for name, array in rows.inputs.items()}
    targets = {} if network.objectives[recipe.objective.kind].changes_batch else {recipe.objective.kind: inputs}
    examples = prepare_examples(network, {"inputs": inputs, "targets": targets}, 0, 0, len(rows), None, training=True)
    return digest(compute_label_losses(network, examples, outputs).by_unit[recipe.objective.kind].losses.numpy())


LANGUAGE_MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "causal_language_model": ({"encoding": "written", "length": 8}, {}, {
        "input": "tests/objectives/test_causal_language_model.py::test_one_of_two_texts_is_chosen",
        "tied": "tests/objectives/test_causal_language_model.py::"
                "test_a_tied_head_shares_the_embedding_in_training_saving_and_writing",
    }),
    "masked_language_model": (
        {"encoding": "sequence", "mask": True, "tokens": "characters", "length": 30}, {"rate": 0.5},
        {"input": "tests/objectives/test_masked_language_model.py::test_one_of_two_texts_is_chosen"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_no_option_of_a_language_model_is_idle(kind: str, tmp_path: Path, cache: Path) -> None:
    text, changes, elsewhere = LANGUAGE_MODELS[kind]
    recipe = make_recipe(tmp_path)
    source = {"kind": "csv", "path": str(make_table(tmp_path))}
    recipe["data"] = {"source": source, "inputs": {"note": {"kind": "text", **text}}}
    recipe["model"] = {"kind": "rnn", "units": 2}
    recipe["objective"] = {"kind": kind}
    subject = Subject(
        f"objectives.{kind}", "objective", recipe, (partial(see_token_losses, cache=cache),), changes,
        elsewhere=elsewhere,
    )  # fmt: skip
    assert find_idle_options(subject, tmp_path) == []


def test_no_option_of_a_threshold_is_idle(tmp_path: Path, cache: Path) -> None:
    recipe = make_recipe(tmp_path)
    recipe["data"] = describe_archive(make_archive(tmp_path, validation=99), ("age", "city"), "is_high")
    recipe["objective"] = {"kind": "classification", "threshold": {"goal": "cost"}}
    changes = {
        "goal": "f1",
        "false_positive": 30.0,
        "false_negative": 30.0,
        "precision": Change(0.9, {"objective.threshold": {"goal": "recall", "precision": 0.2}}),
    }
    sights = (partial(see_objective, cache=cache),)
    subject = Subject("ThresholdOptions", "objective.threshold", recipe, sights, changes)
    assert find_idle_options(subject, tmp_path) == []


def test_no_option_of_a_periodic_embedding_is_idle(tmp_path: Path, cache: Path) -> None:
    from tests.options.sights import see_network

    recipe = make_recipe(tmp_path)
    recipe["model"]["periodic"] = {"frequencies": 4}
    sights = (partial(see_network, cache=cache),)
    assert find_idle_options(Subject("PeriodicOptions", "model.periodic", recipe, sights), tmp_path) == []
