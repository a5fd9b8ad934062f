"""Averages of weights: the plain mean of the last epochs, and the mean of schedule-free steps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.training import checkpoint, evaluator
from bmcli.training.averaging import WeightAverage
from bmcli.training.feed import gather_rows, shuffle_rows
from bmcli.training.loss import compute_losses
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, find_hook, same, weights_of
from tests.training.test_resuming import assert_same_training, resumed

KEPT = ("model.dropout=0", "runtime.jit=false", "train.select.metric=last")
PLAIN = (*KEPT, "train.epochs=4")


class Remembers(Silent):
    """The weights at the end of every epoch."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer, self.weights = trainer, list[list[np.ndarray]]()

    def on_epoch_end(self, row: Any, selected: bool) -> None:
        super().on_epoch_end(row, selected)
        self.weights.append(weights_of(self.trainer))


def test_the_mean_of_the_last_epochs_is_measured_and_kept(make_trainer: MakeTrainer) -> None:
    averaged, plain = make_trainer(*PLAIN, "train.swa.start=0.25"), make_trainer(*PLAIN)
    watch = Remembers(plain)
    plain.train(watch)
    found = Silent()
    averaged.train(found)
    expected = [np.mean(each, axis=0) for each in zip(*watch.weights[1:], strict=True)]
    assert len(watch.weights) == 4
    for weight, mean in zip(weights_of(averaged), expected, strict=True):
        np.testing.assert_allclose(weight, mean, atol=1e-6)
    losses = [[row["validation/loss"] for row in each.rows] for each in (found, watch)]
    assert losses[0][:2] == losses[1][:2], "the first mean is of one epoch"
    assert losses[0][2:] != pytest.approx(losses[1][2:], abs=1e-6)
    assert averaged.evaluator is not None
    assert averaged.evaluator.measure()["loss"] == pytest.approx(losses[0][-1], abs=1e-6)
    assert [row["train/loss"] for row in found.rows] == [row["train/loss"] for row in watch.rows]


@pytest.mark.parametrize(("start", "epochs", "first"), [(0.75, 4, 4), (0.0, 4, 1), (0.3, 10, 4)])
def test_the_mean_begins_after_its_share_of_the_epochs(
    make_trainer: MakeTrainer, start: float, epochs: int, first: int
) -> None:
    trainer = make_trainer(f"train.swa.start={start}", f"train.epochs={epochs}", "runtime.jit=false")
    average = find_hook(trainer, WeightAverage)
    assert [epoch for epoch in range(1, epochs + 1) if average.has_average(epoch)] == list(range(first, epochs + 1))


