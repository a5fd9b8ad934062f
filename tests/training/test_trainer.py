"""The training loop: reproducible, exact, resumable; it selects, stops and reports according to the recipe."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError, Interrupted, RunFailed
from bmcli.training import checkpoint
from bmcli.training.feed import gather_rows, shuffle_rows
from bmcli.training.loss import compute_losses, regularization_loss
from bmcli.training.progress import ProgressUpdate
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, same, weights_of


def test_the_order_of_an_epoch_is_a_permutation_and_a_pure_function() -> None:
    first = shuffle_rows(3, 7, 101).numpy()
    assert sorted(first) == list(range(101))
    assert np.array_equal(first, shuffle_rows(3, 7, 101))
    assert not np.array_equal(first, shuffle_rows(3, 8, 101))
    assert not np.array_equal(first, shuffle_rows(4, 7, 101))


def test_two_trainings_have_the_same_bits(make_trainer: MakeTrainer) -> None:
    first, second = make_trainer(), make_trainer()
    first.train(Silent())
    second.train(Silent())
    assert same(weights_of(first), weights_of(second))


def test_another_seed_gives_other_weights(make_trainer: MakeTrainer) -> None:
    first, second = make_trainer(), make_trainer("seed=6")
    first.train(Silent())
    second.train(Silent())
    assert not same(weights_of(first), weights_of(second))


def test_the_loop_computes_what_a_plain_loop_of_keras_computes(make_trainer: MakeTrainer) -> None:
    settings = (
        "model.dropout=0",
        "train.epochs=2",
        "train.select.metric=last",
        "model.kernel_regularizer={kind: l2, l2: 0.01}",
    )
    ours, plain = make_trainer(*settings), make_trainer(*settings)
    optimizer = keras.optimizers.Adam(1e-2)
    model, count = plain.network.model, plain.feed.count
    for epoch in range(2):
        rows = shuffle_rows(5, epoch, count)
        plain.feed.start_epoch(rows, 16)
        for start in range(0, count, 16):
            examples = gather_rows(plain.feed.read_block(0, 1).data, rows[start : start + 16])
            with tf.GradientTape() as tape:
                outputs = model(examples["inputs"], training=True)
                loss = tf.reduce_mean(compute_losses(plain.network, examples, outputs)) + regularization_loss(
                    plain.network
                )
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    ours.train(Silent())
    for ours_value, plain_value in zip(weights_of(ours), weights_of(plain), strict=True):
        np.testing.assert_allclose(ours_value, plain_value, atol=1e-6)


def test_every_row_is_trained_once_an_epoch_and_the_ragged_batch_counts(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.epochs=1", "train.batch_size=50")
    assert trainer.feed.count % 50 != 0
    watch = Silent()
    trainer.train(watch)
    assert trainer.progress.step == -(-trainer.feed.count // 50)
    counted = {variable.path: variable.numpy() for variable in trainer.components.meters.variables}
    assert counted["loss/count"] == trainer.feed.count


def test_xla_gives_the_same_weights_to_rounding(make_trainer: MakeTrainer) -> None:
    plain, compiled = (
        make_trainer("runtime.jit=false", "model.dropout=0"),
        make_trainer("runtime.jit=true", "model.dropout=0"),
    )
    plain.train(Silent())
    compiled.train(Silent())
    for a, b in zip(weights_of(plain), weights_of(compiled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_steps_are_traced_once(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.epochs=4")
    trainer.train(Silent())
    assert trainer.steps.trace_count == 1  # the ragged batch as well


class StopsAt(Silent):
    """Callback that sends this process a signal after some steps."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self._step, self._number = step, number

    def on_progress(self, moment: ProgressUpdate) -> None:
        if (moment.epoch - 1) * moment.steps + moment.step >= self._step and self._step:
            self._step = 0
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize(("step", "number"), [(3, signal.SIGTERM), (8, signal.SIGINT), (13, signal.SIGTERM)])
def test_a_stopped_run_resumes_to_the_same_bits(make_trainer: MakeTrainer, step: int, number: signal.Signals) -> None:
    settings = (
        "train.stop.patience=5",
        "train.callbacks=[{kind: reduce_lr_on_plateau, patience: 1}]",
        "model.normalization=batch",
    )
    whole = make_trainer(*settings)
    whole.train(Silent())
    stopped = make_trainer(*settings)
    with pytest.raises(Interrupted, match="the state is saved"):
        stopped.train(StopsAt(step, number))
    resumed = make_trainer(*settings, run=stopped.run)
    resumed.resume()
    resumed.train(Silent())
    assert same(weights_of(resumed), weights_of(whole))
    assert [row["train/loss"] for row in resumed.run.read_epochs()] == [
        row["train/loss"] for row in whole.run.read_epochs()
    ]
    assert resumed.progress.selected_epoch == whole.progress.selected_epoch


