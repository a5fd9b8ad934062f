"""Stochastic weight averaging: the plain mean of the weights at the ends of the last epochs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from bmcli.training import checkpoint, normalization
from bmcli.training.feed import gather, order
from bmcli.training.loop import Trainer

from .conftest import MakeTrainer, Silent, same, weights_of
from .test_going_on import assert_same_training, resumed

KEPT = ("model.dropout=0", "runtime.jit=false", "train.select.metric=last")
PLAIN = (*KEPT, "train.epochs=4")


class Remembers(Silent):
    """The weights at the end of every epoch."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer, self.weights = trainer, list[list[np.ndarray]]()

    def epoch(self, row: Any, selected: bool) -> None:
        super().epoch(row, selected)
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
    assert averaged.validation is not None
    assert averaged.validation.measure()["loss"] == pytest.approx(losses[0][-1], abs=1e-6)
    assert [row["train/loss"] for row in found.rows] == [row["train/loss"] for row in watch.rows]


@pytest.mark.parametrize(("start", "epochs", "first"), [(0.75, 4, 4), (0.0, 4, 1), (0.3, 10, 4)])
def test_the_mean_begins_after_its_share_of_the_epochs(
    make_trainer: MakeTrainer, start: float, epochs: int, first: int
) -> None:
    trainer = make_trainer(f"train.swa.start={start}", f"train.epochs={epochs}", "runtime.jit=false")
    assert trainer.average is not None
    assert [epoch for epoch in range(1, epochs + 1) if trainer.average.begun(epoch)] == list(range(first, epochs + 1))


def test_a_limit_of_steps_counts_as_the_end(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.swa.start=0.5", "train.epochs=100", "train.stop.steps=32", "runtime.jit=false")
    assert trainer.steps_per_epoch == 8
    assert trainer.average is not None
    assert (trainer.average.begun(2), trainer.average.begun(3)) == (False, True)


def test_more_epochs_begin_the_mean_anew(make_trainer: MakeTrainer) -> None:
    settings = (*KEPT, "train.swa.start=0.5")
    whole, short = (make_trainer(*settings, f"train.epochs={epochs}") for epochs in (4, 2))
    whole.train(Silent())
    short.train(Silent())
    again = resumed(make_trainer, short.run, *settings, "train.epochs=4")
    assert same(weights_of(again), weights_of(whole))
    assert same(again.steps.snapshot()[0], whole.steps.snapshot()[0])


@pytest.mark.slow
def test_a_training_stopped_among_averaged_epochs_goes_on_to_the_same_bits(make_trainer: MakeTrainer) -> None:
    settings = (*PLAIN, "train.swa.start=0.25")
    whole, short = make_trainer(*settings), make_trainer(*settings, "train.stop.time=1ms")
    whole.train(Silent())
    short.train(Silent())
    assert short.progress.step < whole.progress.step
    assert_same_training(resumed(make_trainer, short.run, *settings), whole)


NORMALIZED = ("model.normalization=batch", "train.swa.start=0.5", "runtime.jit=false", "train.select.metric=last")


@pytest.mark.parametrize("replicas", [1, 2])
def test_moving_statistics_are_those_of_the_mean_weights(
    make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    """The first layer's, by hand: means over the full batches of what each replica sees with the mean weights."""
    monkeypatch.setattr(normalization, "_BATCHES_AT_ONCE", 1)
    trainer = make_family("mlp", *NORMALIZED, "model.dropout=0.5", rows=35, replicas=replicas)
    assert trainer.feed.count // trainer.batch == 4
    trainer.train(Silent())
    model = trainer.network.model
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    before = keras.Model(model.inputs, layer.input)
    trainer.feed.open(order(3, 2, 35), trainer.batch)
    seen = []
    for batch in range(4):
        block = trainer.feed.block(batch, 1)
        inputs = gather(block.data, block.rows[8 * batch : 8 * (batch + 1)])["inputs"]
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