def test_a_limit_of_steps_counts_as_the_end(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.swa.start=0.5", "train.epochs=100", "train.stop.steps=32", "runtime.jit=false")
    assert trainer.steps_per_epoch == 8
    average = find_hook(trainer, WeightAverage)
    assert (average.has_average(2), average.has_average(3)) == (False, True)


def test_more_epochs_restart_the_mean(make_trainer: MakeTrainer) -> None:
    settings = (*KEPT, "train.swa.start=0.5")
    whole, short = (make_trainer(*settings, f"train.epochs={epochs}") for epochs in (4, 2))
    whole.train(Silent())
    short.train(Silent())
    again = resumed(make_trainer, short.run, *settings, "train.epochs=4")
    assert same(weights_of(again), weights_of(whole))
    assert same(again.steps.snapshot()[0], whole.steps.snapshot()[0])


def test_a_mean_that_has_begun_goes_on_with_more_epochs(make_trainer: MakeTrainer) -> None:
    plain = make_trainer(*KEPT, "train.epochs=6")
    watch = Remembers(plain)
    plain.train(watch)
    short = make_trainer(*KEPT, "train.swa.start=0.5", "train.epochs=4")
    short.train(Silent())
    # Half of 6 epochs would begin after the third one, but the mean holds that one already.
    longer = resumed(make_trainer, short.run, *KEPT, "train.swa.start=0.5", "train.epochs=6")
    for weight, each in zip(weights_of(longer), zip(*watch.weights[2:], strict=True), strict=True):
        np.testing.assert_allclose(weight, np.mean(each, axis=0), atol=1e-6)


@pytest.mark.slow
def test_a_training_stopped_among_averaged_epochs_resumes_to_the_same_bits(make_trainer: MakeTrainer) -> None:
    settings = (*PLAIN, "train.swa.start=0.25")
    whole, short = make_trainer(*settings), make_trainer(*settings, "train.stop.time=1ms")
    whole.train(Silent())
    short.train(Silent())
    assert short.progress.step < whole.progress.step
    assert_same_training(resumed(make_trainer, short.run, *settings), whole)


NORMALIZED = ("model.normalization=batch", "runtime.jit=false", "train.select.metric=last")


@pytest.mark.parametrize(
    ("average", "replicas"), [("train.swa.start=0.5", 1), ("train.swa.start=0.5", 2), ("train.schedule_free=true", 1)]
)
def test_moving_statistics_are_those_of_the_mean_weights(
    make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch, average: str, replicas: int
) -> None:
    """The first layer's, by hand: means over the full batches of what each replica sees with the mean weights."""
    monkeypatch.setattr(evaluator, "CALL_S", 0.0)  # one batch a call
    trainer = make_family("mlp", *NORMALIZED, average, "model.dropout=0.5", rows=35, replicas=replicas)
    assert trainer.feed.count // trainer.batch == 4
    trainer.train(Silent())
    model = trainer.network.model
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    before = keras.Model(model.inputs, layer.input)
    trainer.feed.start_epoch(shuffle_rows(3, 2, 35), trainer.batch)
    seen = []
    for batch in range(4):
        block = trainer.feed.read_block(batch, 1)
        inputs = gather_rows(block.data, block.rows[8 * batch : 8 * (batch + 1)])["inputs"]
        seen += np.split(before(inputs).numpy(), replicas)
    np.testing.assert_allclose(layer.moving_mean.numpy(), np.mean([s.mean(axis=0) for s in seen], axis=0), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), np.mean([s.var(axis=0) for s in seen], axis=0), atol=1e-5)


def test_estimating_statistics_changes_nothing_in_the_training(make_trainer: MakeTrainer) -> None:
    settings = ("model.normalization=batch", "model.dropout=0.3", "runtime.jit=false", "train.epochs=4")
    found, expected = Silent(), Silent()
    averaged = make_trainer(*settings, "train.swa.start=0.25")
    averaged.train(found)
    plain = make_trainer(*settings)
    plain.train(expected)
    assert [row["train/loss"] for row in found.rows] == [row["train/loss"] for row in expected.rows]
    last = [checkpoint.restore(trainer.run.checkpoints)[0].groups["variables"] for trainer in (averaged, plain)]
    assert same(last[0][: len(last[1])], last[1])
    assert found.rows[-1]["validation/loss"] != pytest.approx(expected.rows[-1]["validation/loss"], abs=1e-6)


def gradients_at(trainer: Trainer, weights: list[np.ndarray], epoch: int, first: int, size: int) -> list[np.ndarray]:
    """Gradients of the mean loss of some rows in the order of an epoch, where the network has these weights."""
    model = trainer.network.model
    for weight, value in zip(model.trainable_variables, weights, strict=True):
        weight.assign(value.astype("float32"))
    rows = shuffle_rows(trainer.recipe.seed, epoch, trainer.feed.count)
    trainer.feed.start_epoch(rows, size)
    examples = gather_rows(trainer.feed.read_block(0, 1).data, rows[first : first + size])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(compute_losses(trainer.network, examples, model(examples["inputs"], training=True)))
    return [gradient.numpy().astype("float64") for gradient in tape.gradient(loss, model.trainable_variables)]


