"""Resumed runs, several devices and several processes, as a user calls them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from bmcli import training
from bmcli.runs import Run
from bmcli.training.train_step import CompiledSteps
from tests.conftest import TINY, WriteRecipe

from .conftest import Bmcli, Done, obey, read_advised_commands

NO_DROPOUT = TINY.replace(", dropout: 0.2", "")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run and its output, trained by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("kept")}


@pytest.fixture
def run(bmcli: Bmcli, tmp_path: Path, kept: dict[str, Any]) -> Run:
    """Copy of a finished run of three epochs."""
    if "run" not in kept:
        recipe = kept["folder"] / "recipe.yaml"
        recipe.write_text(TINY)
        kept["json"] = bmcli("train", recipe, "--runs", kept["folder"] / "runs", "--json").json()
        kept["run"] = Path(kept["json"]["run"])
    return Run(Path(shutil.copytree(kept["run"], tmp_path / "runs" / "tiny" / "copy")))


@pytest.fixture
def in_process(tmp_path: Path) -> Any:
    """Call bmcli in a separate process."""

    def call(*arguments: object) -> Done:
        command = [sys.executable, "-m", "bmcli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


def without_clock(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in run.read_epochs()]


def test_a_finished_run_goes_on_with_more_epochs_and_its_lock_says_so(
    bmcli: Bmcli, run: Run, write_recipe: WriteRecipe
) -> None:
    done = bmcli("train", "--resume", run.folder, "train.epochs=5", "--json")
    assert done.code == 0, done.err
    assert "from epoch 4, step 25" in done.err
    assert "not bit-identical" not in done.err
    lock = yaml.safe_load(run.lock.read_text())
    assert lock["train"]["epochs"] == 5
    assert [row["epoch"] for row in run.read_epochs()] == [1, 2, 3, 4, 5]
    assert (run.status()["state"], run.status()["epochs"]) == ("done", 5)
    whole = bmcli("train", write_recipe(), "train.epochs=5", "--runs", "whole", "--json").json()
    assert done.json()["metrics"] == whole["metrics"]
    assert done.json()["selected_epoch"] == whole["selected_epoch"]
    assert without_clock(run) == without_clock(Run(Path(whole["run"])))
    assert bmcli("train", "--resume", run.folder).code == 2, "the lock has the new end"


@pytest.mark.parametrize("change", ["model.dropout=0.5", "train.batch_size=8", "seed=6", "train.epochsx=3", "train={}"])
def test_a_change_that_would_make_it_another_training_is_refused(bmcli: Bmcli, run: Run, change: str) -> None:
    before = run.lock.read_bytes()
    done = bmcli("train", "--resume", run.folder, change)
    assert done.code == 2
    assert "Traceback" not in done.err
    if change != "train.epochsx=3":
        assert f"{change.split('=')[0]} cannot change" in done.err
        for allowed in ("train.epochs", "train.stop", "runtime", "evaluate"):
            assert allowed in done.err
    assert run.lock.read_bytes() == before
    assert run.status()["state"] == "done"


FROZEN = "train.optimizer={kind: sgd, learning_rate: 1e-9}"
ENDED: dict[str, tuple[str, ...]] = {
    "epochs": ("train.epochs=2",),
    "steps": ("train.stop.steps=10",),
    "time": ("train.stop.time=1ms", "train.epochs=100"),
    "patience": (FROZEN, "train.stop={patience: 1, min_delta: 0.5}", "train.epochs=50"),
    "overfit": ("train.stop.overfit=1", "train.epochs=80", "train.optimizer={kind: adam, learning_rate: 5e-2}"),
    "metric": ("train.stop={metric: train/loss, below: 1000.0}", "train.epochs=5"),
    # Both limits hold: raising one of them alone would not help.
    "patience, epochs": (FROZEN, "train.stop={patience: 1, min_delta: 0.5}", "train.epochs=2"),
}


@pytest.mark.parametrize("reasons", ENDED)
def test_the_advice_to_train_longer_works(bmcli: Bmcli, write_recipe: WriteRecipe, reasons: str) -> None:
    run = Run(Path(bmcli("train", write_recipe(), *ENDED[reasons], "--json").json()["run"]))
    steps = run.read_epochs()[-1]["step"]
    refused = bmcli("train", "--resume", run.folder)
    assert refused.code == 2
    assert f"(stop reason: {reasons.partition(',')[0]})" in refused.err
    obey(bmcli, refused.err)
    assert run.read_epochs()[-1]["step"] > steps


def test_the_advice_to_train_longer_keeps_what_was_changed(bmcli: Bmcli, run: Run) -> None:
    """Nothing has written the changes of a refused command: without them, another limit could end it again."""
    refused = bmcli("train", "--resume", run.folder, "train.stop={steps: 1000, time: 1h}", "runtime.jit=false")
    assert refused.code == 2
    (advised,) = read_advised_commands(refused.err)
    more = shlex.split(advised)[4:]
    assert more[:2] == ["train.stop={steps: 1000, time: 1h}", "runtime.jit=false"]
    assert more[2].startswith("train.epochs=")


def test_a_run_that_a_callback_ended_is_said_not_to_go_on(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    settings = (FROZEN, "train.callbacks=[{kind: early_stopping, patience: 1, min_delta: 0.5}]", "train.epochs=9")
    run = Run(Path(bmcli("train", write_recipe(), *settings, "--json").json()["run"]))
    done = bmcli("train", "--resume", run.folder, "train.epochs=20")
    assert done.code == 2
    assert "train a new run without that callback" in done.err


def test_a_schedule_over_more_epochs_is_told_with_its_rates_and_a_choice(
    bmcli: Bmcli, write_recipe: WriteRecipe
) -> None:
    run = Run(Path(bmcli("train", write_recipe(), "train.schedule=cosine", "--json").json()["run"]))
    copy = Run(Path(shutil.copytree(run.folder, run.folder.with_name("copy"))))
    longer = bmcli("train", "--resume", run.folder, "train.epochs=6")
    assert "the learning rate follows its schedule over all 48 steps now, instead of 24" in longer.err
    assert "it is 0.005, instead of 0." in longer.err
    assert run.read_epochs()[3]["learning_rate"] == pytest.approx(0.01 * (1 + np.cos(np.pi * 32 / 48)) / 2)
    assert "set train.schedule.span=3" in longer.err
    kept = bmcli("train", "--resume", copy.folder, "train.epochs=6", "train.schedule.span=3")
    assert kept.code == 0, kept.err
    assert "follows its schedule" not in kept.err
    assert [row["learning_rate"] for row in copy.read_epochs()[3:]] == [0, 0, 0]


def test_an_interrupted_run_with_more_epochs_is_told_of_its_schedule_too(
    bmcli: Bmcli, write_recipe: WriteRecipe
) -> None:
    settings = ("train.schedule=cosine", "train.stop.steps=10")
    run = Run(Path(bmcli("train", write_recipe(), *settings, "--json").json()["run"]))
    status = run.status()
    run.set_status("interrupted", **{key: value for key, value in status.items() if key != "state"})
    done = bmcli("train", "--resume", run.folder, "train.stop.steps=20")
    assert done.code == 0, done.err
    assert "over all 20 steps now, instead of 10" in done.err
    assert "span=3" not in done.err, "the old schedule ended after 10 steps, and not after an epoch"


def test_a_training_that_diverges_before_its_first_epoch_ends_without_a_traceback(
    bmcli: Bmcli, write_recipe: WriteRecipe
) -> None:
    settings = ("train.optimizer={kind: sgd, learning_rate: 1e30}", "train.schedule={kind: cosine, span: time}")
    done = bmcli("train", write_recipe(), *settings, "train.stop.time=1h", "model.activation=linear")
    assert done.code == 1, done.err
    assert "training stopped: " in done.err
    assert "Traceback" not in done.err


def test_a_time_that_ends_a_schedule_early_is_told(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    settings = ("train.epochs=5000", "train.stop.time=200ms", "--json")
    cut = bmcli("train", write_recipe(), "train.schedule=cosine", *settings)
    assert "With train.schedule.span=time it follows the time" in cut.err
    timed = bmcli("train", write_recipe(), "train.schedule={kind: cosine, span: time}", *settings)
    assert timed.code == 0, timed.err
    assert "it follows the time" not in timed.err
    short = bmcli("train", write_recipe(), "train.schedule={kind: cosine, span: time}", "train.stop.time=1h", "--json")
    assert "before the end of its schedule over time. Raise train.epochs" in short.err


def test_a_finished_run_without_a_change_is_refused_with_advice(bmcli: Bmcli, run: Run) -> None:
    done = bmcli("train", "--resume", run.folder)
    assert done.code == 2
    assert "is already completed (stop reason: epochs)" in done.err
    assert "train.epochs=6" in done.err
    assert run.status()["state"] == "done"


def test_a_run_that_a_budget_cut_off_in_an_epoch_is_finished_until_the_budget_is_raised(
    bmcli: Bmcli, write_recipe: WriteRecipe
) -> None:
    run = Run(Path(bmcli("train", write_recipe(), "train.stop.steps=10", "--json").json()["run"]))
    done = bmcli("train", "--resume", run.folder)
    assert done.code == 2
    assert "is already completed (stop reason: steps)" in done.err
    assert bmcli("train", "--resume", run.folder, "train.stop.steps=12", "--json").json()["stop_reason"] == "steps"
    assert [row["step"] for row in run.read_epochs()] == [8, 12]


def test_a_refusal_leaves_the_metrics_of_a_run_that_a_budget_cut_off_alone(
    bmcli: Bmcli, write_recipe: WriteRecipe
) -> None:
    run = Run(Path(bmcli("train", write_recipe(), "train.stop.steps=10", "--json").json()["run"]))
    rows = without_clock(run)
    assert bmcli("train", "--resume", run.folder).code == 2
    assert without_clock(run) == rows


def test_another_machine_is_said_to_give_other_bits(bmcli: Bmcli, run: Run) -> None:
    recorded = run.read_environment()
    run.write(run.environment, {**recorded, "cores": 99, "intra_op_threads": 7})
    done = bmcli("train", "--resume", run.folder, "train.epochs=4")
    assert done.code == 0, done.err
    assert "not bit-identical to an uninterrupted run" in done.err
    assert f"cores (99, now {recorded['cores']})" in done.err
    assert f"intra_op_threads (7, now {recorded['intra_op_threads']})" in done.err
    assert done.err.count("not bit-identical") == 1


def test_a_lost_record_of_the_machine_is_no_obstacle(bmcli: Bmcli, run: Run) -> None:
    run.environment.unlink()
    assert bmcli("train", "--resume", run.folder, "train.epochs=4").code == 0


def test_a_damaged_checkpoint_is_named_to_the_user(bmcli: Bmcli, run: Run) -> None:
    (newest,) = run.checkpoints.iterdir()  # the only one of so short a run
    before = run.checkpoints / "step-000000001"
    shutil.copytree(newest, before)
    (newest / "state.json").unlink()
    done = bmcli("train", "--resume", run.folder, "train.epochs=4")
    assert done.code == 0, done.err
    assert f"checkpoint {newest.name} is damaged; the one before is used." in done.err


def test_a_profile_lies_among_the_events(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("train", write_recipe(), "--profile", "--json")
    assert done.code == 0, done.err
    traces = [path for path in Run(Path(done.json()["run"])).events.glob("plugins/profile/*/*") if path.stat().st_size]
    assert any(path.name.endswith(".xplane.pb") for path in traces)


@pytest.mark.parametrize("moment", ["begin", "prepare", "measure", "write_report"])
def test_a_signal_at_any_moment_of_a_resumed_run_ends_with_how_to_go_on(
    bmcli: Bmcli, run: Run, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    functions = {
        "begin": "bmcli.workflows.training.start_session",
        "prepare": "bmcli.training.prepare_data",
        "measure": "bmcli.workflows.training.evaluate_rows",
        "write_report": "bmcli.workflows.report_data.write_report",
    }

    def signalled(*arguments: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(functions[moment], signalled)
        done = bmcli("train", "--resume", run.folder, "train.epochs=4")
    assert done.code == 75, done.err
    assert f"Continue with `bmcli train --resume {run.display_path}" in done.err
    assert obey(bmcli, done.err, "--json").json()["epochs"] == 4, "the advice repeats what was changed"


def test_a_signal_before_the_first_checkpoint_leaves_nothing(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "prepare_data", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = bmcli("train", write_recipe())
    assert done.code == 130
    assert "interrupted; nothing was saved." in done.err
    assert not list(tmp_path.glob("runs/*/*"))


NOWHERE = """\
bmcli: 1
name: nowhere
data: {source: {kind: csv, path: nowhere.csv}, targets: {y: {kind: category}}}
model: {kind: mlp, hidden: [4]}
"""


@pytest.mark.parametrize(
    ("strategy", "message"), [("mirrored", "this machine has no GPU to mirror on."), ("tpu", "there is no TPU")]
)
def test_devices_that_are_not_there_are_a_fault_before_data_is_read(
    bmcli: Bmcli,
    write_recipe: WriteRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    message: str,
) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    done = bmcli("train", write_recipe(NOWHERE), "--strategy", strategy, "--json")
    assert done.code == 2
    (fault,) = done.json()["faults"]
    assert fault["path"] == "runtime.strategy"
    assert fault["message"].startswith(message)
    assert fault["suggestion"]
    assert "nowhere.csv" not in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("runs/*/*"))


def test_what_auto_halved_to_is_known_when_an_interrupted_run_goes_on(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = CompiledSteps.train_block

    def failing(steps: CompiledSteps, block: Any) -> int:
        if (tmp_path / "trains").exists() and steps.micro_batches == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")
        if steps.micro_batches > 1 and stopping:
            os.kill(os.getpid(), stopping.pop())
        return many(steps, block)

    bmcli("train", write_recipe(), "train.batch_size=auto", "--runs", "measured")  # nothing is measured from here on
    (tmp_path / "trains").touch()
    stopping = [signal.SIGTERM]
    monkeypatch.setattr(CompiledSteps, "train_block", failing)
    stopped = bmcli("train", write_recipe(), "train.batch_size=auto")
    assert stopped.code == 75, stopped.err
    assert "in 2 parts" in stopped.err
    resumed = bmcli("train", "--resume", "tiny")
    assert resumed.code == 0, resumed.err


TWO_CALLS = """\
import json, sys
from bmcli.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bmcli", *arguments]
    try:
        main()
    except SystemExit as left:
        if left.code: raise
