"""Trials: candidates trained as far as their task requires, to the same bits as an uninterrupted training."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from bmcli import records
from bmcli.errors import Interrupted
from bmcli.models import allow_column_names
from bmcli.recipe.load import load_recipe
from bmcli.run_data import read_data_spec
from bmcli.training import checkpoint
from bmcli.training.train_step import CompiledSteps
from bmcli.training.trainer import Trainer
from bmcli.trials import SearchObjective, Task, TrialResult
from bmcli.tuning.study import Study
from bmcli.tuning.trial import _copy_state, run_trial

from .conftest import MakeStudy

LOSS = SearchObjective("validation/loss", "min")
# All kinds of state: dropout, moving statistics, averages, a schedule, patience.
STATEFUL = (
    "train.epochs=6", "model.normalization=batch", "train.ema=0.9", "train.schedule={kind: cosine, warmup: 0.2}",
    "train.stop.patience=6",
)  # fmt: skip
VALUES = {"model.dropout": 0.3, "model.hidden": [4, 4]}


@pytest.fixture
def stateful(make_study: MakeStudy) -> Study:
    return make_study(*STATEFUL)


def state(study: Study, name: str) -> dict[str, Any]:
    """State of a trial that can be resumed, without times."""
    found, damaged = checkpoint.restore(study.run(name).checkpoints)
    assert damaged == ()
    bits = {group: [array.tobytes() for array in arrays] for group, arrays in found.groups.items()}
    return {**bits, "progress": without_clock(found.values["progress"]), "callbacks": found.values["callbacks"]}


def without_clock(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    clock = ("seconds", "examples_per_second", "train_s", "epoch_s")
    return {name: without_clock(value) for name, value in values.items() if name not in clock}


def same(first: TrialResult, second: TrialResult) -> bool:
    """Whether two results differ only in their names and times."""
    return replace(first, name="", seconds=0.0) == replace(second, name="", seconds=0.0)


def test_a_trial_is_a_run_that_is_measured_on_validation_rows(study: Study, cache: Path) -> None:
    result = run_trial(study, Task("0001", VALUES), cache)
    run = study.run("0001")
    rows = run.read_epochs()
    best = max(row["validation/accuracy"] for row in rows)
    assert (result.name, result.state, result.reason, result.epochs) == ("0001", "done", "", 3)
    assert result.objectives == {"validation/accuracy": best}
    assert result.curve == tuple(-row["validation/accuracy"] for row in rows)
    assert result.metrics["validation/accuracy"] == best
    assert result.metrics["train/loss"] > 0
    assert not any(name.startswith("test/") for name in result.metrics)
    assert result.seconds > 0
    assert load_recipe(str(run.lock)).recipe.model.hidden == (4, 4)
    assert {path.name for path in run.folder.iterdir()} == {
        ".lock", "recipe.yaml", "recipe.lock.yaml", "environment.json", "data.json", "metrics.jsonl", "status.json",
    }, "its state is not needed any more, and it writes no events"  # fmt: skip
    assert (run.status()["state"], run.status()["stop_reason"]) == ("done", "epochs")


def test_sizes_and_latency_are_measured(make_study: MakeStudy, cache: Path) -> None:
    objectives = (LOSS, *(SearchObjective(name, "min") for name in ("parameters", "size", "latency")))
    study = make_study("model.normalization=batch", objectives=objectives)
    found = run_trial(study, Task("0001", {"model.hidden": [8]}), cache).objectives
    trained, moving = 4 * 8 + 2 * 8 + (8 * 3 + 3), 2 * 8
    assert found["parameters"] == trained + moving
    assert found["size"] == 4 * (trained + moving)
    assert 0 < found["latency"] < 1
    assert found["validation/loss"] == min(row["validation/loss"] for row in study.run("0001").read_epochs())


def test_a_promoted_trial_has_the_bits_of_one_that_never_stopped(stateful: Study, cache: Path) -> None:
    whole = run_trial(stateful, Task("whole", VALUES, keeps_model=True), cache)
    first = run_trial(stateful, Task("0001", VALUES, until=2), cache)
    assert (first.state, first.epochs, len(first.curve)) == ("done", 2, 2)
    before = state(stateful, "0001"), stateful.run("0001").metrics.read_bytes()
    second = run_trial(stateful, Task("0002", VALUES, until=4, continues="0001"), cache)
    assert (second.state, second.epochs, len(second.curve)) == ("done", 4, 4)
    last = run_trial(stateful, Task("0003", VALUES, continues="0002", keeps_model=True), cache)
    assert (state(stateful, "0001"), stateful.run("0001").metrics.read_bytes()) == before, "it is as it was"
    assert last.curve[:4] == second.curve
    assert second.curve[:2] == first.curve
    assert same(last, whole)
    assert state(stateful, "0003") == state(stateful, "whole")
    rows, others = ([without_clock(row) for row in stateful.run(name).read_epochs()] for name in ("0003", "whole"))
    assert rows == others


def test_a_promoted_trial_whose_forerunner_left_no_state_is_trained_from_its_beginning(
    stateful: Study, cache: Path
) -> None:
    whole = run_trial(stateful, Task("whole", VALUES, until=4), cache)
    run_trial(stateful, Task("0001", VALUES, until=2), cache)
    stateful.remove_checkpoints("0001")
    assert same(run_trial(stateful, Task("0002", VALUES, until=4, continues="0001"), cache), whole)
    assert state(stateful, "0002") == state(stateful, "whole")


class Stopped:
    """Sends this process a signal after some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
        many = CompiledSteps.train_block

        def stopping(steps: CompiledSteps, block: Any) -> int:
            self.calls -= 1
            if self.calls == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return many(steps, block)

        self.calls = calls
        monkeypatch.setattr(CompiledSteps, "train_block", stopping)


