"""Resuming: after any interruption a training ends with the bits of one that was never stopped."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli import runs
from bmcli.errors import Interrupted
from bmcli.training import checkpoint
from bmcli.training.checkpoint import Checkpoint, CheckpointWriter
from bmcli.training.feed import gather_rows, shuffle_rows
from bmcli.training.loss import compute_losses
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, same, weights_of
from tests.training.test_trainer import StopsAt

TIMES = ("seconds", "examples_per_second")


@pytest.fixture
def one_step_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a signal or a checkpoint after any step."""
    monkeypatch.setattr("bmcli.training.trainer.CALL_S", 0.0)


def rows_of(trainer: Trainer) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` without times."""
    assert trainer.run is not None
    return [{name: value for name, value in row.items() if name not in TIMES} for row in trainer.run.read_epochs()]


def assert_same_training(first: Trainer, second: Trainer, rows: list[dict[str, Any]] | None = None) -> None:
    """The same in every bit; `rows` are the second's, if the first has written over them."""
    assert same(weights_of(first), weights_of(second))
    assert same(first.steps.snapshot()[0], second.steps.snapshot()[0]), "of the optimizer or the averages"
    assert rows_of(first) == (rows_of(second) if rows is None else rows)
    for name in ("epoch", "step", "examples", "best", "selected_epoch", "waited", "overfitted", "stop_reason"):
        assert getattr(first.progress, name) == getattr(second.progress, name), name


def resumed(make: MakeTrainer, run: runs.Run, *settings: str) -> Trainer:
    """A run that was resumed and trained to its end."""
    trainer = make(*settings, run=run)
    assert trainer.resume() == ()
    trainer.train(Silent())
    return trainer


DROPOUT_AND_NORM = ("model.normalization=batch", "model.dropout=0.3")
SCHEDULE_FREE = ("train.schedule_free=true", "train.schedule={kind: constant, warmup: 0.4}")
PLATEAU = "train.callbacks=[{{kind: reduce_lr_on_plateau, patience: 1, min_delta: {}, cooldown: 1}}]"
MATRIX: dict[str, tuple[str, ...]] = {
    "ema": ("train.ema=0.9",),
    "swa": ("train.swa.start=0.3", *DROPOUT_AND_NORM),
    "schedule-free": (*SCHEDULE_FREE, *DROPOUT_AND_NORM),
    "schedule-free in mixed_float16": (*SCHEDULE_FREE, "train.precision=mixed_float16"),
    "schedule-free with xla": (*SCHEDULE_FREE, "runtime.jit=true"),
    "layer rates": ("train.layer_rates={'dense/*': 0.1, '*/bias': 0.0}",),
    "gradient accumulation": ("train.gradient_accumulation=3",),
    "mixed_float16": ("train.precision=mixed_float16",),
    "mixed_bfloat16": ("train.precision=mixed_bfloat16",),
    "normalisation and dropout": DROPOUT_AND_NORM,
    "cosine": ("train.schedule={kind: cosine, warmup: 0.3, floor: 0.1}",),
    "plateau": (PLATEAU.format(0),),
    "plateau of some height": (PLATEAU.format(1000.0),),
    "streaming": ("runtime.feed=streaming",),
    "xla": ("runtime.jit=true", *DROPOUT_AND_NORM),
    "replicas": ("runtime.strategy=mirrored", "runtime.replicas=2", *DROPOUT_AND_NORM),
}
MARKS = {
    "mixed_bfloat16": pytest.mark.slow,
    "schedule-free in mixed_float16": pytest.mark.slow,
    "schedule-free with xla": pytest.mark.slow,
    "replicas": pytest.mark.slow,
    "normalisation and dropout": pytest.mark.slow,  # as with XLA and on replicas
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in MATRIX])
def test_a_training_killed_in_an_epoch_resumes_to_the_same_bits(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "streaming":
        monkeypatch.setattr("bmcli.training.feed.BLOCK_BYTES", 2 * 40 * (4 * 4 + 8))  # about two batches
    jit = () if "xla" in name else ("runtime.jit=false",)
    settings = (*MATRIX[name], *jit, "train.batch_size=40", "train.checkpoint.steps=5")
    whole = make_trainer(*settings)
    whole.train(Silent())
    assert (whole.steps_per_epoch, whole.progress.step) == (3, 9)
    rows = rows_of(whole)
    shutil.rmtree(whole.run.checkpoints / "step-000000009")
    again = make_trainer(*settings, run=whole.run)
    assert again.resume() == ()
    assert (again.progress.epoch, again.progress.batch) == (1, 2)
    again.train(Silent())
    assert_same_training(again, whole, rows)


@pytest.mark.usefixtures("one_step_a_call")
def test_a_training_may_be_stopped_after_every_step(make_trainer: MakeTrainer) -> None:
    settings = ("train.batch_size=32", "train.epochs=2", "train.ema=0.9", "runtime.jit=false", *DROPOUT_AND_NORM)
    whole, trainer = make_trainer(*settings), make_trainer(*settings)
    whole.train(Silent())
    assert (whole.steps_per_epoch, whole.feed.count % 32) == (4, 24)
    for step in range(1, 9):
        if step > 1:
            trainer.resume()  # in place: as good as a new process, since everything is put back
        with pytest.raises(Interrupted):
            trainer.train(StopsAt(step, signal.SIGTERM))
        assert trainer.progress.step == step
        trainer._writer = CheckpointWriter(trainer.run.checkpoints)  # training ended the one before
    trainer = make_trainer(*settings, run=trainer.run)
    trainer.resume()
    trainer.train(Silent())
    assert_same_training(trainer, whole)


STEPS_OF_8 = ("train.batch_size=8", "runtime.jit=true", "train.epochs=2")
# 15 steps an epoch: three programs of 4 steps, and 3 steps one by one.
PROGRAMS = (*STEPS_OF_8, "runtime.jit_steps=4")


@pytest.mark.usefixtures("one_step_a_call")
@pytest.mark.slow
def test_steps_that_are_one_program_are_never_divided(make_trainer: MakeTrainer) -> None:
    settings = (*PROGRAMS, *DROPOUT_AND_NORM, "train.ema=0.9", "train.checkpoint.steps=5")
    whole, trainer = make_trainer(*settings), make_trainer(*settings)
    whole.train(Silent())
    assert whole.steps_per_epoch == 15
    for step in (4, 12, 15, 23, 30):
        if step > 4:
            trainer.resume()  # in place: as good as a new process, since everything is put back
        with pytest.raises(Interrupted):
            trainer.train(StopsAt(step, signal.SIGTERM))
        assert trainer.progress.step == step
        trainer._writer = CheckpointWriter(trainer.run.checkpoints)  # training ended the one before
    trainer = resumed(make_trainer, trainer.run, *settings)
    assert_same_training(trainer, whole)


@pytest.mark.slow
@pytest.mark.parametrize("average", [("train.ema=0.9",), SCHEDULE_FREE])
def test_programs_of_several_steps_learn_what_single_steps_learn(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, average: tuple[str, ...]
) -> None:
    programs, single = make_trainer(*PROGRAMS, *average), make_trainer(*STEPS_OF_8, *average, "runtime.jit_steps=1")
    streamed = make_trainer(*PROGRAMS, *average, "runtime.feed=streaming")
    monkeypatch.setattr("bmcli.training.feed.BLOCK_BYTES", 8 * 13 * (4 * 4 + 8))  # about 13 batches
    for each in (programs, single, streamed):
        each.train(Silent())
    assert_same_training(streamed, programs)
    for mine, theirs in zip(programs.steps.snapshot()[0], single.steps.snapshot()[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert programs.run.read_epochs()[-1]["train/loss"] == pytest.approx(
        single.run.read_epochs()[-1]["train/loss"], abs=1e-5
    )


@pytest.mark.slow
def test_a_diverging_step_is_found_in_a_program(make_trainer: MakeTrainer) -> None:
    settings = (*STEPS_OF_8, "train.optimizer={kind: sgd, learning_rate: 1e17}", "model.activation=linear")
    found = [make_trainer(*settings, f"runtime.jit_steps={n}").train(Silent()).divergence for n in (1, 4, 8)]
    assert found[0] is not None
    assert "loss of step" in found[0]
    assert found == found[:1] * 3


def test_how_many_steps_a_call_has_changes_nothing(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    many, single = make_trainer(), make_trainer()
    many.train(Silent())
    monkeypatch.setattr("bmcli.training.trainer.CALL_S", 0.0)
    single.train(Silent())
    assert_same_training(many, single)


def test_checkpoints_are_written_at_the_steps_of_the_recipe(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda folder, step, state: written.append(step) or save(folder, step, state)
    )
    trainer = make_trainer("train.checkpoint.steps=3", "train.epochs=2")
    trainer.train(Silent())
    assert trainer.steps_per_epoch == 8
    assert written == [3, 6, 9, 12, 15, 16]  # and at the end
    assert [path.name for path in sorted(trainer.run.checkpoints.iterdir())] == ["step-000000015", "step-000000016"]


@pytest.mark.usefixtures("one_step_a_call")
def test_no_more_steps_than_in_the_recipe_lie_between_checkpoints_after_an_interruption(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.checkpoint.steps=5", "train.epochs=2", "runtime.jit=false")
    trainer = make_trainer(*settings)
    with pytest.raises(Interrupted):
        trainer.train(StopsAt(7, signal.SIGTERM))
    written: list[int] = [7]
    monkeypatch.setattr("bmcli.training.trainer.CALL_S", 1000.0)  # as many steps a call as there may be
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, state: written.append(step))
    resumed(make_trainer, trainer.run, *settings)
    assert max(np.diff(written)) <= 5


def damage(folder: Path, how: str) -> None:
    arrays = folder / "variables.npz"
    content = bytearray(arrays.read_bytes())
    if how == "truncated":
        arrays.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 4
        arrays.write_bytes(content)
    else:
        (folder / "state.json").unlink()


def test_a_damaged_checkpoint_is_named_and_the_one_before_leads_to_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    settings = ("train.checkpoint.steps=3", "train.epochs=2")
    whole = make_trainer(*settings)
    whole.train(Silent())
    run, kept = whole.run, tmp_path / "kept"
    shutil.copytree(run.checkpoints, kept)
    expected_rows, trainer = rows_of(whole), None
    for how in ("truncated", "flipped", "without state"):
        shutil.rmtree(run.checkpoints)
        shutil.copytree(kept, run.checkpoints)
        damage(run.checkpoints / "step-000000016", how)
        trainer = trainer or make_trainer(*settings, run=run)
        assert trainer.resume() == ("step-000000016",), how
        assert (trainer.progress.step, trainer.progress.epoch, trainer.progress.batch) == (15, 1, 7), how
    trainer.train(Silent())
    assert same(weights_of(trainer), weights_of(whole))
    assert rows_of(trainer) == expected_rows
    assert checkpoint.restore(run.checkpoints)[1] == (), "the damaged one was written again"


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 8, Checkpoint({"variables": [np.ones(2)]}, {}))
    aside = tmp_path / ".aside-0123abcd"
    aside.mkdir()
    (aside / "variables.npz").write_bytes(b"half")
    CheckpointWriter(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000008"]


def test_a_finished_run_with_more_epochs_has_the_bits_of_one_with_all_at_once(make_trainer: MakeTrainer) -> None:
    more = ("train.ema=0.9", "train.stop.patience=9", "runtime.jit=false")
    whole, short = make_trainer("train.epochs=4", *more), make_trainer("train.epochs=2", *more)
    for each in (whole, short):
        each.train(Silent())
    assert short.progress.stop_reason == "epochs"
    assert_same_training(resumed(make_trainer, short.run, "train.epochs=4", *more), whole)


PAUSED: dict[str, tuple[str, ...]] = {
    "everything with a state": ("train.ema=0.9", "train.stop.patience=9", *DROPOUT_AND_NORM),
    "swa": MATRIX["swa"],
    "cosine": MATRIX["cosine"],
    "plateau": MATRIX["plateau"],
    "xla": ("runtime.jit=true", "train.batch_size=8", "runtime.jit_steps=4"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "xla" else []) for n in PAUSED])
def test_a_training_paused_after_every_epoch_resumes_to_the_same_bits(make_trainer: MakeTrainer, name: str) -> None:
    settings = (*(() if name == "xla" else ("runtime.jit=false",)), *PAUSED[name], "train.epochs=4")
    whole = make_trainer(*settings)
    outcome = whole.train(Silent())
    trainer = make_trainer(*settings)
    for epoch in (1, 2, 3):
        paused = trainer.train(Silent(), lambda row, epoch=epoch: "paused" if row["epoch"] >= epoch else None)
        assert (paused.stop_reason, paused.epochs) == ("paused", epoch)
        assert paused.selected_epoch is not None
        trainer = make_trainer(*settings, run=trainer.run)
        assert trainer.resume() == ()
    ended = trainer.train(Silent())
    assert_same_training(trainer, whole)
    assert (ended.metrics, ended.selected_epoch, ended.stop_reason) == (
        outcome.metrics,
        outcome.selected_epoch,
        "epochs",
    )


def test_a_stop_condition_that_a_kill_prevented_is_called_again(make_trainer: MakeTrainer) -> None:
    def halt(row: Any) -> str | None:
        return "paused" if row["epoch"] >= 2 else None

    first = make_trainer("train.epochs=4")
    outcome = first.train(Silent(), halt)
    again = make_trainer("train.epochs=4", run=first.run)
    again.resume()
    assert (again.train(Silent(), halt).stop_reason, again.progress.epoch) == ("paused", 2)
    assert again.progress.step == outcome.steps
    assert same(weights_of(again), weights_of(first))


def test_other_reasons_to_end_come_before_the_stop_condition(make_trainer: MakeTrainer) -> None:
    assert (
        make_trainer("train.epochs=2").train(Silent(), lambda row: "paused" if row["epoch"] == 2 else None).stop_reason
        == "epochs"
    )


def test_a_budget_of_steps_that_is_raised_continues_in_the_middle_of_the_epoch(make_trainer: MakeTrainer) -> None:
    settings = ("train.epochs=3", "runtime.jit=false", *DROPOUT_AND_NORM)
    whole, short = make_trainer(*settings), make_trainer(*settings, "train.stop.steps=10")
    whole.train(Silent())
    assert short.train(Silent()).stop_reason == "steps"
    assert [row["step"] for row in short.run.read_epochs()] == [8, 10]
    longer = resumed(make_trainer, short.run, *settings, "train.stop.steps=13")
    assert longer.progress.stop_reason == "steps"
    assert [row["step"] for row in longer.run.read_epochs()] == [8, 13]
    assert_same_training(resumed(make_trainer, short.run, *settings), whole)


def test_a_run_that_patience_ended_does_not_continue_with_more_epochs(make_trainer: MakeTrainer) -> None:
    settings = ("train.stop.min_delta=1000.0", "runtime.jit=false")
    ended = make_trainer(*settings, "train.stop.patience=1", "train.epochs=5")
    assert ended.train(Silent()).stop_reason == "patience"
    rows = rows_of(ended)
    again = resumed(make_trainer, ended.run, *settings, "train.stop.patience=1", "train.epochs=50")
    assert (again.progress.stop_reason, rows_of(again)) == ("patience", rows)
    assert same(weights_of(again), weights_of(ended))
    longer = resumed(make_trainer, ended.run, *settings, "train.stop.patience=2", "train.epochs=50")
    assert longer.progress.epoch == ended.progress.epoch + 1, "more patience is more epochs"


def refused(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_error_of_a_write_in_the_background_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = Checkpoint({"variables": [np.ones(2)]}, {})
    writer = CheckpointWriter(tmp_path / "c")
    writer.write(1, state)
    writer.wait()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", refused)
        writer.write(2, state)
        with pytest.raises(OSError, match=r"(?i)no space left"):
            writer.write(3, state)
        writer.write(4, state)
        with pytest.raises(OSError, match=r"(?i)no space left"):
            writer.close()
    writer.close()  # the error is raised only once
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000000001"]


def test_a_disk_that_fills_up_ends_the_training(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("train.checkpoint.steps=2")
    monkeypatch.setattr(checkpoint, "save", refused)
    with pytest.raises(OSError, match=r"(?i)no space left"):
        trainer.train(Silent())
    assert trainer.progress.step <= 4


def test_the_averages_are_measured_and_kept(make_trainer: MakeTrainer) -> None:
    """Three steps by hand: SGD, and `average += (1 - min(momentum, (1 + step) / (10 + step))) (weight - average)`."""
    momentum, rate = 0.25, 0.5
    settings = (
        f"train.ema={momentum}", "model.dropout=0", "train.epochs=1", "train.batch_size=40",
        f"train.optimizer={{kind: sgd, learning_rate: {rate}}}", "train.select.metric=last",
    )  # fmt: skip
    trainer, plain = make_trainer(*settings), make_trainer(*settings)
    model, count = plain.network.model, plain.feed.count
    assert count == 120
    averages, rows = [weight.numpy() for weight in model.trainable_variables], shuffle_rows(5, 0, count)
    plain.feed.start_epoch(rows, 40)
    for step in (1, 2, 3):
        examples = gather_rows(plain.feed.read_block(0, 1).data, rows[40 * (step - 1) : 40 * step])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(compute_losses(plain.network, examples, model(examples["inputs"], training=True)))
        for weight, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            weight.assign(weight.numpy() - rate * gradient.numpy())
        share = 1 - min(momentum, (1 + step) / (10 + step))
        averages = [a + share * (w.numpy() - a) for a, w in zip(averages, model.trainable_variables, strict=True)]
    assert [min(momentum, (1 + step) / (10 + step)) for step in (1, 2, 3)] == [2 / 11, momentum, momentum]
    trained = [weight.numpy() for weight in model.trainable_variables]

    outcome = trainer.train(Silent())
    for weight, average in zip(trainer.network.model.trainable_variables, averages, strict=True):
        np.testing.assert_allclose(weight.numpy(), average, atol=1e-6)
    last = checkpoint.restore(trainer.run.checkpoints)[0].groups["variables"]
    paths = [variable.path for variable in trainer.network.model.variables]
    for weight, value in zip(model.trainable_variables, trained, strict=True):
        place = next(i for i, path in enumerate(paths) if path == weight.path)
        np.testing.assert_allclose(last[place], value, atol=1e-6, err_msg="training continues from the weights")

    for weight, average in zip(model.trainable_variables, averages, strict=True):
        weight.assign(average)
    assert outcome.metrics["validation/loss"] == pytest.approx(plain.evaluator.measure()["loss"], abs=1e-5)
    for weight, value in zip(model.trainable_variables, trained, strict=True):
        weight.assign(value)
    assert outcome.metrics["validation/loss"] != pytest.approx(plain.evaluator.measure()["loss"], abs=1e-4)
    assert keras.config.dtype_policy().name == "float32"