"""


@pytest.mark.slow  # tests/training/test_replicas.py holds the same law of the weights
def test_replicas_train_and_measure_what_one_device_measures(
    write_recipe: WriteRecipe, run: Run, kept: dict[str, Any], tmp_path: Path
) -> None:
    """Both are in one process, since starting one takes longer than either."""
    calls = [
        ["train", str(write_recipe()), "--strategy", "mirrored", "--replicas", "2", "train.epochs=1", "--json"],
        ["evaluate", str(run.folder), "runtime.strategy=mirrored", "runtime.replicas=2", "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", TWO_CALLS, json.dumps(calls)],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained, measured = map(json.loads, done.stdout.splitlines())
    mirrored = Run(Path(trained["run"]))
    lock = yaml.safe_load(mirrored.lock.read_text())
    assert (lock["runtime"]["strategy"], lock["runtime"]["replicas"]) == ("mirrored", 2)
    assert mirrored.read_environment()["replicas"] == 2
    assert "test/log_loss" in measured["metrics"]
    assert measured["metrics"] == pytest.approx(
        {name: kept["json"]["metrics"][name] for name in measured["metrics"]}, abs=1e-6
    )


@pytest.mark.slow
def test_two_workers_end_with_what_one_process_ends_with(
    in_process: Any, bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = write_recipe(NO_DROPOUT)
    alone = bmcli("train", recipe, "--runs", "alone", "--json").json()
    done = in_process("train", recipe, "--workers", 2, "--json")
    assert done.code == 0, done.err
    result = done.json()  # one object
    run = Run(Path(result["run"]))
    assert (run.logs / "worker-1.log").exists()
    assert run.status()["state"] == "done"
    assert set(result["metrics"]) == set(alone["metrics"])
    assert result["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)
    for mine, theirs in zip(weights_of(Path(alone["run"])), weights_of(run.folder), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    # Whoever measures it afterwards is one process.
    measured = in_process("evaluate", run.folder, "--json")
    assert measured.code == 0, measured.err
    metrics = measured.json()["metrics"]
    assert metrics == pytest.approx({name: result["metrics"][name] for name in metrics}, abs=1e-6)


def weights_of(folder: Path) -> list[np.ndarray]:
    return [weight.numpy() for weight in keras.saving.load_model(Run(folder).model).weights]


@pytest.mark.parametrize(
    ("override", "path"),
    [
        pytest.param("train.epochs=0", "train.epochs", marks=pytest.mark.slow),
        ("train.select.metric=validation/acc", "train.select.metric"),
    ],
)
def test_a_faulty_recipe_is_refused_once_by_all_workers_together(
    in_process: Any, write_recipe: WriteRecipe, tmp_path: Path, override: str, path: str
) -> None:
    done = in_process("train", write_recipe(), override, "--workers", 2, "--json")
    assert done.code == 2, done.err
    (fault,) = done.json()["faults"]
    assert (fault["path"], fault["file"], fault["line"]) == (path, "command line", 1)
    assert done.err.count("command line:1:") == 1
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_run_that_goes_on_tells_what_is_damaged_of_it(bmcli: Bmcli, run: Run) -> None:
    for file in (run.evaluation, run.metrics):
        file.write_bytes(file.read_bytes().replace(b"loss", b"lost"))
    done = bmcli("train", "--resume", run.folder, "train.epochs=4", "--json")
    assert done.code == 0, done.err
    for name in ("evaluation.json: damaged", "metrics.jsonl:1: damaged"):
        assert name in done.err
    assert set(run.read_evaluations()) == {"test"}