def test_an_interrupted_trial_goes_on_to_the_same_bits(
    stateful: Study, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_trial(stateful, Task("whole", VALUES, until=5), cache)
    task = Task("0001", VALUES, until=5)
    stopped = Stopped(monkeypatch, 0)
    for _ in range(2):
        stopped.calls = 3
        with pytest.raises(Interrupted, match="the state is saved"):
            run_trial(stateful, task, cache)
        assert stateful.run("0001").status()["state"] == "interrupted"
    stopped.calls = 0
    assert same(run_trial(stateful, task, cache), whole)
    assert state(stateful, "0001") == state(stateful, "whole")


def test_a_trial_killed_before_its_result_was_handed_in_gives_the_same_result(stateful: Study, cache: Path) -> None:
    task = Task("0001", VALUES, until=3)
    first = run_trial(stateful, task, cache)
    assert same(run_trial(stateful, task, cache), first)
    run = stateful.run("0001")
    run.data.unlink()  # as when the kill came before anything was trained
    assert same(run_trial(stateful, task, cache), first)


def test_a_trial_is_stopped_when_its_best_is_worse_than_its_bounds(study: Study, cache: Path) -> None:
    whole = run_trial(study, Task("whole", VALUES), cache)
    best = [min(whole.curve[: epoch + 1]) for epoch in range(3)]
    kept = run_trial(study, Task("kept", VALUES, bounds=tuple(best)), cache)
    assert (kept.state, kept.epochs) == ("done", 3)
    stopped = run_trial(study, Task("stopped", VALUES, bounds=(None, best[1] - 1e-4, 5.0)), cache)
    assert (stopped.state, stopped.epochs, stopped.curve) == ("stopped", 2, whole.curve[:2])
    bound = best[1] - 1e-4
    reason = (
        f"the best score was {best[1]:.4g}; the median of other trials after 2 epochs was {bound:.4g} (a lower score"
    )
    assert stopped.reason == f"{reason} is better)."
    assert stopped.objectives == {"validation/accuracy": -best[1]}
    assert not study.run("stopped").checkpoints.exists()


DIVERGING = {"train.optimizer": {"kind": "sgd", "learning_rate": 1e30}, "model.activation": "linear"}


def test_a_training_that_diverges_is_told_apart_from_a_failed_one(study: Study, cache: Path) -> None:
    result = run_trial(study, Task("0001", DIVERGING), cache)
    assert (result.state, result.objectives) == ("diverged", {})
    assert "is not a finite number" in result.reason or "holds NaN" in result.reason
    assert study.run("0001").status()["state"] == "failed"


def test_a_candidate_that_the_recipe_or_the_data_refuses_is_told(study: Study, cache: Path) -> None:
    for name, values, reason in (
        ("0001", {"model.dropout": 2}, "model.dropout: expected"),
        ("0002", {"model.kind": "cnn", "model.hidden": None, "model.dropout": None}, "cnn"),
        ("0003", {"train.select.metric": "validation/nothing"}, "no metric 'validation/nothing'"),
    ):
        result = run_trial(study, Task(name, values), cache)
        assert (result.state, result.objectives, result.epochs) == ("refused", {}, 0)
        assert reason in result.reason


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "OOM"), MemoryError()])
@pytest.mark.parametrize("place", [(CompiledSteps, "train_block"), (Trainer, "__init__")])
def test_too_little_memory_is_a_failure(
    study: Study, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: tuple[Any, str]
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(*place, exhausted)
    result = run_trial(study, Task("0001", {}), cache)
    assert result.state == "failed"
    assert "out of memory" in result.reason


def test_a_model_is_kept_where_it_is_asked_for(study: Study, cache: Path) -> None:
    result = run_trial(study, Task("confirm-1-seed-6", {"seed": 6, "data.seed": 5}, keeps_model=True), cache)
    run = study.run("confirm-1-seed-6")
    assert result.state == "done"
    with allow_column_names():
        model = keras.saving.load_model(run.model, compile=False)
    assert model.count_params() > 0
    assert any(run.checkpoints.glob("step-*")), "it can be resumed"


def test_another_seed_trains_otherwise_on_the_same_split(study: Study, cache: Path) -> None:
    for seed in (5, 6):
        run_trial(study, Task(f"seed-{seed}", {"seed": seed, "data.seed": 5}), cache)
    first, second = (study.run(f"seed-{seed}") for seed in (5, 6))
    assert read_data_spec(first).key == read_data_spec(second).key
    assert [row["train/loss"] for row in first.read_epochs()] != [row["train/loss"] for row in second.read_epochs()]


def test_a_trial_that_another_process_still_writes_can_be_taken_up_later(study: Study, cache: Path) -> None:
    run = study.run("0001")
    run.folder.mkdir()
    with run.acquire_lock(), pytest.raises(Interrupted, match="is being written by process"):
        run_trial(study, Task("0001", {}), cache)
    assert run_trial(study, Task("0001", {}), cache).state == "done"


def test_a_trial_is_not_gone_on_with_on_other_data(
    stateful: Study, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trial(stateful, Task("0001", VALUES, until=2), cache)
    data = stateful.run("0001").data
    found = records.read_record(data)
    records.write_record(data, {**found, "fingerprint": f"0{found['fingerprint']}"})
    result = run_trial(stateful, Task("0002", VALUES, continues="0001"), cache)
    assert result.state == "refused"
    assert "the data changed" in result.reason


def test_a_file_system_without_links_gets_copies(stateful: Study, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    run_trial(stateful, Task("0001", VALUES, until=2), cache)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refused)
        stateful.run("0002").folder.mkdir()
        _copy_state(stateful.run("0001"), stateful.run("0002"))
    assert state(stateful, "0002") == state(stateful, "0001")


@pytest.mark.parametrize("name", ["recipe.lock.yaml", "data.json", "metrics.jsonl", "checkpoints"])
def test_a_trial_that_is_damaged_is_trained_anew_to_the_same_result(stateful: Study, cache: Path, name: str) -> None:
    task = Task("0001", VALUES, until=2)
    first = run_trial(stateful, task, cache)
    run = stateful.run("0001")
    damaged = [run.folder / name] if name != "checkpoints" else list(run.checkpoints.glob("*/state.json"))
    for file in damaged:
        file.write_bytes(file.read_bytes()[:-30] + b"\n")
    assert same(run_trial(stateful, task, cache), first)
