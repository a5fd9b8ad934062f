"""`train.batch_size: auto`, and what happens when the memory is too small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import RunFailed
from bmcli.training.autotune import batch_size
from bmcli.training.feed import shuffle_rows
from bmcli.training.train_step import Compilation, CompiledSteps
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, Silent, same, weights_of

DIGITS = ("data.source.name=digits", "train.epochs=1")


def choose(trainer: Trainer, cache: Path, jit: bool = False) -> int:
    def make(size: int) -> CompiledSteps:
        return CompiledSteps(trainer.components, size, Compilation(jit))

    return batch_size.choose_batch_size(make, trainer.feed, shuffle_rows(5, 0, trainer.feed.count), cache)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Replace the clock by examples per second for each batch size, or an exception; returns the sizes measured."""

    def use(rate: Callable[[int], float]) -> list[int]:
        measured: list[int] = []

        def seconds(ways: Any, feed: Any, rows: Any) -> list[float]:
            (steps,) = ways
            measured.append(steps.batch)
            return [steps.batch / rate(steps.batch)]

        monkeypatch.setattr(batch_size, "measure_step_seconds", seconds)
        return measured

    return use


def no_memory() -> tf.errors.ResourceExhaustedError:
    return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_the_batch_grows_while_throughput_rises_but_leaves_16_steps_an_epoch(
    make_trainer: MakeTrainer, tmp_path: Path, rates: Any
) -> None:
    trainer = make_trainer(*DIGITS)
    measured = rates(lambda size: float(size))
    size = choose(trainer, tmp_path)
    assert measured == [16, 32, 64]
    assert size == 64
    assert 16 * size <= trainer.feed.count < 16 * 2 * size


def test_few_rows_are_trained_in_small_batches(make_trainer: MakeTrainer, tmp_path: Path, rates: Any) -> None:
    measured = rates(lambda size: float(size))
    assert choose(make_trainer(), tmp_path) == 16
    assert measured == [16]


@pytest.mark.parametrize(
    ("rate", "size"),
    [({16: 100.0, 32: 104.0, 64: 900.0}, 16), ({16: 100.0, 32: 200.0, 64: 150.0}, 32), ({16: 100.0, 32: 50.0}, 16)],
)
def test_the_batch_stops_growing_where_throughput_does(
    make_trainer: MakeTrainer, tmp_path: Path, rates: Any, rate: dict[int, float], size: int
) -> None:
    rates(rate.__getitem__)
    assert choose(make_trainer(*DIGITS), tmp_path) == size


def test_the_batch_stops_growing_where_the_memory_ends(make_trainer: MakeTrainer, tmp_path: Path, rates: Any) -> None:
    def until_64(size: int) -> float:
        if size == 64:
            raise no_memory()
        return float(size)

    measured = rates(until_64)
    assert choose(make_trainer(*DIGITS), tmp_path) == 32
    assert measured == [16, 32, 64]


def test_a_size_is_measured_once_and_remembered(make_trainer: MakeTrainer, tmp_path: Path, rates: Any) -> None:
    trainer = make_trainer(*DIGITS)
    rates(lambda size: float(size))
    assert choose(trainer, tmp_path) == 64
    (memory,) = (tmp_path / "batch").iterdir()
    assert json.loads(memory.read_text())["batch_size"] == 64
    rates(lambda size: pytest.fail("measured again"))
    assert choose(trainer, tmp_path) == 64


@pytest.mark.parametrize("content", ["", "[]", '{"batch_size": "64"}', "{"])
def test_a_damaged_memory_is_measured_again(
    make_trainer: MakeTrainer, tmp_path: Path, rates: Any, content: str
) -> None:
    trainer = make_trainer()
    rates(lambda size: float(size))
    choose(trainer, tmp_path)
    (memory,) = (tmp_path / "batch").iterdir()
    memory.write_text(content)
    assert choose(trainer, tmp_path) == 16
    assert json.loads(memory.read_text())["batch_size"] == 16


def everything(trainer: Trainer) -> list[np.ndarray]:
    variables, meters = trainer.steps.snapshot()
    return [*variables, *meters]


