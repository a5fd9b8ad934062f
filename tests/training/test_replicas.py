"""Replica invariance: a training computes the same on any number of replicas as on one device."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.distribution import strategy
from bmcli.errors import Interrupted
from bmcli.models import VECTOR
from bmcli.objectives import classification, count, multi_label, ordinal, regression
from bmcli.training import prepare_data
from bmcli.training.predictor import predict
from bmcli.training.trainer import Trainer
from tests.trainers import FAMILIES, LARGE, TARGETS, MakeTrainer, Silent, same, table, weights_of
from tests.training.test_trainer import StopsAt

TOLERANCE = 1e-5
ADAM = "train.optimizer={kind: adam, learning_rate: 1e-2, epsilon: 1e-4}"


def trained(trainer: Trainer) -> tuple[list[np.ndarray], dict[str, float]]:
    """The weights after a training, and the metrics of its last epoch."""
    watch = Silent()
    trainer.train(watch)
    return weights_of(trainer), {name: value for name, value in watch.rows[-1].items() if "/" in name}


def distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def agree(one: Trainer, *others: Trainer, tolerance: float = TOLERANCE) -> None:
    """Train all, and require the same weights and metrics."""
    weights, metrics = trained(one)
    assert {"train/loss", "validation/loss"} <= set(metrics)
    for other in others:
        other_weights, other_metrics = trained(other)
        assert distance(weights, other_weights) <= tolerance
        assert other_metrics == pytest.approx(metrics, abs=tolerance, rel=tolerance)


def on_each(variable: Any, trainer: Trainer) -> list[np.ndarray]:
    """Values of a variable on each replica."""
    return [value.numpy() for value in trainer.placement.strategy.experimental_local_results(variable.value)]


def test_every_family_is_among_the_cases() -> None:
    assert parts.names("models")
    assert {*FAMILIES, *LARGE} == set(parts.names("models"))


@pytest.mark.parametrize(
    ("kind", "rest", "replicas"),
    [
        pytest.param(
            kind,
            rest,
            count,
            marks=() if (rest, count) == (1, 4) and kind in ("mlp", "cnn") else pytest.mark.slow,
        )
        for kind in FAMILIES
        for rest in (1, 3, 5)
        for count in (2, 4)
    ],
)
def test_replicas_learn_what_one_device_learns(make_family: MakeTrainer, kind: str, rest: int, replicas: int) -> None:
    one, many = (make_family(kind, rows=16 + rest, replicas=count) for count in (1, replicas))
    assert one.feed.count % one.batch == rest
    agree(one, many)


SETTINGS = {
    "sample weights": ("data.weight=worth", ADAM),
    "class weights": ("objective={kind: classification, class_weights: balanced}", ADAM),
    "both weights": ("data.weight=worth", "objective={kind: classification, class_weights: {low: 3.0}}"),
    "l2": ("model.kernel_regularizer={kind: l2, l2: 0.05}", ADAM),
    "accumulation": ("train.gradient_accumulation=3",),
    "accumulation and l2": (
        "train.gradient_accumulation=3",
        "model.kernel_regularizer={kind: l2, l2: 0.05}",
        "data.weight=worth",
    ),
    "global_clipnorm": ("train.optimizer.global_clipnorm=0.1",),
    "clipnorm": ("train.optimizer.clipnorm=0.05",),
    "clipvalue": ("train.optimizer.clipvalue=0.01",),
    "adamw": ("train.optimizer={kind: adamw, learning_rate: 1e-2, epsilon: 1e-4, weight_decay: 0.1}",),
    "cosine": (ADAM, "train.schedule={kind: cosine, warmup: 0.3, floor: 0.1}"),
    "ema": (ADAM, "train.ema=0.9"),
    "swa": (ADAM, "train.swa.start=0.3"),
    "schedule-free": (ADAM, "train.schedule_free=true", "train.schedule={kind: constant, warmup: 0.3}"),
    "curriculum": ("data.inputs.text=number", "train.curriculum={epochs: 2}"),
    "layer rates": (
        "train.optimizer={kind: adamw, learning_rate: 1e-2, epsilon: 1e-4, weight_decay: 0.1}",
        "train.layer_rates={'*/kernel': 0.2, 'dense/*': 0.0}",
    ),
    "streaming": ("runtime.feed=streaming",),
}


USUAL = ("accumulation and l2", "global_clipnorm")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.slow) for n in SETTINGS])
@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_replicas_learn_the_same_with_each_setting(make_family: MakeTrainer, name: str, replicas: int) -> None:
    settings = SETTINGS[name]
    agree(make_family("mlp", *settings), make_family("mlp", *settings, replicas=replicas))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in ("accumulation", "streaming", "curriculum")])
def test_each_setting_changes_what_is_learned(make_family: MakeTrainer, name: str) -> None:
    """So that the law above is not one of settings without effect."""
    settings = SETTINGS[name]
    plain = tuple(setting for setting in settings if setting == ADAM)
    assert distance(trained(make_family("mlp", *settings))[0], trained(make_family("mlp", *plain))[0]) > 1e-3


def test_accumulating_gradients_changes_nothing(make_family: MakeTrainer) -> None:
    settings = ("model.kernel_regularizer={kind: l2, l2: 0.05}", "data.weight=worth")
    agree(
        make_family("mlp", *settings, rows=21),
        *(make_family("mlp", *settings, f"train.gradient_accumulation={n}", rows=21) for n in (3, 50)),
    )


@pytest.mark.parametrize("rest", [1, 5])
def test_the_streaming_feed_gives_the_bits_of_the_resident_one(make_family: MakeTrainer, rest: int) -> None:
    resident, streaming = (
        trained(make_family("mlp", f"runtime.feed={feed}", "data.weight=worth", rows=16 + rest))
        for feed in ("resident", "streaming")
    )
    assert same(resident[0], streaming[0])
    assert resident[1] == streaming[1]


def test_replicas_learn_the_same_with_xla(make_family: MakeTrainer) -> None:
    agree(
        make_family("mlp", "runtime.jit=true"),
        make_family("mlp", "runtime.jit=true", replicas=2),
        make_family("mlp", replicas=2),
        tolerance=1e-4,
    )


def test_replicas_scale_losses_alike_in_mixed_float16(make_family: MakeTrainer) -> None:
    """Half precision keeps 11 bits, so that a share of a batch, summed in another order, differs by 1e-3 or so."""
    one, four = (make_family("mlp", "train.precision=mixed_float16", replicas=replicas) for replicas in (1, 4))
    agree(one, four, tolerance=5e-3)
    for name in ("dynamic_scale", "step_counter"):
        expected = np.asarray(getattr(one.components.optimizer, name).numpy())
        assert all(np.array_equal(value, expected) for value in on_each(getattr(four.components.optimizer, name), four))


OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classification": ("label", ("objective={kind: classification, class_weights: effective, beta: 0.9}",)),
    "focal": ("label", ("objective={kind: classification, loss: categorical_focal_crossentropy}",)),
    "regression": ("price", ("data.targets.price.scale=log",)),
    "multi_label": ("tags", ("objective={kind: multi_label, class_weights: balanced}", "data.weight=worth")),
    "focal labels": ("tags", ("objective={kind: multi_label, loss: binary_focal_crossentropy}",)),
    "ordinal": ("grade", ("objective={kind: ordinal, class_weights: balanced}",)),
    "count": ("visits", ("data.weight=worth",)),
    "quantile": ("price", ("objective=quantile", "data.weight=worth")),
}


def test_every_objective_of_a_target_is_among_the_cases() -> None:
    """Those of steps are among the cases of objectives in steps."""
    kinds = {kind: parts.load("objectives", kind) for kind in parts.names("objectives")}
    assert set(OBJECTIVES) >= {name for name, kind in kinds.items() if kind.TARGETS and kind.REQUEST == VECTOR}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_learn_the_same_with_each_objective(make_family: MakeTrainer, name: str, replicas: int) -> None:
    target, settings = OBJECTIVES[name]
    agree(*(make_family("mlp", ADAM, *settings, target=target, replicas=count) for count in (1, replicas)))


@pytest.fixture
def several_targets(tmp_path: Path) -> dict[str, Any]:
    """A recipe of a table with a target of every kind to predict, each with a weight."""
    columns = {name: values for name, values in table(33).items() if values.ndim == 1}
    split = ["train"] * 21 + ["validation"] * 12
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "part"])
        writer.writerows(zip(*columns.values(), split, strict=True))
    return {
        "bmcli": 1,
        "name": "two-targets",
        "data": {
            "source": {"kind": "csv", "path": str(tmp_path / "table.csv")},
            "split": {"column": "part"},
            "inputs": {"city": {"kind": "category"}, "worth": {"kind": "number"}, "is_high": {"kind": "category"}},
            "targets": {name: {"kind": TARGETS[name]} for name in ("label", "price", "tags", "grade", "visits")},
        },
        "model": {"kind": "mlp", "hidden": [8]},
        "objective": {
            "label": {"kind": "classification", "weight": 0.3, "class_weights": "balanced"},
            "price": {"kind": "quantile", "weight": 2.0},
            "tags": {"kind": "multi_label", "weight": 3.0, "class_weights": {"small": 2.0}},
            "grade": {"kind": "ordinal", "weight": 0.5},
            "visits": {"kind": "count", "weight": 0.1},
        },
        "train": {"epochs": 3, "batch_size": 9, "tensorboard": False, "select": {"metric": "last"}},
        "runtime": {"jit": False},
    }


@pytest.mark.slow
def test_replicas_learn_several_targets_alike(make_from: MakeTrainer, several_targets: dict[str, Any]) -> None:
    """Targets of every kind of one answer a row, each with a weight and its usual objective or quantiles."""
    kinds = {target["kind"] for target in several_targets["data"]["targets"].values()}
    assert kinds == set(parts.names("data.targets")) - {"tags"}
    agree(*(make_from(several_targets, ADAM, replicas=replicas) for replicas in (1, 4)))


REQUIRED = {
    "precision_at_recall": "recall",
    "recall_at_precision": "precision",
    "sensitivity_at_specificity": "specificity",
    "specificity_at_sensitivity": "sensitivity",
}
FOR_MORE = ("sparse_top_k_categorical_accuracy", "top_k_categorical_accuracy")


def list_options(metric: str) -> dict[str, Any]:
    return {REQUIRED[metric]: 0.5} if metric in REQUIRED else {"k": 2} if metric in FOR_MORE else {}


def described(metric: str) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in {"kind": metric, **list_options(metric)}.items()) + "}"


def named(metric: str) -> str:
    """The name of a metric, which tells its options."""
    return f"{metric}_0.5" if metric in REQUIRED else f"{metric}_k_2" if metric in FOR_MORE else metric


every_metric = pytest.mark.parametrize(
    ("target", "metrics"),
    [
        pytest.param(
            "label",
            [name for name in classification.METRICS if not name.startswith("binary_")],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "is_high", [name for name in classification.METRICS if name not in FOR_MORE], marks=pytest.mark.slow
        ),
        ("price", list(regression.METRICS)),
        pytest.param("tags", list(multi_label.METRICS), marks=pytest.mark.slow),
        pytest.param("grade", list(ordinal.METRICS), marks=pytest.mark.slow),
        pytest.param("visits", list(count.METRICS), marks=pytest.mark.slow),
    ],
)


@every_metric
def test_every_metric_is_that_of_one_device(make_family: MakeTrainer, target: str, metrics: list[str]) -> None:
    setting = f"train.metrics=[{', '.join(map(described, metrics))}]"
    one, four = (
        trained(make_family("mlp", setting, "train.epochs=2", rows=21, target=target, replicas=replicas))[1]
        for replicas in (1, 4)
    )
    assert {f"{split}/{name}" for split in ("train", "validation") for name in map(named, metrics)} <= set(one)
    differing = {name: (one[name], four[name]) for name in one if four[name] != pytest.approx(one[name], abs=1e-4)}
    assert not differing


@every_metric
def test_every_metric_has_its_variables_before_the_first_step(
    make_family: MakeTrainer, target: str, metrics: list[str]
) -> None:
    """A checkpoint and the measurement of XLA take up the state of a trainer that has not trained yet."""
    trainer = make_family("mlp", f"train.metrics=[{', '.join(map(described, metrics))}]", target=target)
    before = [variable.path for variable in trainer.components.meters.variables]
    trained(trainer)
    assert [variable.path for variable in trainer.components.meters.variables] == before


@pytest.mark.parametrize(("replicas", "rows"), [(2, 13), (4, 13), (4, 3), (3, 1)])
def test_predictions_are_those_of_one_device_in_order(
    make_family: MakeTrainer, cache: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, rows: int
) -> None:
    monkeypatch.setattr("bmcli.training.predictor.BATCH_SIZE", 5)
    one, many = (make_family("mlp", validation=rows, replicas=count, target="price") for count in (1, replicas))
    recipe = one.recipe
    split = prepare_data(recipe, cache).split("validation")
    expected, found = (
        predict(trainer.network, split, recipe.runtime, trainer.placement)["price"] for trainer in (one, many)
    )
    assert expected.shape == (rows,)
    assert len(np.unique(expected)) == rows
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("replicas", "parts_of_batch"),
    [(2, 3), (4, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 1), (4, 3)))],
)
def test_every_example_counts_once(make_family: MakeTrainer, replicas: int, parts_of_batch: int) -> None:
    trainer = make_family("mlp", f"train.gradient_accumulation={parts_of_batch}", rows=17, replicas=replicas)
    trained(trainer)
    for meters, rows in ((trainer.components.meters, 17), (trainer.evaluator.meters, 9)):
        counted = {variable.path: float(variable.numpy()) for variable in meters.variables}
        assert counted["loss/count"] == rows
        assert counted["accuracy/count"] == rows


@pytest.mark.parametrize(("rows", "validation"), [(2, 3), pytest.param(5, 1, marks=pytest.mark.slow), (3, 0)])
def test_replicas_without_rows_of_their_own_change_nothing(
    make_family: MakeTrainer, rows: int, validation: int
) -> None:
    """Fewer rows than replicas, a batch larger than the data, and no row to validate with."""
    one, four = (
        trained(
            make_family(
                "mlp", "train.batch_size=64", rows=rows, validation=validation, target="price", replicas=replicas
            )
        )
        for replicas in (1, 4)
    )
    assert distance(one[0], four[0]) <= TOLERANCE
    assert four[1] == pytest.approx(one[1], abs=TOLERANCE, rel=TOLERANCE)


@pytest.mark.slow
def test_three_replicas_learn_a_number_like_one_device(make_family: MakeTrainer) -> None:
    agree(make_family("mlp", target="price"), make_family("mlp", target="price", replicas=3))


def drawn(trainer: Trainer, rows: int = 4) -> list[np.ndarray]:
    """Outputs of the network in training mode on each replica, all fed the same rows."""
    examples = {
        tensor.name: tf.ones((rows, *tensor.shape[1:]), tensor.dtype) for tensor in trainer.network.model.inputs
    }
    outputs = trainer.placement.strategy.run(
        tf.function(lambda inputs: trainer.network.model(inputs, training=True)["label"]), args=(examples,)
    )
    return [value.numpy() for value in trainer.placement.strategy.experimental_local_results(outputs)]


DROPOUT = "model.dropout=0.5"


def test_replicas_drop_different_units(make_family: MakeTrainer) -> None:
    replicas = drawn(make_family("mlp", DROPOUT, replicas=4))
    assert len(replicas) == 4
    assert len({outputs.tobytes() for outputs in replicas}) == 4


def test_replicas_without_dropout_give_equal_outputs(make_family: MakeTrainer) -> None:
    assert len({outputs.tobytes() for outputs in drawn(make_family("mlp", replicas=4))}) == 1


def test_the_first_replica_draws_what_one_device_draws(make_family: MakeTrainer) -> None:
    plain, apart = make_family("mlp", DROPOUT), make_family("mlp", DROPOUT)
    strategy.offset_replica_seeds(apart.network.model)
    mirrored = make_family("mlp", DROPOUT, replicas=2)
    for _ in range(3):
        (expected,), (found,) = drawn(plain), drawn(apart)
        assert found.tobytes() == expected.tobytes()
        np.testing.assert_allclose(drawn(mirrored)[0], expected, atol=1e-6)


def test_one_device_with_and_without_drawing_apart_learns_the_same_bits(make_family: MakeTrainer) -> None:
    plain, apart = make_family("mlp", DROPOUT), make_family("mlp", DROPOUT)
    strategy.offset_replica_seeds(apart.network.model)
    assert same(trained(plain)[0], trained(apart)[0])


@pytest.mark.parametrize("setting", [DROPOUT, "model.normalization=batch"])
def test_mirrored_trainings_have_the_same_bits(make_family: MakeTrainer, setting: str) -> None:
    first, second = (trained(make_family("mlp", setting, replicas=2)) for _ in range(2))
    assert same(first[0], second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_variable_is_the_same_on_all_replicas_afterwards(make_family: MakeTrainer, accumulation: int) -> None:
    """Moving statistics and the state of generators, too."""
    trainer = make_family(
        "mlp",
        DROPOUT,
        "model.normalization=batch",
        "train.ema=0.9",
        ADAM,
        f"train.gradient_accumulation={accumulation}",
        replicas=4,
    )
    before = {variable.path: variable.numpy() for variable in trainer.network.model.variables}
    trained(trainer)
    for variable in trainer.components.variables:
        first, *others = on_each(variable, trainer)
        assert len(others) == 3
        assert all(other.tobytes() == first.tobytes() for other in others), variable.path
    moved = {path for path, value in before.items() if "moving" in path or "seed" in path}
    after = {variable.path: variable.numpy() for variable in trainer.network.model.variables}
    assert any("moving_variance" in path for path in moved)
    assert any("seed" in path for path in moved)
    assert all(not np.array_equal(after[path], before[path]) for path in moved)


def test_moving_statistics_are_the_means_of_what_the_replicas_see(make_family: MakeTrainer) -> None:
    """Each replica normalizes its own half of a batch, so that its moving mean is that of the whole batch."""
    settings = ("model.normalization=batch", "train.epochs=1", "train.optimizer.learning_rate=1e-9")
    one, two = (make_family("mlp", *settings, rows=16, replicas=replicas) for replicas in (1, 2))
    trained(one)
    trained(two)
    means = [
        {v.path: v.numpy() for v in trainer.network.model.variables if "moving_mean" in v.path}
        for trainer in (one, two)
    ]
    assert means[0]
    for path, mean in means[0].items():
        np.testing.assert_allclose(means[1][path], mean, atol=TOLERANCE)


def test_a_run_resumes_to_the_same_weights_on_other_numbers_of_replicas(make_family: MakeTrainer) -> None:
    settings = (ADAM, "train.schedule={kind: cosine, warmup: 0.2}", "train.checkpoint.steps=2", "train.ema=0.9")
    whole, started = (make_family("mlp", *settings, rows=35) for _ in range(2))
    weights, metrics = trained(whole)
    with pytest.raises(Interrupted):
        started.train(StopsAt(2, signal.SIGTERM))
    resumed = make_family("mlp", *settings, rows=35, replicas=2, run=started.run)
    resumed.resume()
    assert 0 < resumed.progress.batch < resumed.steps_per_epoch
    with pytest.raises(Interrupted):
        resumed.train(StopsAt(8, signal.SIGINT))
    last = make_family("mlp", *settings, rows=35, replicas=4, run=started.run)
    last.resume()
    assert last.progress.step >= 8
    assert 0 < last.progress.batch < last.steps_per_epoch
    last_weights, last_metrics = trained(last)
    assert distance(weights, last_weights) <= TOLERANCE
    assert last_metrics == pytest.approx(metrics, abs=TOLERANCE, rel=TOLERANCE)
    rows = [[row[name] for row in trainer.run.read_epochs() for name in metrics] for trainer in (whole, last)]
    assert len(rows[0]) == 3 * len(metrics)
    assert rows[1] == pytest.approx(rows[0], abs=TOLERANCE, rel=TOLERANCE)
