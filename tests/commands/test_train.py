"""`bmcli train` and `bmcli evaluate`, from a recipe file to numbers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_iris

from bmcli import runs
from bmcli.models import allow_column_names
from bmcli.runs import Run
from tests.conftest import TINY, WriteRecipe

from .conftest import Bmcli


def weights(run: str) -> list[np.ndarray]:
    """Return the kept weights of a run."""
    return load_model(run).get_weights()


def load_model(run: str) -> keras.Model:
    """Load the kept model of a run as a user of Keras would."""
    with allow_column_names():
        return keras.saving.load_model(Path(run) / "model.keras", compile=False)


def assert_same_bits(first: str, second: str) -> None:
    ours, others = weights(first), weights(second)
    assert len(ours) == len(others) > 0
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, others, strict=True))


def test_a_run_keeps_everything(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("train", write_recipe(), "--json")
    assert done.code == 0, done.err
    folder = Path(done.json()["run"])
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "recipe.yaml", "recipe.lock.yaml", "environment.json", "data.json", "metrics.jsonl", "checkpoints",
        "model.keras", "evaluation.json", "status.json",
    }  # fmt: skip
    assert (folder / "recipe.yaml").read_text() == TINY
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_json_holds_validation_and_test_metrics(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    metrics = bmcli("train", write_recipe(), "--json").json()["metrics"]
    assert 0 <= metrics["validation/accuracy"] <= 1
    assert 0 <= metrics["test/accuracy"] <= 1
    assert metrics["test/log_loss"] > 0


def test_two_runs_and_a_run_of_the_lock_have_the_same_bits(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    first = bmcli("train", write_recipe(), "train.epochs=2", "--json").json()["run"]
    second = bmcli("train", write_recipe(), "train.epochs=2", "--json").json()["run"]
    locked = bmcli("train", Path(first) / "recipe.lock.yaml", "--json").json()["run"]
    assert len({first, second, locked}) == 3
    assert_same_bits(first, second)
    assert_same_bits(first, locked)


def test_damaged_prepared_data_trains_to_the_same_bits(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "cache"))
    first = bmcli("train", write_recipe(), "train.epochs=2", "--json").json()["run"]
    (labels,) = (tmp_path / "cache" / "prepared").glob("[!.]*/train/targets-0.npy")
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])
    again = bmcli("train", write_recipe(), "train.epochs=2", "--json")
    assert "train/targets-0.npy: changed since it was written" in again.err
    assert labels.read_bytes() == whole
    assert_same_bits(first, again.json()["run"])


def test_a_cache_that_others_write_is_refused_and_left_alone(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "open"))
    done = bmcli("train", write_recipe(), "--json")
    assert done.code == 2
    (fault,) = done.json()["faults"]
    assert "is not private" in fault["message"]
    assert "BMCLI_CACHE" in fault["suggestion"]
    assert list((tmp_path / "open").iterdir()) == []


def test_evaluate_repeats_what_train_measured(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    trained = bmcli("train", write_recipe(), "--json").json()
    for target in ("tiny", trained["run"], write_recipe()):
        again = bmcli("evaluate", target, "--json").json()
        for name, value in again["metrics"].items():
            assert value == pytest.approx(trained["metrics"][name], abs=1e-6)


def test_evaluations_on_several_splits_stand_side_by_side(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    run = bmcli("train", write_recipe(), "--json").json()["run"]
    assert "validation/accuracy" in bmcli("evaluate", "tiny", "--split", "validation", "--json").json()["metrics"]
    assert set(Run(Path(run)).read_evaluations()) == {"test", "validation"}


CSV_RECIPE = """\
bmcli: 1
name: flowers
data:
  source: {kind: csv, path: flowers.csv}
  targets: {species: {kind: category}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 2, batch_size: 16, tensorboard: false}
