"""Choosing XLA: measured where it can pay, remembered, and without a trace in the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bmcli.errors import BmcliError
from bmcli.training.autotune import compilation
from bmcli.training.feed import shuffle_rows
from bmcli.training.train_step import Compilation, CompiledSteps
from bmcli.training.trainer import Trainer
from tests.trainers import MakeTrainer, same


def rows_of(trainer: Trainer) -> Any:
    return shuffle_rows(5, 0, trainer.feed.count)


PLAIN, XLA, TOGETHER = Compilation(), Compilation(True), Compilation(True, 8)


def choose(trainer: Trainer, steps_in_all: int, cache: Path) -> Compilation:
    def make(way: Compilation) -> CompiledSteps:
        return trainer.compile_steps(trainer.batch, way)

    return compilation.choose_compilation(
        make, [PLAIN, XLA], trainer.feed, rows_of(trainer), steps_in_all, cache
    ).compilation


def test_a_short_training_is_not_worth_compiling(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    assert choose(trainer, 10, tmp_path) == PLAIN
    (memory,) = (tmp_path / "jit").iterdir()
    assert list(json.loads(memory.read_text())["seconds_a_step"]) == ["plain"]


def test_what_was_measured_is_not_traced_again(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "MIN_SPEEDUP", 0.0)
    trainer, made = make_trainer(), []

    def make(way: Compilation) -> CompiledSteps:
        made.append(trainer.compile_steps(trainer.batch, way))
        return made[-1]

    steps = compilation.choose_compilation(make, [PLAIN, XLA], trainer.feed, rows_of(trainer), 10, tmp_path)
    assert (made, steps.trace_count) == ([steps], 1)
    remembered = compilation.choose_compilation(make, [PLAIN, XLA], trainer.feed, rows_of(trainer), 10, tmp_path)
    assert (made, remembered.trace_count) == ([steps, remembered], 0)


def test_measuring_leaves_every_variable_as_it_was(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("runtime.jit_steps=8", "runtime.jit=true", "train.batch_size=8")
    before, meters = trainer.steps.snapshot()
    compilation.measure_step_seconds([trainer.steps], trainer.feed, rows_of(trainer))
    after, meters_after = trainer.steps.snapshot()
    assert same([*before, *meters], [*after, *meters_after])


def test_a_choice_is_remembered(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(compilation, "WORTHWHILE_S", 0.0)
    monkeypatch.setattr(compilation, "MIN_SPEEDUP", 0.0)
    assert choose(trainer, 10, tmp_path) == XLA
    monkeypatch.setattr(compilation, "_find_fastest", lambda *_: pytest.fail("measured again"))
    assert choose(trainer, 10, tmp_path) == XLA


@pytest.mark.parametrize("content", ["", "{", "[]", '{"way": true}', '{"way": 7}'])
def test_a_damaged_memory_is_measured_again(make_trainer: MakeTrainer, tmp_path: Path, content: str) -> None:
    trainer = make_trainer()
    choose(trainer, 10, tmp_path)
    (memory,) = (tmp_path / "jit").iterdir()
    memory.write_text(content)
    assert choose(trainer, 10, tmp_path) == PLAIN
    assert json.loads(memory.read_text())["way"] == 0


def test_the_fastest_way_is_taken_and_what_cannot_pay_is_not_compiled(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("runtime.jit=false", "train.batch_size=8")
    seconds = {PLAIN: 1.5e-3, XLA: 1e-3, TOGETHER: 0.5e-3}
    measured: list[Compilation] = []

    def pretend(ways: Sequence[CompiledSteps], *_: Any) -> list[float]:
        measured.extend(way.compilation for way in ways)
        return [seconds[way.compilation] for way in ways]

    monkeypatch.setattr(compilation, "measure_step_seconds", pretend)

    def chosen(steps_in_all: int) -> Compilation:
        measured.clear()

        def make(way: Compilation) -> CompiledSteps:
            return trainer.compile_steps(trainer.batch, way)

        ways = [PLAIN, XLA, TOGETHER]
        return compilation.choose_compilation(
            make, ways, trainer.feed, rows_of(trainer), steps_in_all, tmp_path
        ).compilation

    assert (chosen(10_000), measured) == (PLAIN, [PLAIN])  # 15 s
    assert (chosen(15_000), measured) == (XLA, [PLAIN, PLAIN, XLA])  # 22 s, and 15 s with XLA
    assert (chosen(30_000), measured) == (TOGETHER, [PLAIN, PLAIN, XLA, XLA, TOGETHER])
    seconds[TOGETHER] = 0.9e-3
    assert chosen(40_000) == XLA  # a gain within the noise
    seconds[TOGETHER], seconds[PLAIN], seconds[XLA] = 1e-9, 8e-3, 3e-3
    assert (chosen(50_000), measured) == (XLA, [PLAIN, PLAIN, XLA])  # its steps are long


WAYS = {
    (): [PLAIN, XLA, TOGETHER],
    ("runtime.jit=false",): [PLAIN],
    ("runtime.jit=true",): [XLA, TOGETHER],
    ("runtime.jit=true", "runtime.jit_steps=1"): [XLA],
    ("runtime.jit=true", "runtime.jit_steps=4"): [Compilation(True, 4)],
    ("runtime.jit_steps=4",): [PLAIN, Compilation(True, 4)],
    ("train.stop.steps=20",): [PLAIN, XLA],
    ("train.gradient_accumulation=2",): [PLAIN, XLA],
    ("runtime.strategy=mirrored", "runtime.replicas=2"): [PLAIN, XLA],
    ("train.batch_size=16",): [PLAIN, XLA],  # only 7 full batches
}


@pytest.mark.parametrize("settings", WAYS, ids=lambda settings: " ".join(settings) or "auto")
def test_the_recipe_decides_what_is_measured(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    measured: list[Any] = []

    def note(make: Any, ways: Any, *_: Any) -> CompiledSteps:
        measured.append(ways)
        return make(ways[0])

    monkeypatch.setattr(compilation, "choose_compilation", note)
    size = () if "train.batch_size=16" in settings else ("train.batch_size=8",)
    make_trainer(*settings, *size)
    assert measured == [WAYS[settings]]


def test_several_steps_are_no_program_on_several_devices(make_trainer: MakeTrainer) -> None:
    with pytest.raises(BmcliError, match="only on one device") as caught:
        make_trainer("runtime.strategy=mirrored", "runtime.replicas=2", "runtime.jit_steps=4")
    assert caught.value.faults[0].path == "runtime.jit_steps"


def test_convolutions_stay_plain_on_a_cpu(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "measure_step_seconds", lambda *_: pytest.fail("measured"))
    trainer = make_trainer("data.source.name=digits", "model.kind=cnn", "model.filters=[4]", "train.epochs=1000000")
    assert trainer.steps.compilation == PLAIN