def by_the_paper(
    trainer: Trainer, rates: list[float], factors: list[float], beta: float, beta_2: float | None, decay: float
) -> list[np.ndarray]:
    """Algorithm 1 of Defazio et al. 2024 in double precision, three steps an epoch: x at the end.

    Args:
        rates: The learning rate of each step, for Adam before its correction.
        factors: Of the learning rate of each weight.
        beta_2: Of Adam; None is gradient descent.
    """
    x = [weight.numpy().astype("float64") for weight in trainer.network.model.trainable_variables]
    z, v, total = list(x), [np.zeros_like(each) for each in x], 0.0
    for t, rate in enumerate(rates, 1):
        y = [(1 - beta) * each_z + beta * each_x for each_x, each_z in zip(x, z, strict=True)]
        g = gradients_at(trainer, y, (t - 1) // 3, (t - 1) % 3 * 40, 40)
        corrected = rate
        if beta_2 is not None:
            v = [beta_2 * each_v + (1 - beta_2) * each_g**2 for each_v, each_g in zip(v, g, strict=True)]
            g = [each_g / (np.sqrt(each_v) + 1e-4) for each_v, each_g in zip(v, g, strict=True)]
            corrected = rate * np.sqrt(1 - beta_2**t)
        z = [
            each_z - factor * (corrected * each_g + rate * decay * each_y)
            for each_y, each_z, each_g, factor in zip(y, z, g, factors, strict=True)
        ]
        total += corrected**2
        c = corrected**2 / total
        x = [(1 - c) * each_x + c * each_z for each_x, each_z in zip(x, z, strict=True)]
    return x


SCHEDULE_FREE = (*KEPT, "train.schedule_free=true", "train.epochs=2", "train.batch_size=40")
SGD = "train.optimizer={kind: sgd, learning_rate: 0.5, momentum: 0.8}"
ADAMW = "train.optimizer={kind: adamw, learning_rate: 0.1, beta_1: 0.8, beta_2: 0.95, epsilon: 1e-4, weight_decay: 0.5}"


@pytest.mark.parametrize("warmup", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize(
    ("optimizer", "rate", "beta_2", "decay"), [(SGD, 0.5, None, 0.0), (ADAMW, 0.1, 0.95, 0.5)], ids=["sgd", "adamw"]
)
def test_schedule_free_steps_are_those_of_the_paper(
    make_trainer: MakeTrainer, optimizer: str, rate: float, beta_2: float | None, decay: float, warmup: float
) -> None:
    settings = (*SCHEDULE_FREE, optimizer, f"train.schedule={{kind: constant, warmup: {warmup}}}")
    ours, plain = make_trainer(*settings), make_trainer(*settings)
    rates = [rate * min(step / 3, 1) if warmup else rate for step in range(1, 7)]
    expected = by_the_paper(plain, rates, [1.0] * len(find_hook(plain, WeightAverage).weights), 0.8, beta_2, decay)
    watch = Silent()
    ours.train(watch)
    assert (ours.progress.step, ours.feed.count) == (6, 120)
    for weight, mean in zip(ours.network.model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), mean, atol=1e-6)
    assert ours.evaluator.measure()["loss"] == pytest.approx(watch.rows[-1]["validation/loss"], abs=1e-6)
    last = checkpoint.restore(ours.run.checkpoints)[0].groups["variables"]
    assert not same(last[: len(expected)], weights_of(ours)[: len(expected)]), "the network trains with other weights"


def test_rates_of_layers_scale_schedule_free_steps(make_trainer: MakeTrainer) -> None:
    settings = (*SCHEDULE_FREE, ADAMW, "train.layer_rates={'*/kernel': 0.25, '*/bias': 0.0}")
    ours, plain = make_trainer(*settings), make_trainer(*settings)
    names = [weight.path for weight in plain.network.model.trainable_variables]
    factors = [0.25 if name.endswith("/kernel") else 0.0 if name.endswith("/bias") else 1.0 for name in names]
    expected = by_the_paper(plain, [0.1] * 6, factors, 0.8, 0.95, 0.5)
    ours.train(Silent())
    for weight, mean in zip(ours.network.model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), mean, atol=1e-6)


def test_steps_that_overflow_in_half_precision_count_for_nothing(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*SCHEDULE_FREE, "train.precision=mixed_float16", "train.stop.steps=1")
    trainer.components.optimizer.dynamic_scale.assign(1e38)
    followed = [*trainer.network.model.weights, *find_hook(trainer, WeightAverage).variables]
    before = [variable.numpy() for variable in followed]
    trainer.train(Silent())
    assert float(trainer.components.optimizer.dynamic_scale.numpy()) == pytest.approx(0.5e38)
    after = [variable.numpy() for variable in followed]
    assert same(before, after)


def test_weights_with_a_constraint_cannot_be_schedule_free(make_family: MakeTrainer) -> None:
    join = "{kind: flatten, name: flat, from: image}, {kind: concatenate, from: [flat, age]}"
    layers = f"[{join}, {{kind: dense, units: 3, kernel_constraint: non_neg}}]"
    with pytest.raises(BmcliError, match="has a constraint") as caught:
        make_family("layers", f"model.layers={layers}", "train.schedule_free=true")
    assert caught.value.faults[0].path == "train.schedule_free"
