"""Stopping once a network overfits."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from bmcli.errors import BmcliError, Interrupted
from bmcli.terminal.presenters.training import END_REASONS
from bmcli.training import evaluator
from bmcli.training.selection import is_overfit
from tests.trainers import MakeTrainer, Silent
from tests.training.test_resuming import assert_same_training, resumed
from tests.training.test_trainer import StopsAt

OVERFITTING = (
    "train.epochs=60",
    "model.hidden=[64]",
    "train.batch_size=17",
    "train.optimizer={kind: sgd, learning_rate: 1e-2}",
    "train.stop.overfit=3",
)


def losses(train: float | None, validation: float | None) -> dict[str, Any]:
    return {"train/loss": train, "validation/loss": validation}


@pytest.mark.parametrize(
    ("row", "before", "expected"),
    [
        (losses(1.0, 3.0), losses(2.0, 2.0), True),
        (losses(2.0, 3.0), losses(2.0, 2.0), False),
        (losses(1.0, 2.0), losses(2.0, 2.0), False),
        (losses(1.0, 1.0), losses(2.0, 2.0), False),
        (losses(1.0, None), losses(2.0, 2.0), False),
        (losses(1.0, 3.0), {}, False),
    ],
)
def test_overfitting_is_a_falling_training_loss_and_a_rising_one_of_validation(
    row: dict[str, Any], before: dict[str, Any], expected: bool
) -> None:
    assert is_overfit(row, before) == expected


def test_overfitting_ends_the_training(make_family: MakeTrainer) -> None:
    watch = Silent()
    outcome = make_family("mlp", *OVERFITTING, target="price").train(watch)
    assert outcome.stop_reason == "overfit"
    assert "overfitted" in END_REASONS["overfit"]
    over = [False, *(is_overfit(row, before) for before, row in zip(watch.rows, watch.rows[1:], strict=False))]
    assert outcome.epochs == len(over) < 60
    assert [all(over[end - 3 : end]) for end in range(3, len(over) + 1)].index(True) == len(over) - 3


def test_a_training_stopped_while_it_overfits_resumes_to_the_same_end(make_family: MakeTrainer) -> None:
    whole, stopped = (make_family("mlp", *OVERFITTING, target="price") for _ in range(2))
    whole.train(Silent())
    with pytest.raises(Interrupted):
        stopped.train(StopsAt(whole.progress.step - 2, signal.SIGTERM))

    def make(*settings: str, **more: Any) -> Any:
        return make_family("mlp", *settings, target="price", **more)

    assert_same_training(resumed(make, stopped.run, *OVERFITTING), whole)


def test_overfitting_needs_validation_rows(make_family: MakeTrainer) -> None:
    with pytest.raises(
        BmcliError, match="`overfit` needs a validation loss, but there are no validation rows"
    ) as caught:
        make_family("mlp", "train.stop.overfit=3", validation=0)
    assert caught.value.faults[0].path == "train.stop.overfit"


@pytest.mark.parametrize("call", [1, 2])  # in the estimation of moving statistics, and in the validation
def test_a_signal_while_an_epoch_is_measured_leaves_it_and_the_training_resumes_to_the_same_bits(
    make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    settings = ("model.normalization=batch", "model.dropout=0.3", "train.swa.start=0.3", "train.epochs=4")
    whole, stopped = (make_family("mlp", *settings) for _ in range(2))
    whole.train(Silent())
    after = evaluator.CallPacer.after_call
    calls_of_epoch: list[Any] = []

    def signalled(self: evaluator.CallPacer, *arguments: Any) -> None:
        if stopped.progress.epoch == 2 and stopped.progress.averaged == 3:
            calls_of_epoch.append(arguments)
            if len(calls_of_epoch) == call:
                os.kill(os.getpid(), signal.SIGTERM)
        after(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluator.CallPacer, "after_call", signalled)
        with pytest.raises(Interrupted, match="SIGTERM after step 9"):
            stopped.train(Silent())
    assert len(calls_of_epoch) == call, "it is left at once"
    assert len(stopped.run.read_epochs()) == 2, "the epoch is measured again"

    def make(*settings: str, **more: Any) -> Any:
        return make_family("mlp", *settings, **more)

    assert_same_training(resumed(make, stopped.run, *settings), whole)