def test_a_run_that_ended_early_does_not_continue_when_resumed(make_trainer: MakeTrainer) -> None:
    settings = ("train.stop.patience=1", "train.stop.min_delta=1000.0", "train.epochs=50")
    ended = make_trainer(*settings)
    outcome = ended.train(Silent())
    resumed = make_trainer(*settings, run=ended.run)
    resumed.resume()
    assert resumed.train(Silent()) == outcome
    assert same(weights_of(resumed), weights_of(ended))


def test_a_checkpoint_of_another_network_is_refused(make_trainer: MakeTrainer) -> None:
    ended = make_trainer("train.epochs=1")
    ended.train(Silent())
    with pytest.raises(RunFailed, match="does not fit the network"):
        make_trainer("model.hidden=[3]", run=ended.run).resume()


def test_signals_mean_what_they_meant_before_once_training_ends(make_trainer: MakeTrainer) -> None:
    before = signal.getsignal(signal.SIGTERM)
    make_trainer().train(Silent())
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_selected_epoch_is_the_best_and_its_weights_are_kept(make_trainer: MakeTrainer) -> None:
    trainer, watch = make_trainer("train.epochs=8", "train.optimizer.learning_rate=0.3"), Silent()
    outcome = trainer.train(watch)
    losses = [row["validation/loss"] for row in watch.rows]
    assert outcome.selected_epoch == 1 + int(np.argmin(losses))
    assert trainer.evaluator is not None
    assert trainer.evaluator.measure()["loss"] == pytest.approx(min(losses), rel=1e-5)


def test_last_keeps_the_last_epoch(make_trainer: MakeTrainer) -> None:
    outcome = make_trainer("train.epochs=4", "train.select.metric=last").train(Silent())
    assert outcome.selected_epoch == 4


@pytest.mark.parametrize(
    ("settings", "stop_reason", "epochs"),
    [
        (("train.stop.patience=2", "train.stop.min_delta=1000.0", "train.epochs=50"), "patience", 3),
        (("train.stop.steps=10", "train.epochs=50"), "steps", 2),
        (("train.stop={metric: train/loss, below: 1000.0}", "train.epochs=50"), "metric", 1),
        (("train.stop.time=1ms", "train.epochs=50"), "time", 1),
        (
            ("train.callbacks=[{kind: early_stopping, patience: 1, min_delta: 1000.0}]", "train.epochs=50"),
            "callback",
            2,
        ),
        ((), "epochs", 3),
    ],
)
def test_training_stops_according_to_the_recipe(
    make_trainer: MakeTrainer, settings: tuple[str, ...], stop_reason: str, epochs: int
) -> None:
    outcome = make_trainer(*settings).train(Silent())
    assert (outcome.stop_reason, outcome.epochs) == (stop_reason, epochs)


def test_patience_counts_epochs_when_the_last_one_is_kept(make_trainer: MakeTrainer) -> None:
    settings = ("train.select.metric=last", "train.stop={patience: 2, min_delta: 1000.0}", "train.epochs=50")
    outcome = make_trainer(*settings).train(Silent())
    assert (outcome.stop_reason, outcome.epochs, outcome.selected_epoch) == ("patience", 3, 3)


@pytest.mark.parametrize("select", ["auto", "last"])
def test_small_gains_add_up_to_an_improvement_as_in_keras(make_trainer: MakeTrainer, select: str) -> None:
    optimizer = "train.optimizer={kind: sgd, learning_rate: 0.005}"
    settings = (optimizer, f"train.select.metric={select}", "train.epochs=12", "model.dropout=0")
    watch = Silent()
    make_trainer(*settings).train(watch)
    losses = [row["validation/loss"] for row in watch.rows]
    assert losses == sorted(losses, reverse=True), "it falls in every epoch"
    delta = 1.01 * max(before - after for before, after in itertools.pairwise(losses))

    # Keras' rule: `best` moves only with an improvement by more than `min_delta`.
    callback = keras.callbacks.EarlyStopping("val_loss", min_delta=delta, patience=3)
    callback.set_model(keras.Sequential())
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
    assert callback.stopped_epoch == 0, "two small gains are one large one"
    stop = f"train.stop={{patience: 3, min_delta: {delta}}}"
    outcome = make_trainer(*settings, stop).train(Silent())
    assert (outcome.stop_reason, outcome.epochs) == ("epochs", 12)