"""


def write_flowers(path: Path, rows: slice = slice(None)) -> None:
    iris = load_iris()
    names = iris.target_names[iris.target]
    lines = [",".join([*map(str, x), name]) for x, name in zip(iris.data, names, strict=True)][rows]
    path.write_text("a,b,c,d,species\n" + "\n".join(lines) + "\n")


def test_a_run_is_measured_on_a_new_file(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    write_flowers(tmp_path / "flowers.csv")
    write_flowers(tmp_path / "new.csv", slice(0, 120, 2))
    assert bmcli("train", write_recipe(CSV_RECIPE)).code == 0
    metrics = bmcli("evaluate", "flowers", "--data", "new.csv", "--json").json()["metrics"]
    assert 0 <= metrics["new.csv/accuracy"] <= 1


def test_a_new_file_without_a_column_is_a_fault(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    write_flowers(tmp_path / "flowers.csv")
    bmcli("train", write_recipe(CSV_RECIPE))
    (tmp_path / "new.csv").write_text("a,b,cc,d,species\n1,2,3,4,setosa\n")
    done = bmcli("evaluate", "flowers", "--data", "new.csv")
    assert done.code == 2
    assert "'c'" in done.err
    assert "Traceback" not in done.err


def test_data_that_changed_since_training_is_not_measured_by_its_splits(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    write_flowers(tmp_path / "flowers.csv")
    bmcli("train", write_recipe(CSV_RECIPE))
    write_flowers(tmp_path / "flowers.csv", slice(0, 140))
    done = bmcli("evaluate", "flowers")
    assert done.code == 2
    assert "the data changed" in done.err


def test_a_missed_gate_exits_with_3_and_keeps_the_run(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("train", write_recipe(), "evaluate.gates.accuracy='>= 1.5'", "--json")
    assert done.code == 3
    assert "gate missed: test/accuracy" in done.err
    assert done.json()["missed_gates"]
    assert bmcli("evaluate", "tiny").code == 3
    assert bmcli("evaluate", "tiny", "evaluate.gates.accuracy='>= 0'").code == 0


def test_a_gate_on_an_unknown_metric_is_refused_before_training(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    done = bmcli("train", write_recipe(), "evaluate.gates.acuracy='>= 0.5'")
    assert done.code == 2
    assert "Did you mean 'accuracy'?" in done.err
    assert not (tmp_path / "runs").exists()


def test_the_saved_model_takes_raw_rows(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    write_flowers(tmp_path / "flowers.csv")
    run = bmcli(
        "train", write_recipe(CSV_RECIPE), "train.epochs=40", "train.optimizer.learning_rate=0.01", "--json"
    ).json()["run"]
    model = load_model(run)
    iris = load_iris()
    raw = {name: iris.data[:, i : i + 1].astype("float32") for i, name in enumerate("abcd")}
    if len(model.inputs[0].shape) == 1:
        raw = {name: values[:, 0] for name, values in raw.items()}
    predictions = np.asarray(model.predict(raw, verbose=0)["species"])
    assert predictions.sum(axis=1) == pytest.approx(np.ones(150), abs=1e-5)
    assert np.mean(predictions.argmax(axis=1) == iris.target) > 0.9


def test_a_fault_in_the_metric_names_its_place_and_leaves_no_run(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    done = bmcli("train", write_recipe(TINY + "evaluate: {split: test}\n"), "train.select.metric=validation/acc")
    assert done.code == 2
    assert "command line:1:" in done.err
    assert "train.select.metric" in done.err
    assert not list((tmp_path / "runs").rglob("recipe.lock.yaml"))


def test_a_training_that_diverges_exits_with_1_and_says_what_is_kept(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    done = bmcli("train", write_recipe(), "train.optimizer={kind: sgd, learning_rate: 1e30}")
    assert done.code == 1
    assert "training stopped" in done.err
    assert "no weights are kept" in done.err
    assert bmcli("runs", "--json").json()["runs"][0]["state"] == "failed"


def test_a_finished_run_is_not_resumed(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    bmcli("train", write_recipe())
    done = bmcli("train", "--resume", "tiny")
    assert done.code == 2
    assert "is already completed" in done.err


def test_a_run_that_another_process_writes_is_left_alone(bmcli: Bmcli, write_recipe: WriteRecipe) -> None:
    run = runs.Run(Path(bmcli("train", write_recipe(), "--json").json()["run"]))
    with run.acquire_lock():
        done = bmcli("train", "--resume", "tiny")
    assert done.code == 2
    assert f"written by process {os.getpid()}" in done.err


def test_an_interrupted_run_is_resumed_from_the_command_line(
    write_recipe: WriteRecipe, bmcli: Bmcli, tmp_path: Path
) -> None:
    recipe = write_recipe()
    whole = bmcli("train", recipe, "train.epochs=40", "--runs", "whole", "--json").json()
    code = (
        "import os, signal, sys\n"
        "from bmcli.training import trainer\n"
        "advance = trainer.Trainer._advance\n"
        "def stop(self, *args):\n"
        "    advance(self, *args)\n"
        "    if self.progress.step >= 90: os.kill(os.getpid(), signal.SIGTERM)\n"
        "trainer.Trainer._advance = stop\n"
        "from bmcli.__main__ import main\n"
        "main()\n"
    )
    arguments = ["train", str(recipe), "train.epochs=40", "--runs", "stopped"]
    stopped = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert stopped.returncode == 75, stopped.stderr
    assert "bmcli train --resume" in stopped.stderr
    resumed = bmcli("train", "--resume", "tiny", "--runs", "stopped", "--json").json()
    assert resumed["metrics"] == whole["metrics"]
    assert_same_bits(resumed["run"], whole["run"])


# The main thread waits for ever in C, as if TensorFlow compiled a very large function.
STUCK = """
import ctypes, os, signal, threading
from bmcli import stopping
from bmcli.training import evaluator, train_step, trainer

