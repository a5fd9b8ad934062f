"""Choosing XLA: measured where it can pay, remembered, and without a trace in the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmcli.training import jit
from bmcli.training.feed import order

from .conftest import MakeTrainer, same


def rows_of(trainer: object) -> object:
    return order(5, 0, trainer.feed.count)  # type: ignore[attr-defined]


def test_a_short_training_is_not_worth_compiling(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    chosen, _ = jit.choose(lambda compiled: trainer.steps, rows_of(trainer), 10, tmp_path)
    (memory,) = (tmp_path / "jit").iterdir()
    assert chosen is False
    assert json.loads(memory.read_text())["xla_s"] is None


def test_measuring_leaves_every_variable_as_it_was(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before = [variable.numpy() for variable in trainer.variables]
    jit._seconds_a_step([trainer.steps], rows_of(trainer))
    assert same(before, [variable.numpy() for variable in trainer.variables])


def test_a_choice_is_remembered(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(jit, "WORTHWHILE_S", 0.0)
    monkeypatch.setattr(jit, "FASTER", 0.0)
    made: list[bool] = []

    def make(compiled: bool) -> object:
        made.append(compiled)
        return trainer.steps

    assert jit.choose(make, rows_of(trainer), 10, tmp_path)[0] is True  # type: ignore[arg-type]
    monkeypatch.setattr(jit, "_measure", lambda *_: pytest.fail("measured again"))
    assert jit.choose(make, rows_of(trainer), 10, tmp_path)[0] is True  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jit": 1}'])
def test_a_damaged_memory_is_measured_again(make_trainer: MakeTrainer, tmp_path: Path, content: str) -> None:
    trainer = make_trainer()
    jit.choose(lambda compiled: trainer.steps, rows_of(trainer), 10, tmp_path)
    (memory,) = (tmp_path / "jit").iterdir()
    memory.write_text(content)
    assert jit.choose(lambda compiled: trainer.steps, rows_of(trainer), 10, tmp_path)[0] is False
    assert json.loads(memory.read_text())["jit"] is False


def test_convolutions_stay_plain_on_a_cpu(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer("data.source.name=digits", "model.kind=cnn", "model.filters=[4]", "train.epochs=1")
    assert trainer.jit is False
    chosen, _ = jit.choose(lambda compiled: trainer.steps, rows_of(trainer), 10**9, tmp_path)
    assert chosen is False
    assert not (tmp_path / "jit").exists()