def test_measuring_leaves_every_variable_as_it_was(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(*DIGITS, "model.normalization=batch", "model.dropout=0.3")
    before = everything(trainer)
    size = choose(trainer, tmp_path)
    assert size in (16, 32, 64)
    assert same(everything(trainer), before)


class Exhausted:
    """Steps whose calls fail for lack of memory after they changed the variables."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[CompiledSteps, int], bool]) -> None:
        self.calls = 0
        many = CompiledSteps.train_block

        def failing(steps: CompiledSteps, block: Any) -> int:
            self.calls += 1
            found = many(steps, block)
            if fails(steps, self.calls):
                raise no_memory()
            return found

        monkeypatch.setattr(CompiledSteps, "train_block", failing)


def test_a_size_that_does_not_fit_leaves_every_variable_as_it_was(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(*DIGITS)
    before = everything(trainer)
    Exhausted(monkeypatch, lambda steps, call: steps.batch > 16)
    assert choose(trainer, tmp_path) == 16
    assert same(everything(trainer), before)


def test_auto_trains_as_the_size_that_was_measured(make_trainer: MakeTrainer) -> None:
    found = make_trainer("train.batch_size=auto", "train.epochs=2")
    given = make_trainer(f"train.batch_size={found.batch}", "train.epochs=2")
    for trainer in (found, given):
        trainer.train(Silent())
    assert same(weights_of(found), weights_of(given))


@pytest.mark.parametrize(("parts", "advised"), [(1, 2), (3, 6)])
def test_a_batch_that_does_not_fit_is_a_failure_with_advice(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, parts: int, advised: int
) -> None:
    trainer = make_trainer(f"train.gradient_accumulation={parts}")
    Exhausted(monkeypatch, lambda steps, call: True)
    with pytest.raises(RunFailed, match=r"out of memory: batches of 16( in 3 parts)? are too large") as caught:
        trainer.train(Silent())
    assert f"train.gradient_accumulation={advised}" in (caught.value.faults[0].suggestion or "")


AUTO = ("train.batch_size=auto", "runtime.jit=false", "model.dropout=0", "train.select.metric=last")


def positions_of_resuming(monkeypatch: pytest.MonkeyPatch, trainer: Trainer) -> list[int]:
    """The steps from which a trainer has resumed."""
    found: list[int] = []
    resume = trainer.resume

    def noted() -> tuple[str, ...]:
        damaged = resume()
        found.append(trainer.progress.step)
        return damaged

    monkeypatch.setattr(trainer, "resume", noted)
    return found


def test_auto_halves_what_is_computed_at_once_and_ends_with_the_same_weights(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*AUTO, "train.epochs=2")
    whole, at_once = make_trainer(*settings), make_trainer(*settings)
    late = make_trainer(*settings, "train.checkpoint.steps=3")
    whole.train(Silent())
    for trainer, call, steps_done in ((at_once, 1, 0), (late, 4, 3)):
        with monkeypatch.context() as patched:
            failed = Exhausted(patched, lambda steps, calls, call=call: calls == call)
            resumed_at = positions_of_resuming(patched, trainer)
            watch = Silent()
            outcome = trainer.train(watch)
        assert failed.calls > call
        assert resumed_at == [steps_done], "it resumes from the last checkpoint"
        assert trainer.micro_batches == trainer.steps.micro_batches == 2
        (note,) = watch.notes
        assert f"too small for {trainer.batch} examples" in note
        assert "2 parts" in note
        assert (outcome.epochs, outcome.steps) == (2, whole.progress.step)
        assert [row["epoch"] for row in trainer.run.read_epochs()] == [1, 2]
        for ours, theirs in zip(weights_of(trainer), weights_of(whole), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_callbacks_start_again_with_the_checkpoint(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*AUTO, "train.epochs=3", "train.callbacks=[{kind: reduce_lr_on_plateau, patience: 1, min_delta: 0}]")
    trainer = make_trainer(*settings)
    trainer.save()
    trainer._writer.wait()
    before = vars(trainer.callbacks._callbacks[0]).copy()
    trainer.callbacks.after_epoch(1, {"validation/loss": -1000.0})
    trainer.resume()
    assert vars(trainer.callbacks._callbacks[0])["best"] == before["best"]


def test_parts_double_until_single_examples_do_not_fit(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, watch = make_trainer(*AUTO, "train.epochs=1"), Silent()
    calls = Exhausted(monkeypatch, lambda steps, call: True)
    with pytest.raises(RunFailed, match=r"batches of 16 in 16 parts"):
        trainer.train(watch)
    assert trainer.micro_batches == 16
    assert calls.calls == 5
    assert len(watch.notes) == 4