def stuck(*_):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    mutex = ctypes.create_string_buffer(64)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def train(self, *arguments, begin=trainer.Trainer._train):
    {function} = stuck
    begin(self, *arguments)

stopping.GRACE_S = 0.2
trainer.Trainer._train = train
from bmcli.__main__ import start
start()
"""


@pytest.mark.parametrize("function", ["train_step.CompiledSteps.train_block", "evaluator.Evaluator.measure"])
def test_a_signal_while_a_function_is_compiled_ends_the_process_and_the_run_goes_on_to_the_same_bits(
    write_recipe: WriteRecipe, bmcli: Bmcli, tmp_path: Path, function: str
) -> None:
    recipe = write_recipe()
    whole = bmcli("train", recipe, "--runs", "whole", "--json").json()
    stopped = subprocess.run(
        [sys.executable, "-c", STUCK.format(function=function), "train", str(recipe), "--runs", "stopped"],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240,
    )  # fmt: skip
    assert stopped.returncode == 75, stopped.stderr
    assert "interrupted; what was saved is kept." in stopped.stderr
    assert "Continue with `bmcli train --resume stopped/tiny/" in stopped.stderr
    run = runs.find(tmp_path / "stopped", "tiny")
    assert run.status()["state"] == "interrupted"
    (saved,) = run.checkpoints.glob("step-*")
    assert (saved.name == "step-000000000") == (function == "train_step.CompiledSteps.train_block")
    resumed = bmcli("train", "--resume", "tiny", "--runs", "stopped", "--json").json()
    assert resumed["metrics"] == whole["metrics"]
    assert_same_bits(resumed["run"], whole["run"])


def test_a_file_where_the_runs_should_be_is_explained(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = bmcli("train", write_recipe(), "--runs", tmp_path / "taken")
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_explained(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = bmcli("train", write_recipe(), "--runs", tmp_path / "closed" / "runs")
    assert done.code == 1
    assert "permission denied" in done.err


def test_a_full_disk_ends_with_words_and_harms_nothing(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """A limit on file sizes replaces a full disk; the model is larger."""
    recipe = write_recipe()
    limit = (40_000, resource.RLIM_INFINITY)
    arguments: list[Any] = [
        sys.executable,
        "-m",
        "bmcli",
        "train",
        str(recipe),
        "model.hidden=[400]",
        "--runs",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "file too large" in done.stderr
    assert not list((tmp_path / "r").rglob("model.keras"))
    assert not list((tmp_path / "r").rglob("*aside*"))


def test_the_noise_of_tensorflow_never_reaches_the_user(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bmcli", "train", str(write_recipe())],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("epoch", "run", "tiny:", "warning: "))]
    assert lines == []
