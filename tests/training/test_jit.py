"""Choosing XLA: measured where it can pay, remembered, and without a trace in the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmcli.training import jit
from bmcli.training.feed import order
from bmcli.training.loop import Trainer
from bmcli.training.step import Steps

from .conftest import MakeTrainer, same


def rows_of(trainer: Trainer) -> Any:
    return order(5, 0, trainer.feed.count)


def choose(trainer: Trainer, steps_in_all: int, cache: Path) -> Steps:
    def make(jit: bool) -> Steps:
        return trainer.steps_of(trainer.batch, jit)

    return jit.choose(make, trainer.feed, rows_of(trainer), steps_in_all, cache)


def test_a_short_training_is_not_worth_compiling(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    chosen = choose(trainer, 10, tmp_path)
    (memory,) = (tmp_path / "jit").iterdir()
    assert chosen.jit is False
    assert json.loads(memory.read_text())["xla_s"] is None


def test_measuring_leaves_every_variable_as_it_was(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before, meters = trainer.steps.snapshot()
    jit.seconds_a_step([trainer.steps], trainer.feed, rows_of(trainer))
    after, meters_after = trainer.steps.snapshot()
    assert same([*before, *meters], [*after, *meters_after])


def test_a_choice_is_remembered(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(jit, "WORTHWHILE_S", 0.0)
    monkeypatch.setattr(jit, "FASTER", 0.0)
    assert choose(trainer, 10, tmp_path).jit is True
    monkeypatch.setattr(jit, "_measured", lambda *_: pytest.fail("measured again"))
    assert choose(trainer, 10, tmp_path).jit is True


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jit": 1}'])
def test_a_damaged_memory_is_measured_again(make_trainer: MakeTrainer, tmp_path: Path, content: str) -> None:
    trainer = make_trainer()
    choose(trainer, 10, tmp_path)
    (memory,) = (tmp_path / "jit").iterdir()
    memory.write_text(content)
    assert choose(trainer, 10, tmp_path).jit is False
    assert json.loads(memory.read_text())["jit"] is False


def test_convolutions_stay_plain_on_a_cpu(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "choose", lambda *_: pytest.fail("measured"))
    trainer = make_trainer("data.source.name=digits", "model.kind=cnn", "model.filters=[4]", "train.epochs=1000000")
    assert trainer.steps.jit is False