def test_a_step_limit_is_exact(make_trainer: MakeTrainer) -> None:
    assert make_trainer("train.stop.steps=10", "train.epochs=50").train(Silent()).steps == 10


def test_a_plateau_lowers_the_learning_rate(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    make_trainer(
        "train.callbacks=[{kind: reduce_lr_on_plateau, patience: 1, min_delta: 1000.0, factor: 0.5}]",
        "train.epochs=4",
    ).train(watch)
    assert watch.rows[-1]["learning_rate"] < watch.rows[0]["learning_rate"]


def test_an_unknown_metric_to_watch_names_the_nearest(make_trainer: MakeTrainer) -> None:
    with pytest.raises(BmcliError, match="no metric 'validation/acuracy'") as caught:
        make_trainer("train.select.metric=validation/acuracy")
    assert caught.value.faults[0].suggestion == "Did you mean 'validation/accuracy'?"
    assert caught.value.faults[0].path == "train.select.metric"


class Breaks(Silent):
    """Callback that makes the learning rate infinite after an epoch, and keeps the weights of every selected epoch."""

    def __init__(self, trainer: Trainer, after: int) -> None:
        super().__init__()
        self.trainer, self.after = trainer, after
        self.good: list[np.ndarray] = []

    def on_epoch_end(self, row: Any, selected: bool) -> None:
        super().on_epoch_end(row, selected)
        if selected:
            self.good = weights_of(self.trainer)
        if row["epoch"] == self.after:
            self.trainer.components.optimizer.learning_rate.assign(float("inf"))


def test_a_divergence_is_reported_and_the_last_good_weights_are_kept(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.epochs=6")
    watch = Breaks(trainer, after=2)
    outcome = trainer.train(watch)
    assert outcome.stop_reason == "divergence"
    assert "epoch 3" in str(outcome.divergence)
    assert outcome.selected_epoch in (1, 2)
    assert same(weights_of(trainer), watch.good)


def test_a_first_epoch_that_diverges_keeps_nothing(make_trainer: MakeTrainer) -> None:
    outcome = make_trainer("train.optimizer={kind: sgd, learning_rate: 1e30}").train(Silent())
    assert outcome.selected_epoch is None
    assert "not a finite number" in str(outcome.divergence) or "NaN" in str(outcome.divergence)


def test_weights_that_are_not_finite_are_never_saved(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.network.model.weights[0].assign(np.full(trainer.network.model.weights[0].shape, np.nan))
    with pytest.raises(Exception, match="holds NaN"):
        trainer.save()
    assert not trainer.run.checkpoints.exists()


def test_updates_describe_the_progress(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    trainer = make_trainer()
    trainer.train(watch)
    last: Any = watch.moments[-1]
    assert (last.epoch, last.step) == (3, trainer.steps_per_epoch)
    assert last.seconds_left == 0
    assert all(moment.examples_per_second > 0 for moment in watch.moments)


def test_a_schedule_rises_and_falls_over_the_run(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    make_trainer("train.schedule={kind: cosine, warmup: 0.2, floor: 0.1}", "train.epochs=5").train(watch)
    rates = [row["learning_rate"] for row in watch.rows]
    assert rates[0] == pytest.approx(1e-2, rel=0.05)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_and_keeps_float32_weights(make_trainer: MakeTrainer, precision: str) -> None:
    watch = Silent()
    trainer = make_trainer(f"train.precision={precision}", "train.epochs=12")
    trainer.train(watch)
    assert all(weight.dtype == "float32" for weight in trainer.network.model.trainable_weights)
    assert watch.rows[-1]["train/loss"] < watch.rows[0]["train/loss"] / 2


def test_checkpoints_are_written_at_the_intervals_of_the_recipe(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.checkpoint={time: 1ms}")
    trainer.train(Silent())
    kept = sorted(path.name for path in trainer.run.checkpoints.iterdir())
    assert len(kept) == checkpoint.MAX_CHECKPOINTS


def test_tensorboard_events_hold_the_epochs(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.tensorboard=true")
    trainer.train(Silent())
    (file,) = (trainer.run.events / "validation").iterdir()
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    assert "epoch_loss" in tags


def test_a_signal_that_is_ignored_does_not_stop_a_training(make_trainer: MakeTrainer) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert make_trainer().train(StopsAt(2, signal.SIGINT)).stop_reason == "epochs"
    finally:
        signal.signal(signal.SIGINT, before)
